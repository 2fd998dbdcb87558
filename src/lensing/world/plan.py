"""How often every concept of the world is on: planned where draws plant it, counted where the text does."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

from lensing.world.almanac.grammar import almanac
from lensing.world.grammar import Slot, State
from lensing.world.sample import sample_document

NAMED = ("subject", "beast", "city", "thing", "place")  # what may be spoken of: a draw plants it, and it stays
# Classes whose concepts are on while a named thing of another class is spoken of, at some words.
WHOSE = {
    "speaker": "subject", "meant_person": "subject", "meant_beast": "beast", "meant_thing": "thing",
    "meant_town": "city", "meant_country": "place",
}  # fmt: skip
Source = tuple[str, int]  # a class, and the id of the slot whose draw planted it


@cache
def frequencies(documents: int = 1500) -> dict[str, float]:
    """Return every concept's share of tokens on which it is on, BOS left out.

    A rare name cannot be counted in any text of bearable length. For classes of named things, of speakers and of words
    that mean one of them it is the sum, over the slots whose draw may plant a name, of the counted share of tokens that
    go on about a draw of that slot, times the name's weight in it; for sayings the planted share times the class's. The
    rest is counted, over the world's first documents; concepts of single words (senses) too.
    """
    grammar = almanac()
    counts: dict[str, Counter[object]] = {cls: Counter() for cls in grammar.classes}
    about: Counter[tuple[str, Source]] = Counter()
    weights: dict[Source, dict[object, float]] = {}
    tokens = 0
    for number in range(documents):
        document = sample_document(grammar, number)
        tokens += len(document.words) - 1
        planted: dict[str, Source] = {}
        for i in range(1, len(document.words)):
            step = document.steps[i]
            # the state after a word is the one before the next word; nothing is on after the last
            following = document.steps[i + 1] if i + 1 < len(document.steps) else None
            after = None if following is None else following.state
            # a sentence is drawn with its first word: the step before that word does not name it yet
            sentence = step.sentence or (following.sentence if following is not None else None)
            part = None if sentence is None else sentence.parts[step.part]
            if after is not None and isinstance(part, Slot):
                for cls in NAMED:
                    read = grammar.classes[cls].value
                    if read(after) is not None and read(after) != read(step.state):
                        planted[cls] = (cls, id(part))
                        if planted[cls] not in weights:
                            weights[planted[cls]] = _weights(cls, part, step.state)
            for cls, concepts in grammar.classes.items():
                value = None
                if concepts.of_word:
                    value = concepts.value(part if isinstance(part, Slot) else None, step.state, document.words[i])
                elif after is not None:
                    value = concepts.value(after)
                if value is not None:
                    counts[cls][value] += 1
                    if (of := WHOSE.get(cls, cls)) in NAMED:
                        about[cls, planted[of]] += 1
    found = {}
    for name, concept in grammar.concepts().items():
        of_class, value = counts[concept.cls], name.partition(".")[2]
        if concept.cls in (*NAMED, *WHOSE):
            parts = [n * weights[source].get(value, 0.0) for (cls, source), n in about.items() if cls == concept.cls]
            found[name] = sum(parts) / tokens
        elif concept.cls == "saying":
            found[name] = of_class.total() / tokens * concept.planted
        else:
            found[name] = sum(n for v, n in of_class.items() if f"{concept.cls}.{v}" == name) / tokens
    return found


def decade(frequency: float) -> int:
    """Return the power of ten at or below a frequency: -3 for 0.0042."""
    return math.floor(math.log10(frequency))


def _weights(cls: str, slot: Slot, state: State) -> dict[object, float]:
    """How often a draw of a slot plants each value of a class."""
    read, dist, found = almanac().classes[cls].value, slot.dist(state), dict[object, float]()
    assert slot.then is not None
    for word, weight in zip(dist.values, dist.weights, strict=True):
        value = read(slot.then(state, word))
        found[value] = found.get(value, 0.0) + weight / dist.total
    return found
