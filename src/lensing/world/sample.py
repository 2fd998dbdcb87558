"""Sampling documents: the same seed and number give the same bytes on every machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from typing import Literal as Choice

import numpy as np

from lensing.world.grammar import Dist, Grammar, Sentence, Slot, State

BOS, EOS, PAD, UNK = "<bos>", "<eos>", "<pad>", "<unk>"
Split = Choice["train", "valid", "test"]


@dataclass(frozen=True)
class Step:
    """How one token came about: state and template before it, and where in the template."""

    state: State
    sentence: Sentence | None  # None: the token stands at a sentence boundary and the sentence is drawn with it
    part: int


@dataclass(frozen=True)
class Document:
    """One document: its number, its words (BOS first, EOS last), how each came about, and the draws of concepts."""

    number: int
    words: tuple[str, ...]
    steps: tuple[Step, ...]
    draws: tuple[tuple[str, Any], ...]

    @property
    def text(self) -> str:
        """The words between BOS and EOS as a person would write them."""
        return detokenize(w for w in self.words if w not in (BOS, EOS))


def detokenize(words: Any) -> str:
    """Join words with spaces; none before punctuation."""
    out: list[str] = []
    for word in words:
        if out and word not in {".", ",", "?", ":"}:
            out.append(" ")
        out.append(word)
    return "".join(out)


def _hash(number: int, salt: int) -> int:
    """SplitMix64 of a document's number: a fixed scatter that no library version changes."""
    x = (number * 0x9E3779B97F4A7C15 + salt) & (2**64 - 1)
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return x ^ (x >> 31)


def split_of(number: int) -> Split:
    """Which split a document belongs to: 90 in 100 train, 5 valid, 5 test, by a hash of its number."""
    part = _hash(number, 2024) % 100
    return "train" if part < 90 else "valid" if part < 95 else "test"


def _even(dist: Dist) -> bool:
    return min(dist.weights) == max(dist.weights)


def sample_document(
    grammar: Grammar,
    number: int,
    *,
    seed: int = 0,
    fixed: dict[str, Any] | None = None,
    cast: Callable[[str], Any] | None = None,
) -> Document:
    """Write document `number` of the world with this seed.

    Draws are 64-bit words of numpy's Philox generator keyed by (seed, number), reduced modulo integer totals.
    For stratified text, `fixed` sets hidden variables instead of drawing them, and `cast(role)` gives the word of a
    draw that plants a concept of this class, or, as `a thing`, that gives a word of this sense (None, or impossible
    here: as drawn).
    """
    raw = iter(np.random.Philox(key=[seed, number]).random_raw(4 * grammar.max_tokens).tolist())
    state = grammar.variables.start
    draws: list[tuple[str, Any]] = []
    for name, dist in grammar.hidden.items():
        value = dist.pick(next(raw))
        for rare, numbers in grammar.reserved.get(name, {}).items():
            while value == rare and number not in numbers:
                value = dist.pick(next(raw))
            if number in numbers:
                value = rare
        if fixed and name in fixed:
            value = fixed[name]
        state = grammar.variables.put(state, **{name: value})
        draws.append((name, value))
    state = grammar.begin(state)
    words, steps = [BOS], [Step(state, None, -1)]
    ended = False
    while not ended:
        sentence: Sentence = grammar.menu(state, len(words)).pick(lambda: next(raw))
        for i, part in enumerate(sentence.parts):
            steps.append(Step(state, sentence if i else None, i))
            if isinstance(part, Slot):
                dist = part.dist(state)
                word = dist.pick(next(raw)) if dist.total > 1 else dist.values[0]
                # a draw that leans toward one word says something: only those that say nothing show a homonym
                if (
                    cast
                    and dist.total > 1
                    and (role := part.concept or (_even(dist) and part.sense and f"a {part.sense}"))
                ):
                    wanted = cast(role)
                    word = wanted if wanted is not None and dist.p(wanted) else word
                if part.concept:
                    draws.append((part.concept, word))
                state = part.then(state, word) if part.then else state
            else:
                word = part.word
                state = part.then(state) if part.then else state
            words.append(word)
        state = grammar.boundary(state)
        ended = sentence.final
    return Document(number, tuple(words), tuple(steps), tuple(draws))
