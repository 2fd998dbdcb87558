"""Sparse activations of a stretch of text on disk, by latent and by row, so that both can be read without the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from lensing.dictionary.codes import Codes
from lensing.errors import FileFormatError
from lensing.files import atomic_file

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Chunk:
    """Codes of some rows: `ptr` [rows + 1] and `index` by row; `column` [d_sae + 1], `row` and `value` by latent.

    Rows count from the chunk's own first one; `error` is |x - x_hat| and `norm` |x| of each row.
    """

    ptr: Array
    index: Array
    column: Array
    row: Array
    value: Array
    error: Array
    norm: Array

    @classmethod
    def of(cls, codes: Codes, error: Array, norm: Array) -> Chunk:
        """Hold codes whose zeros count as silent."""
        row = np.repeat(np.arange(codes.rows, dtype=np.int32), codes.counts().numpy())
        index, value = codes.index.numpy().astype(np.int32), codes.value.detach().float().numpy()
        on = value != 0
        row, index, value = row[on], index[on], value[on]
        ptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=codes.rows))]).astype(np.int64)
        order = np.argsort(index, kind="stable")
        column = np.concatenate([[0], np.cumsum(np.bincount(index, minlength=codes.d_sae))]).astype(np.int64)
        return cls(ptr, index, column, row[order], value[order], error, norm)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.ptr) - 1

    @property
    def d_sae(self) -> int:
        """How many latents there are."""
        return len(self.column) - 1

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        with atomic_file(path) as temporary:
            save_file({name: np.ascontiguousarray(getattr(self, name)) for name in FIELDS}, str(temporary))


FIELDS = ("ptr", "index", "column", "row", "value", "error", "norm")


@dataclass(frozen=True, eq=False)
class Chunks:
    """All chunks of a text in order, read from disk a part at a time; `first` [chunks + 1] are their first rows."""

    paths: Sequence[Path]
    first: Array

    @cached_property
    def columns(self) -> Array:
        """Where each latent's places begin in every chunk, [chunks, d_sae + 1]."""
        return np.stack([self.read(i, "column") for i in range(len(self.paths))])

    @property
    def counts(self) -> Array:
        """Active places of every latent, [d_sae]."""
        return np.diff(self.columns, axis=1).sum(0)

    def read(self, i: int, name: str) -> Array:
        """One array of one chunk."""
        try:
            with safe_open(str(self.paths[i]), framework="numpy") as file:
                return file.get_tensor(name)
        except Exception as error:  # of safetensors, which raises what the operating system does and more
            raise FileFormatError(f"{self.paths[i]} cannot be read: {error}. Build the index again.") from error

    def whole(self, name: str) -> Array:
        """One array by row of all chunks."""
        return np.concatenate([self.read(i, name) for i in range(len(self.paths))])

    def blocks(self, places: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of latents with at most about `places` active places each (or one latent)."""
        counts, first = self.counts, 0
        while first < len(counts):
            total = np.cumsum(counts[first:])
            last = first + max(int(np.searchsorted(total, places, side="right")), 1)
            yield first, min(last, len(counts))
            first = last

    def latents(self, first: int, last: int) -> tuple[Array, Array, Array]:
        """Latents `first` to `last`: pointers [n + 1], the rows of the whole text in order, and the values."""
        counts = np.diff(self.columns[:, first : last + 1], axis=1)
        ptr = np.concatenate([[0], np.cumsum(counts.sum(0))]).astype(np.int64)
        row, value = np.empty(ptr[-1], dtype=np.int64), np.empty(ptr[-1], dtype=np.float32)
        at = ptr[:-1].copy()
        for i, path in enumerate(self.paths):
            start, stop = int(self.columns[i, first]), int(self.columns[i, last])
            if start == stop:
                continue
            with safe_open(str(path), framework="numpy") as file:
                rows, values = (file.get_slice(name)[start:stop] for name in ("row", "value"))
            # places of one latent stand together in the chunk; here they go behind those of earlier chunks
            target = np.repeat(at - (self.columns[i, first:last] - start), counts[i]) + np.arange(stop - start)
            row[target], value[target] = rows + self.first[i], values
            at += counts[i]
        return ptr, row, value
