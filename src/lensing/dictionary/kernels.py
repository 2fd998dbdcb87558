"""Sparse products with exact gradients: the cost of a step follows the active latents, not the width.

A pattern says which latents are active in which row. Two products suffice, each the other's gradient:
`sparse_dot` (row . latent direction, at the pattern's places: the encoder) and `sparse_mix` (sum of value times
latent direction: the decoder). Their gradients for the weights run over the transposed pattern, so that no dense
[rows, d_sae] tensor is ever made whole. A pattern of which more than an eighth is active goes through dense products, a
chunk of rows at a time: a core multiplies dense matrices about eight times faster than it gathers. On a GPU the sparse
products are Triton kernels where triton is installed, and torch's own otherwise.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

CHUNK_BYTES = 2 << 20  # gathered rows that stay in a core's second-level cache
DENSE_BYTES = 16 << 20  # a chunk of rows made dense
DENSE = 1 / 8  # share of active places from which dense products are quicker


class Pattern:
    """Which of `columns` latents are active in each row: row r holds index[indptr[r] : indptr[r + 1]], ascending.

    `pre` are the pre-activations at these places, where the selection computed them anyway.
    """

    def __init__(
        self,
        indptr: Int[Tensor, " rows1"],
        index: Int[Tensor, " nnz"],
        columns: int,
        pre: Float[Tensor, " nnz"] | None = None,
    ) -> None:
        self.indptr, self.index, self.columns, self.pre = indptr, index, columns, pre

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    @functools.cached_property
    def row_of(self) -> Int[Tensor, " nnz"]:
        """The row of every active place."""
        counts = self.indptr.diff()
        return torch.repeat_interleave(
            torch.arange(self.rows, device=counts.device), counts, output_size=len(self.index)
        )

    @property
    def is_dense(self) -> bool:
        """Whether so many places are active that dense products are quicker."""
        return len(self.index) > DENSE * self.rows * self.columns

    def chunks(self, itemsize: int) -> Iterator[tuple[slice, slice]]:
        """Yield (rows, places) such that a dense tensor of these rows takes at most `DENSE_BYTES` (or is one row)."""
        step = max(DENSE_BYTES // (itemsize * max(self.columns, 1)), 1)
        for start in range(0, self.rows, step):
            stop = min(start + step, self.rows)
            yield slice(start, stop), slice(int(self.indptr[start]), int(self.indptr[stop]))

    def dense(self, value: Float[Tensor, " nnz"], rows: slice, places: slice) -> Float[Tensor, "rows columns"]:
        """Some rows as a dense tensor, with `value` at the places of the pattern."""
        out = value.new_zeros(rows.stop - rows.start, self.columns)
        out[self.row_of[places] - rows.start, self.index[places].long()] = value[places]
        return out

    def stacked(self, edges: tuple[int, ...]) -> tuple[Pattern, Int[Tensor, " nnz"]]:
        """The same places as rows of one segment of latents after the other, and which place each of them was.

        Segment g of row r, the latents from one edge to below the next, is row g rows + r.
        """
        segment = torch.bucketize(self.index.long(), torch.tensor(edges, device=self.index.device), right=True)
        pointer, order = _by_key(segment * self.rows + self.row_of, (len(edges) + 1) * self.rows)
        return Pattern(pointer, self.index[order], self.columns), order

    @functools.cached_property
    def transposed(self) -> tuple[Int[Tensor, " columns1"], Int[Tensor, " nnz"]]:
        """The same places by latent: (pointer per latent, order of the places), rows ascending within a latent."""
        return _by_key(self.index, self.columns)


def _by_key(key: Tensor, keys: int) -> tuple[Tensor, Tensor]:
    # where each key's places begin, and the places in the order of their keys
    if key.device.type == "cpu" and keys <= 1 << 15:
        # numpy sorts 16-bit integers by radix, about ten times faster than a comparison sort
        order = torch.from_numpy(np.argsort(key.numpy().astype(np.int16), kind="stable"))
    else:
        order = torch.argsort(key, stable=True)
    pointer = torch.zeros(keys + 1, dtype=torch.int64, device=key.device)
    torch.cumsum(torch.bincount(key, minlength=keys), 0, out=pointer[1:])
    return pointer, order


def sparse_dot(
    x: Float[Tensor, "rows d_in"], weight: Float[Tensor, "d_sae d_in"], bias: Float[Tensor, " d_sae"], pattern: Pattern
) -> Float[Tensor, " nnz"]:
    """x[row] . weight[latent] + bias[latent] at every place of the pattern, differentiable in all three."""
    return _Dot.apply(x, weight, bias, pattern)


def sparse_mix(
    value: Float[Tensor, " nnz"], weight: Float[Tensor, "d_sae d_in"], pattern: Pattern
) -> Float[Tensor, "rows d_in"]:
    """The sum over a row's places of value times weight[latent], differentiable in both."""
    return _Mix.apply(value, weight, pattern)


