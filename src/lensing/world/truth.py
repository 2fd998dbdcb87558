"""Truth for every token: which concepts are on, off, or not yet settled by the words so far.

A concept is on where the reader's filter is certain of it, off where it is certain of the contrary, and undetermined
between: the label is a fact about the text, never a guess of the generator's private state.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lensing.errors import UnknownNameError
from lensing.files import atomic_file
from lensing.progress import Meter
from lensing.world.filter import Hypothesis, Reader
from lensing.world.grammar import Concept, Grammar, Slot
from lensing.world.sample import BOS, Document

ON, OFF, UNDETERMINED = 1, 0, -1


def read_truth(reader: Reader, words: Sequence[str]) -> list[dict[str, frozenset[object]]]:
    """Return for each word (BOS first) and each class of concepts the set of values still possible after it.

    None in a set means that no concept of the class is on.
    """
    classes = reader.grammar.classes
    reader.start()
    rows = []
    for word in words:
        if word != BOS:
            reader.read(word)
        states = {state for state, _, _ in reader.belief}
        read = {(_slot(h), h[0]) for h in reader.belief}
        rows.append(
            {
                name: frozenset(c.value(slot, state, word) for slot, state in read)
                if c.of_word
                else frozenset(c.value(state) for state in states)
                for name, c in classes.items()
            }
        )
    return rows


def _slot(hypothesis: Hypothesis) -> Slot | None:
    """The slot of the word just read, under one hypothesis; a sentence's last word is a literal."""
    _, sentence, part = hypothesis
    last = sentence.parts[part - 1] if sentence is not None and part > 0 else None
    return last if isinstance(last, Slot) else None


def label(possible: dict[str, frozenset[object]], concept: Concept) -> int:
    """Return ON, OFF or UNDETERMINED of one concept, given the possible values of its class."""
    values = possible[concept.cls]
    if concept.partial and values == {None}:
        return UNDETERMINED
    value = next((v for v in values if f"{concept.cls}.{v}" == concept.name), None)
    if value is None:
        return OFF
    return ON if len(values) == 1 else UNDETERMINED


def named(possible: dict[str, frozenset[object]]) -> dict[str, str]:
    """Write the possible values of each class for a person: one value, `none`, or `a or b` while undetermined."""
    return {
        cls: " or ".join(sorted("none" if v is None else str(v) for v in values)) for cls, values in possible.items()
    }


@dataclass(frozen=True)
class Labelled:
    """Text with truth: flat token ids, document starts and numbers, and a code per token and class.

    `ids` uint16 [tokens], `starts` int64 [documents + 1], `codes` int16 [tokens, classes]; `possible[class][code]`
    lists the values that remain possible (None: no concept of the class). Of `partial` classes a word without a value
    says nothing: all their concepts are undetermined there.
    """

    ids: np.ndarray
    starts: np.ndarray
    numbers: np.ndarray
    codes: np.ndarray
    classes: tuple[str, ...]
    possible: dict[str, list[list[object]]]
    partial: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def documents(self) -> list[list[int]]:
        """The documents as lists of token ids."""
        return [self.ids[a:b].tolist() for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]

    def first(self, n: int) -> Labelled:
        """Return the text's first `n` documents."""
        end = int(self.starts[min(n, len(self))])
        return Labelled(
            self.ids[:end],
            self.starts[: n + 1],
            self.numbers[:n],
            self.codes[:end],
            self.classes,
            self.possible,
            self.partial,
        )

    def concepts(self) -> list[str]:
        """Names of all concepts that are on at some token of this text."""
        names = set()
        for c, cls in enumerate(self.classes):
            for code in np.unique(self.codes[:, c]):
                values = self.possible[cls][code]
                if len(values) == 1 and values[0] is not None:
                    names.add(f"{cls}.{values[0]}")
        return sorted(names)

    def truth(self, concept: str) -> np.ndarray:
        """Return ON (1), OFF (0) or UNDETERMINED (-1) for every token, int8 [tokens]."""
        cls, _, value = concept.partition(".")
        if cls not in self.classes:
            raise UnknownNameError("class of concepts", cls, self.classes)
        table = [
            UNDETERMINED
            if cls in self.partial and values == [None]
            else OFF
            if value not in map(str, values)
            else ON
            if len(values) == 1
            else UNDETERMINED
            for values in self.possible[cls]
        ]
        return np.array(table, dtype=np.int8)[self.codes[:, self.classes.index(cls)]]

    def save(self, path: str | Path) -> None:
        """Write as one compressed `.npz`."""
        facts = json.dumps({"classes": self.classes, "possible": self.possible, "partial": self.partial})
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file, ids=self.ids, starts=self.starts, numbers=self.numbers, codes=self.codes, facts=np.array(facts)
            )

    @staticmethod
    def load(path: str | Path) -> Labelled:
        """Read what `save` wrote (no pickled objects are accepted)."""
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            return Labelled(
                file["ids"],
                file["starts"],
                file["numbers"],
                file["codes"],
                tuple(facts["classes"]),
                facts["possible"],
                tuple(facts.get("partial", ())),
            )


def label_documents(
    grammar: Grammar, documents: Iterable[Document], *, total: int | None = None, quiet: bool = True
) -> Labelled:
    """Label every token of some documents by the exact filter (about a thousand tokens a second)."""
    reader = Reader(grammar)
    classes = tuple(grammar.classes)
    tables: dict[str, dict[frozenset[object], int]] = {cls: {} for cls in classes}
    ids: list[int] = []
    codes: list[list[int]] = []
    starts, numbers = [0], []
    with Meter("labelling", total=total, unit="documents", quiet=quiet) as meter:
        for document in documents:
            for row in read_truth(reader, document.words):
                codes.append([tables[cls].setdefault(row[cls], len(tables[cls])) for cls in classes])
            ids += [reader.ids[w] for w in document.words]
            starts.append(len(ids))
            numbers.append(document.number)
            meter.advance()
    possible = {cls: [sorted(values, key=str) for values in tables[cls]] for cls in classes}
    return Labelled(
        np.array(ids, dtype=np.uint16),
        np.array(starts, dtype=np.int64),
        np.array(numbers, dtype=np.int64),
        np.array(codes, dtype=np.int16).reshape(len(ids), len(classes)),
        classes,
        possible,
        tuple(cls for cls, c in grammar.classes.items() if c.partial),
    )
