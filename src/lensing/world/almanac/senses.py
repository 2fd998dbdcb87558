"""Homonyms: the same word in two or more senses, told apart by the place it stands in."""

from __future__ import annotations

from lensing.world import lexicon
from lensing.world.grammar import ConceptClass, Slot, State, Theme, uniform

_homonyms = lexicon.homonyms()


def _sense(slot: Slot | None, state: State, word: str) -> str | None:
    sense = slot.sense if slot else None
    return f"{word}:{sense}" if sense in _homonyms.get(word, ()) else None


theme = Theme(
    "senses",
    classes={
        "sense": ConceptClass(
            value=_sense,
            planted=uniform(f"{word}:{sense}" for word, senses in _homonyms.items() for sense in senses),
            per="homonym",
            of_word=True,
        )
    },
)
