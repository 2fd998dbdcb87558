"""The reader's floor: an exact Bayes filter over the hidden state of a document.

The reader knows the grammar and sees only words. Its belief is a distribution over (state, sentence, place in the
sentence); because a document's choices are mostly spoken aloud, few hypotheses stay alive and the filter is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lensing.errors import PromptError
from lensing.world.grammar import MENUS_KEPT, Choices, Dist, Grammar, Literal, Sentence, Slot, State
from lensing.world.sample import BOS, Document, Step
from lensing.world.tokens import vocabulary

Hypothesis = tuple[State, Sentence | None, int]


class Reader:
    """A reader of one document at a time: `belief` after each word, `predict()` for the next."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.words = vocabulary(grammar)
        self.ids = {w: i for i, w in enumerate(self.words)}
        self._first: dict[int, tuple[Dist, _First]] = {}
        self._menus: dict[int, tuple[Choices, list[tuple[_First, float]]]] = {}
        self.start()

    def start(self) -> None:
        """Begin a new document: BOS is read, nothing else."""
        self.n_tokens = 1
        self.belief: dict[Hypothesis, float] = {(state, None, 0): p for state, p in self.grammar.starts() if p > 0}

    def predict(self) -> np.ndarray:
        """Return the exact probability of each next word given the words so far, Float64[vocab]."""
        out = np.zeros(len(self.words))
        for (state, sentence, part), p in self.belief.items():
            self._add(out, state, sentence, part, p)
        return out

    def generator_predict(self, step: Step, n_tokens: int) -> np.ndarray:
        """Return the next-word probabilities of someone who also knows the hidden state, Float64[vocab]."""
        self.n_tokens, kept = n_tokens, self.n_tokens
        out = np.zeros(len(self.words))
        self._add(out, step.state, step.sentence, step.part, 1.0)
        self.n_tokens = kept
        return out

    def read(self, word: str) -> float:
        """Condition on the next word and return its probability before it was read; PromptError where it was 0."""
        new: dict[Hypothesis, float] = {}
        total = 0.0
        for (state, sentence, part), p in self.belief.items():
            if sentence is None:
                for first, share in self._start_of(state):
                    for candidate, q in (*first.literal.get(word, ()), *first.slots):
                        total += self._advance(new, state, candidate, 0, word, p * share * q)
            else:
                total += self._advance(new, state, sentence, part, word, p)
        if not total > 0.0:
            raise PromptError(
                f"No document of this world reads {word!r} after {self.n_tokens} tokens. Leave it out of the text."
            )
        self.belief = {h: p / total for h, p in new.items()}
        self.n_tokens += 1
        return total

    def _advance(
        self, new: dict[Hypothesis, float], state: State, sentence: Sentence, i: int, word: str, p: float
    ) -> float:
        part = sentence.parts[i]
        if isinstance(part, Literal):
            if part.word != word:
                return 0.0
        else:
            p *= part.dist(state).p(word)
            if p == 0.0:
                return 0.0
        state = self.grammar.step(part, state, word)
        if i + 1 < len(sentence.parts):
            key: Hypothesis = (state, sentence, i + 1)
        elif sentence.final:
            key = (state, sentence, i)
        else:
            key = (self.grammar.boundary(state), None, 0)
        new[key] = new.get(key, 0.0) + p
        return p

    def _add(self, out: np.ndarray, state: State, sentence: Sentence | None, part: int, p: float) -> None:
        if sentence is None:
            for first, share in self._start_of(state):
                out[first.ids] += p * share * first.p
                for candidate, q in first.slots:
                    self._add_part(out, state, candidate.parts[0], p * share * q)
        else:
            self._add_part(out, state, sentence.parts[part], p)

    def _add_part(self, out: np.ndarray, state: State, part: Literal | Slot, p: float) -> None:
        if isinstance(part, Literal):
            out[self.ids[part.word]] += p
            return
        dist = part.dist(state)
        if dist.arrays is None:
            weights = np.array(dist.weights, dtype=np.float64)
            dist.arrays = (np.array([self.ids[v] for v in dist.values]), weights / dist.total)
        ids, q = dist.arrays
        out[ids] += p * q

    def _start_of(self, state: State) -> list[tuple[_First, float]]:
        menu = self.grammar.menu(state, self.n_tokens)
        found = self._menus.get(id(menu))
        if found is None:
            if len(self._menus) >= MENUS_KEPT:
                self._menus.clear()
                self._first.clear()
            starts = [(self._first_of(g), w / menu.total) for g, w in zip(menu.groups, menu.weights, strict=True)]
            found = self._menus[id(menu)] = (menu, starts)
        return found[1]

    def _first_of(self, group: Dist) -> _First:
        found = self._first.get(id(group))
        if found is None:
            found = self._first[id(group)] = (group, _First(group, self.ids))
        return found[1]


