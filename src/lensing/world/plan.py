"""How often every concept of the world is on: planned where a draw plants it, counted where the text does."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

from lensing.world.almanac.grammar import almanac
from lensing.world.sample import Step, sample_document

PLANNED = ("subject", "speaker", "beast", "city", "thing", "place", "saying")  # frequency = planted share x class share


@cache
def frequencies(documents: int = 1500) -> dict[str, float]:
    """Return every concept's share of tokens on which it is on, BOS left out.

    For classes whose draws are planted over decades it is the planted share of the concept times the class's measured
    share of tokens (a rare concept cannot be counted in any text of bearable length); for the rest it is a count over
    the world's first documents. Concepts of single words (senses) are counted too.
    """
    grammar = almanac()
    counts: dict[str, Counter[object]] = {cls: Counter() for cls in grammar.classes}
    tokens = 0
    for number in range(documents):
        document = sample_document(grammar, number)
        tokens += len(document.words) - 1
        for i in range(1, len(document.words)):
            # the state after a word is the one before the next word; nothing is on after the last
            after = document.steps[i + 1].state if i + 1 < len(document.steps) else None
            for cls, concepts in grammar.classes.items():
                if concepts.of_word:
                    counts[cls][concepts.value(_sense(document.steps[i]), document.words[i])] += 1
                elif after is not None:
                    counts[cls][concepts.value(after)] += 1
    found = {}
    for name, concept in grammar.concepts().items():
        of_class = counts[concept.cls]
        if concept.cls in PLANNED:
            share = sum(n for value, n in of_class.items() if value is not None) / tokens
            found[name] = share * concept.planted
        else:
            found[name] = sum(n for value, n in of_class.items() if f"{concept.cls}.{value}" == name) / tokens
    return found


def decade(frequency: float) -> int:
    """Return the power of ten at or below a frequency: -3 for 0.0042."""
    return math.floor(math.log10(frequency))


def _sense(step: Step) -> str | None:
    return getattr(step.sentence.parts[step.part], "sense", None) if step.sentence is not None else None
