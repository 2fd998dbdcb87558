"""Sparse latent activations of many rows, in compressed rows; a dense tensor is only made in bounded chunks."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lensing.dictionary.kernels import Pattern
from lensing.errors import UsageError


class Codes:
    """Latent activations [rows, d_sae], of which only the active ones are held.

    Row r has the latents index[indptr[r] : indptr[r + 1]] (ascending) with the activations in `value`.
    `indptr` is int64, `index` int32. Rows are the flattened leading axes of what was encoded (`leading`).
    """

    def __init__(
        self,
        indptr: Int[Tensor, " rows1"],
        index: Int[Tensor, " nnz"],
        value: Float[Tensor, " nnz"],
        shape: tuple[int, int],
        *,
        leading: tuple[int, ...] | None = None,
        pattern: Pattern | None = None,
    ) -> None:
        if len(indptr) != shape[0] + 1 or len(index) != len(value):
            raise UsageError(
                f"Codes of {shape[0]} rows need {shape[0] + 1} row pointers and as many values as indices, "
                f"not {len(indptr)}, {len(value)} and {len(index)}. Build them with Codes.from_dense."
            )
        self.indptr, self.index, self.value, self.shape = indptr, index, value, shape
        self.leading = leading if leading is not None else (shape[0],)
        self.pattern = pattern if pattern is not None else Pattern(indptr, index, shape[1])

    @classmethod
    def from_dense(cls, dense: Float[Tensor, "*leading d_sae"]) -> Self:
        """Hold the entries of a dense tensor that are not zero."""
        flat = dense.reshape(-1, dense.shape[-1])
        row, index = flat.nonzero(as_tuple=True)
        indptr = torch.zeros(len(flat) + 1, dtype=torch.int64, device=flat.device)
        torch.cumsum(torch.bincount(row, minlength=len(flat)), 0, out=indptr[1:])
        shape = (len(flat), dense.shape[-1])
        return cls(indptr, index.int(), flat[row, index], shape, leading=tuple(dense.shape[:-1]))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.shape[0]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.shape[1]

    @property
    def nnz(self) -> int:
        """Number of active places."""
        return len(self.index)

    @property
    def rectangle(self) -> tuple[Int[Tensor, "rows k"], Float[Tensor, "rows k"]] | None:
        """Index and value as [rows, k] views where every row has equally many active latents, else None."""
        k, spare = divmod(self.nnz, max(self.rows, 1))
        if spare or not bool((self.indptr.diff() == k).all()):
            return None
        return self.index.view(self.rows, k), self.value.view(self.rows, k)

    def counts(self) -> Int[Tensor, " rows"]:
        """Active latents of every row."""
        return self.indptr.diff()

    def l0(self) -> float:
        """Mean number of active latents a row."""
        return self.nnz / max(self.rows, 1)

    def row(self, i: int) -> tuple[Int[Tensor, " active"], Float[Tensor, " active"]]:
        """The active latents of row `i`, ascending, and their activations."""
        if not -self.rows <= i < self.rows:
            raise UsageError(f"There is no row {i} in codes of {self.rows} rows. Give 0 to {self.rows - 1}.")
        i %= self.rows
        start, stop = int(self.indptr[i]), int(self.indptr[i + 1])
        return self.index[start:stop].long(), self.value[start:stop]

    def column(self, j: int) -> tuple[Int[Tensor, " active"], Float[Tensor, " active"]]:
        """The rows where latent `j` is active, ascending, and its activations there."""
        if not 0 <= j < self.d_sae:
            raise UsageError(f"There is no latent {j} in a dictionary of {self.d_sae}. Give 0 to {self.d_sae - 1}.")
        pointer, order = self.pattern.transposed
        places = order[int(pointer[j]) : int(pointer[j + 1])]
        return self.pattern.row_of[places], self.value[places]

    def dense(self, rows: slice | None = None) -> Float[Tensor, "rows d_sae"]:
        """The rows (all, or a slice of step 1) as a dense tensor; use `chunks` where they are many."""
        start, stop, step = (rows or slice(None)).indices(self.rows)
        if step != 1:
            raise UsageError(f"Rows can be taken with step 1, not {step}. Index the dense tensor instead.")
        stop = max(start, stop)
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        out = self.value.new_zeros(stop - start, self.d_sae)
        out[self.pattern.row_of[first:last] - start, self.index[first:last].long()] = self.value[first:last]
        return out

    def chunks(self, max_bytes: int = 64 << 20) -> Iterator[tuple[slice, Float[Tensor, "rows d_sae"]]]:
        """Yield (rows, dense) over all rows, no dense tensor larger than `max_bytes` (but at least one row)."""
        step = max(max_bytes // (self.d_sae * self.value.element_size()), 1)
        for start in range(0, self.rows, step):
            rows = slice(start, min(start + step, self.rows))
            yield rows, self.dense(rows)

    def with_values(self, value: Float[Tensor, " nnz"]) -> Codes:
        """The same active places with other activations."""
        return Codes(self.indptr, self.index, value, self.shape, leading=self.leading, pattern=self.pattern)

    def to(self, dtype: torch.dtype) -> Codes:
        """The same codes with values of `dtype`."""
        return self.with_values(self.value.to(dtype))

    @functools.cached_property
    def maximum(self) -> Float[Tensor, " d_sae"]:
        """Every latent's largest activation over the rows, 0 where it is silent."""
        out = self.value.new_zeros(self.d_sae).detach()
        return out.scatter_reduce(0, self.index.long(), self.value.detach(), "amax")

    def density(self) -> Float[Tensor, " d_sae"]:
        """Share of rows in which every latent is active."""
        return torch.bincount(self.index, minlength=self.d_sae).double().div(max(self.rows, 1)).float()

    def __repr__(self) -> str:
        return f"Codes(rows={self.rows}, d_sae={self.d_sae}, l0={self.l0():.3g})"
