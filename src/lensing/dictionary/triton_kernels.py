"""The two sparse products as Triton kernels, for CUDA; imported only where a tensor lies there and triton is installed.

A program owns one row (or one latent) of the output and adds its places in their order: there are no atomic additions,
so the same input gives the same bits. Sums run in float32 (float64 where values are), whatever the weights are held in.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

WIDEST = 1024  # coordinates that a program holds at once


@triton.jit
def _bag(value, weight, index, indptr, out, d, WIDTH: tl.constexpr, SUM: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = at < d
    total = tl.zeros((WIDTH,), dtype=SUM)
    place, last = tl.load(indptr + row), tl.load(indptr + row + 1)
    while place < last:
        latent = tl.load(index + place).to(tl.int64)
        part = tl.load(weight + latent * d + at, mask=inside, other=0.0)
        total += tl.load(value + place).to(SUM) * part.to(SUM)
        place += 1
    tl.store(out + row * d + at, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _dots(x, weight, index, indptr, out, d, WIDTH: tl.constexpr, SUM: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place, last = tl.load(indptr + row), tl.load(indptr + row + 1)
    while place < last:
        latent = tl.load(index + place).to(tl.int64)
        total = tl.zeros((WIDTH,), dtype=SUM)
        start = 0
        while start < d:
            at = start + tl.arange(0, WIDTH)
            inside = at < d
            a = tl.load(x + row * d + at, mask=inside, other=0.0)
            b = tl.load(weight + latent * d + at, mask=inside, other=0.0)
            total += a.to(SUM) * b.to(SUM)
            start += WIDTH
        tl.store(out + place, tl.sum(total, 0).to(out.dtype.element_ty))
        place += 1


def bag(
    value: Float[Tensor, " nnz"],
    weight: Float[Tensor, "n d"],
    index: Int[Tensor, " nnz"],
    indptr: Int[Tensor, " rows1"],
) -> Float[Tensor, "rows d"]:
    """The sum over a row's places of value times weight[index], for all rows: torch's embedding_bag with weights."""
    rows, d = len(indptr) - 1, weight.shape[1]
    out = torch.empty(rows, d, dtype=value.dtype, device=value.device)
    width = _width(d)
    if rows and d:
        _bag[(rows, triton.cdiv(d, width))](
            value.contiguous(), weight.contiguous(), index.contiguous(), indptr.contiguous(), out, d,
            WIDTH=width, SUM=_sum_type(value),
        )  # fmt: skip
    return out


def dots(
    x: Float[Tensor, "rows d"], weight: Float[Tensor, "n d"], index: Int[Tensor, " nnz"], indptr: Int[Tensor, " rows1"]
) -> Float[Tensor, " nnz"]:
    """x[row] . weight[index] at every place: torch's sampled_addmm of a sparse matrix in compressed rows."""
    rows, d = x.shape
    out = torch.empty(len(index), dtype=x.dtype, device=x.device)
    if rows and len(index):
        _dots[(rows,)](
            x.contiguous(), weight.contiguous(), index.contiguous(), indptr.contiguous(), out, d,
            WIDTH=_width(d), SUM=_sum_type(x),
        )  # fmt: skip
    return out


def _width(d: int) -> int:
    return min(triton.next_power_of_2(max(d, 1)), WIDEST)


def _sum_type(tensor: Tensor) -> tl.dtype:
    return tl.float64 if tensor.dtype == torch.float64 else tl.float32