class _First:
    """A menu sorted by how its sentences begin: literal first words added up, slots apart."""

    def __init__(self, menu: Dist, ids: dict[str, int]) -> None:
        self.literal: dict[str, list[tuple[Sentence, float]]] = {}
        self.slots: list[tuple[Sentence, float]] = []
        sums: dict[int, float] = {}
        for sentence, weight in zip(menu.values, menu.weights, strict=True):
            head, p = sentence.parts[0], weight / menu.total
            if isinstance(head, Literal):
                self.literal.setdefault(head.word, []).append((sentence, p))
                sums[ids[head.word]] = sums.get(ids[head.word], 0.0) + p
            else:
                self.slots.append((sentence, p))
        self.ids, self.p = np.array(list(sums), dtype=np.int64), np.array(list(sums.values()))


@dataclass(frozen=True)
class Floors:
    """Per token of a document, BOS left out, in nats: what the reader could not have known, and the generator.

    `surprisal` is -log p of the word that came under the exact filter; `reader` the entropy of that prediction;
    `generator` the entropy of the next word given also the hidden state. All Float64[tokens - 1].
    """

    surprisal: np.ndarray
    reader: np.ndarray
    generator: np.ndarray


def entropy(p: np.ndarray) -> float:
    """Return the entropy of a distribution in nats."""
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def floors(reader: Reader, document: Document) -> Floors:
    """Read a whole document and return both floors at each of its words."""
    reader.start()
    rows = []
    for i, word in enumerate(document.words[1:], start=1):
        known = reader.generator_predict(document.steps[i], i)
        seen = entropy(reader.predict())
        rows.append((-np.log(reader.read(word)), seen, entropy(known)))
    return Floors(*np.array(rows).T)


def read_words(reader: Reader, words: Sequence[str]) -> np.ndarray:
    """Read a prefix (BOS may lead) and return the exact prediction of the next word, Float64[vocab]."""
    reader.start()
    for word in words[1:] if words and words[0] == BOS else words:
        reader.read(word)
    return reader.predict()


class Possible:
    """Tells how much of a continuation no document of the world can hold."""

    def __init__(self, grammar: Grammar) -> None:
        self.reader = Reader(grammar)
        self._read: tuple[tuple[int, ...], int, dict[Hypothesis, float]] | None = None

    def impossible_share(self, prompt: Sequence[int], continuation: Sequence[int]) -> float:
        """Return the share of a continuation's words from the first impossible one on; 1 after an impossible prompt.

        Both are token ids, BOS perhaps leading. A word is impossible where no document of the world begins with all
        that came before and goes on with it; after it every word is.
        """
        reader, words = self.reader, self.reader.words
        prefix = tuple(prompt)
        if self._read is None or self._read[0] != prefix:
            try:
                read_words(reader, [words[i] for i in prefix])
            except PromptError:
                return 1.0
            self._read = (prefix, reader.n_tokens, reader.belief)
        _, reader.n_tokens, reader.belief = self._read
        for n, token in enumerate(continuation):
            try:
                reader.read(words[token])
            except PromptError:
                return 1 - n / len(continuation)
        return 0.0
