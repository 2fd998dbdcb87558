"""The whole grammar of the Almanac's world. To grow it, write a theme file and add it to `THEMES`."""

from __future__ import annotations

from functools import cache
from itertools import chain

from lensing.world import lexicon
from lensing.world.almanac import (
    beasts,
    calendar,
    faith,
    osk,
    people,
    places,
    registers,
    sayings,
    senses,
    stance,
    things,
    trade,
    weather,
)  # fmt: skip
from lensing.world.almanac.variables import MENU_NAMES, VARIABLES, begin, boundary, menu_key
from lensing.world.grammar import Grammar

THEMES = tuple(
    room.theme
    for room in (
        registers,
        people,
        beasts,
        places,
        things,
        trade,
        calendar,
        weather,
        stance,
        faith,
        sayings,
        osk,
        senses,
    )
)


@cache
def almanac() -> Grammar:
    """Return the grammar (built once)."""
    return _build({})


@cache
def drill() -> Grammar:
    """Return the same grammar with a calendar five times as busy: a lesson for a model in training, never a test."""
    return _build({"calendar": 5})


@cache
def trial() -> Grammar:
    """Return the same grammar full of sources that are put to the test, and of what follows from it: a second lesson.

    That a promise kept means trust and a promise broken doubt is learnt late: no word of either cue says which it is,
    and once a stance was heard it can be copied. Here stances turn so often that only the last test tells.
    """
    return _build(
        {"calendar": 5, "weather": 12, "stance": 4, **dict.fromkeys(_TESTS, 4), **dict.fromkeys(_TURNS, 120)}
        | dict.fromkeys(_CONSEQUENCES, 3)
    )


_OUTCOMES = tuple(f"{event}{{}}_{stance}" for event in ("weather", "geese") for stance in ("doubting", "trusting"))
_TESTS = tuple(f"stance.{outcome.format('')}" for outcome in _OUTCOMES)
_TURNS = tuple(f"stance.{outcome.format('_turned')}" for outcome in _OUTCOMES)
_CONSEQUENCES = ("stance.checked", "stance.counted", "stance.copied", "stance.slept")
# Sentences that show speakers, and homonyms in the senses that few sentences ask for.
_SELDOM = (
    "people.left", "people.lend", "people.lost", "people.hungry", "people.proud", "people.dislikes", "people.hums",
    "beasts.likes", "beasts.fears", "places.songs", "places.its_people", "places.known_for", "things.made_of",
)  # fmt: skip
_OFTEN = {"people": 3, "beasts": 3, "places": 4, "things": 4, **dict.fromkeys(_SELDOM, 3)}


@cache
def rehearsal() -> Grammar:
    """Return the same grammar with more of what is met too seldom: for evaluation text, where every concept must be."""
    return _build({"sayings": 16, **_OFTEN})


@cache
def bilingual() -> Grammar:
    """Return the same grammar with more of what is met too seldom and of Osk: evaluation text for senses of words."""
    return _build({"osk": 12, **_OFTEN})


def _build(boost: dict[str, int]) -> Grammar:
    return Grammar(
        variables=VARIABLES,
        hidden={"form": registers.FORM, "stance": stance.STANCE, "tense": registers.TENSE},
        themes=THEMES,
        menu_names=MENU_NAMES,
        menu_key=menu_key,
        boundary=boundary,
        words=(*lexicon.all_words(), *registers.VERBS, *registers.VERBS.values(), *chain(*sayings.SAYINGS)),
        boost=boost,
        begin=begin,
        reserved={"form": {"creature": registers.CREATURE_DOCUMENTS}},
    )