class _Dot(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, pattern: Pattern) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(x, weight)
        return pattern.pre if pattern.pre is not None else pre_at(x, weight, bias, pattern)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        p, needs = ctx.pattern, ctx.needs_input_grad
        grad = grad.contiguous()
        for_x = _bag(grad, weight, p) if needs[0] else None
        for_weight = _bag_by_latent(grad, x, p) if needs[1] else None
        for_bias = _sum_by_latent(grad, p) if needs[2] else None
        return for_x, for_weight, for_bias, None


class _Mix(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, pattern: Pattern) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(value, weight)
        return _bag(value, weight, pattern)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        value, weight = ctx.saved_tensors
        p, needs = ctx.pattern, ctx.needs_input_grad
        grad = grad.contiguous()
        for_value = _dots(grad, weight, p) if needs[0] else None
        for_weight = _bag_by_latent(value, grad, p) if needs[1] else None
        return for_value, for_weight, None


def pre_at(x: Tensor, weight: Tensor, bias: Tensor, pattern: Pattern) -> Float[Tensor, " nnz"]:
    """x[row] . weight[latent] + bias[latent] at every place of the pattern, without a gradient."""
    return _dots(x, weight, pattern) + bias.detach()[pattern.index]


def _bag(value: Tensor, weight: Tensor, pattern: Pattern) -> Tensor:
    value, weight = value.detach(), weight.detach()
    if pattern.is_dense:
        out = value.new_empty(pattern.rows, weight.shape[1])
        for rows, places in pattern.chunks(value.element_size()):
            torch.mm(pattern.dense(value, rows, places), weight, out=out[rows])
        return out
    return _embedding_bag(value, weight, pattern.index, pattern.indptr)


def _bag_by_latent(value: Tensor, rows: Tensor, pattern: Pattern) -> Tensor:
    value, rows = value.detach(), rows.detach()
    if pattern.is_dense:
        out = value.new_zeros(pattern.columns, rows.shape[1])
        for chunk, places in pattern.chunks(value.element_size()):
            out.addmm_(pattern.dense(value, chunk, places).t(), rows[chunk])
        return out
    pointer, order = pattern.transposed
    return _embedding_bag(value[order], rows, pattern.row_of[order], pointer)


def _sum_by_latent(value: Tensor, pattern: Pattern) -> Tensor:
    if value.device.type == "cpu":
        return torch.bincount(pattern.index, weights=value, minlength=pattern.columns).to(value.dtype)
    # a GPU's bincount adds in whatever order its threads come
    pointer, order = pattern.transposed
    return _embedding_bag(value[order], value.new_ones(pattern.rows, 1), pattern.row_of[order], pointer)[:, 0]


def _embedding_bag(value: Tensor, weight: Tensor, index: Tensor, indptr: Tensor) -> Tensor:
    if (gpu := _gpu_kernels(value)) is not None:
        return gpu.bag(value, weight, index, indptr)
    return F.embedding_bag(
        index, weight, indptr.to(index.dtype), per_sample_weights=value, mode="sum", include_last_offset=True
    )


def _dots(x: Tensor, weight: Tensor, pattern: Pattern) -> Tensor:
    x, weight = x.detach(), weight.detach()
    if pattern.is_dense:
        out = x.new_empty(len(pattern.index))
        for rows, places in pattern.chunks(x.element_size()):
            row = pattern.row_of[places] - rows.start
            out[places] = torch.mm(x[rows], weight.t())[row, pattern.index[places].long()]
        return out
    if (gpu := _gpu_kernels(x)) is not None:
        return gpu.dots(x, weight, pattern.index, pattern.indptr)
    if _sampled_product_works(x.device, x.dtype):
        return _sampled(x, weight, pattern.indptr, pattern.index, pattern.columns)
    step = max(CHUNK_BYTES // (4 * x.shape[1]), 1)
    parts = [
        (x[pattern.row_of[i : i + step]] * weight[pattern.index[i : i + step].long()]).sum(1)
        for i in range(0, len(pattern.index), step)
    ]
    return torch.cat(parts) if parts else x.new_zeros(0)


def _sampled(x: Tensor, weight: Tensor, indptr: Tensor, index: Tensor, columns: int) -> Tensor:
    places = torch.sparse_csr_tensor(
        indptr, index.long(), x.new_zeros(len(index)), (len(indptr) - 1, columns), check_invariants=False
    )
    return torch.sparse.sampled_addmm(places, x, weight.t(), beta=0.0).values()


def _gpu_kernels(tensor: Tensor) -> Any:
    return _triton_kernels() if tensor.is_cuda else None


@functools.cache
def _triton_kernels() -> Any:
    try:
        return importlib.import_module("lensing.dictionary.triton_kernels")
    except ImportError:
        return None


@functools.cache
def _sampled_product_works(device: torch.device, dtype: torch.dtype) -> bool:
    # not every build of torch has the sampled product for every device and type: ask once
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
    try:
        one = torch.ones(1, 1, device=device, dtype=dtype)
        pointer = torch.tensor([0, 1], device=device)
        return bool(_sampled(one, one, pointer, pointer[:1], 1)[0] == 1)
    except (RuntimeError, NotImplementedError):
        return False
