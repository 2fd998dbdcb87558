"""A corpus as two flat arrays: token ids of documents end to end, and where each begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lensing.files import atomic_file
from lensing.progress import Meter
from lensing.world.grammar import Grammar
from lensing.world.sample import Split, sample_document, split_of
from lensing.world.tokens import vocabulary


@dataclass(frozen=True)
class Corpus:
    """Documents as token ids: `ids` uint16 [tokens], `starts` int64 [documents + 1], `numbers` int64 [documents]."""

    ids: np.ndarray
    starts: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.ids[self.starts[i] : self.starts[i + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def save(self, path: str | Path) -> None:
        """Write as one uncompressed `.npz`."""
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, ids=self.ids, starts=self.starts, numbers=self.numbers)

    @staticmethod
    def load(path: str | Path) -> Corpus:
        """Read what `save` wrote (no pickled objects are accepted)."""
        with np.load(path, allow_pickle=False) as file:
            return Corpus(file["ids"], file["starts"], file["numbers"])


def write_corpus(
    grammar: Grammar,
    n_documents: int,
    *,
    split: Split | None = "train",
    seed: int = 0,
    first: int = 0,
    cycle: Sequence[dict[str, Any]] = ({},),
    quiet: bool = False,
) -> Corpus:
    """Write documents numbered from `first` until `n_documents` of a split exist.

    `cycle` fixes hidden variables, one entry after the other, for text in which what is rare is not.
    """
    ids = {w: i for i, w in enumerate(vocabulary(grammar))}
    parts: list[np.ndarray] = []
    numbers: list[int] = []
    number = first
    with Meter("writing the world", total=n_documents, unit="documents", quiet=quiet) as meter:
        while len(parts) < n_documents:
            if split is None or split_of(number) == split:
                document = sample_document(grammar, number, seed=seed, fixed=cycle[len(parts) % len(cycle)])
                parts.append(np.array([ids[w] for w in document.words], dtype=np.uint16))
                numbers.append(number)
                meter.advance()
            number += 1
    starts = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
    return Corpus(np.concatenate(parts), starts, np.array(numbers, dtype=np.int64))
