"""Sparse products with exact gradients: the cost of a step follows the active latents, not the width.

A pattern says which latents are active in which row. Two products suffice, each the other's gradient:
`sparse_dot` (row . latent direction, at the pattern's places: the encoder) and `sparse_mix` (sum of value times
latent direction: the decoder). Their gradients for the weights run over the transposed pattern, so that no dense
[rows, d_sae] tensor is ever made.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

CHUNK_BYTES = 2 << 20  # a chunk of pre-activations that stays in a core's second-level cache
GROUP = 16  # latents a group: the k-th largest group maximum bounds the k-th largest latent from below


class Pattern:
    """Which of `columns` latents are active in each row: row r holds index[indptr[r] : indptr[r + 1]], ascending."""

    def __init__(self, indptr: Int[Tensor, " rows1"], index: Int[Tensor, " nnz"], columns: int) -> None:
        self.indptr, self.index, self.columns = indptr, index, columns

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

    @functools.cached_property
    def transposed(self) -> tuple[Int[Tensor, " columns1"], Int[Tensor, " nnz"]]:
        """The same places by latent: (pointer per latent, order of the places), rows ascending within a latent."""
        if self.index.device.type == "cpu" and self.columns <= 1 << 15:
            # numpy sorts 16-bit integers by radix, about ten times faster than a comparison sort
            order = torch.from_numpy(np.argsort(self.index.numpy().astype(np.int16), kind="stable"))
        else:
            order = torch.argsort(self.index, stable=True)
        pointer = torch.zeros(self.columns + 1, dtype=torch.int64, device=self.index.device)
        torch.cumsum(torch.bincount(self.index, minlength=self.columns), 0, out=pointer[1:])
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
        return _dots(x, weight, pattern) + bias[pattern.index]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        p, needs = ctx.pattern, ctx.needs_input_grad
        for_x = _bag(grad, weight, p.index, p.indptr) if needs[0] else None
        for_weight = _bag_by_latent(grad, x, p) if needs[1] else None
        for_bias = torch.bincount(p.index, weights=grad, minlength=p.columns).to(grad.dtype) if needs[2] else None
        return for_x, for_weight, for_bias, None


class _Mix(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, pattern: Pattern) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(value, weight)
        return _bag(value, weight, pattern.index, pattern.indptr)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        value, weight = ctx.saved_tensors
        p, needs = ctx.pattern, ctx.needs_input_grad
        grad = grad.contiguous()
        for_value = _dots(grad, weight, p) if needs[0] else None
        for_weight = _bag_by_latent(value, grad, p) if needs[1] else None
        return for_value, for_weight, None


def _bag(value: Tensor, weight: Tensor, index: Tensor, indptr: Tensor) -> Tensor:
    return F.embedding_bag(
        index, weight.detach(), indptr.to(index.dtype), per_sample_weights=value.detach(), mode="sum",
        include_last_offset=True,
    )  # fmt: skip


def _bag_by_latent(value: Tensor, rows: Tensor, pattern: Pattern) -> Tensor:
    pointer, order = pattern.transposed
    return _bag(value[order], rows, pattern.row_of[order], pointer)


def _dots(x: Tensor, weight: Tensor, pattern: Pattern) -> Tensor:
    x, weight = x.detach(), weight.detach()
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


# --- which latents are active ---


def top_pattern(x: Tensor, weight: Tensor, bias: Tensor, k: int) -> Pattern:
    """The `k` largest positive pre-activations x weight.T + bias of every row; of equal ones the lower latents."""
    columns = len(weight)
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return _top_dense(x, weight, bias, k)
    counts: list[np.ndarray] = []
    indices: list[np.ndarray] = []
    for pre in _chunks(x, weight, bias):
        found, values = _candidates(pre, k)
        row, column = found // columns, found % columns
        count = np.bincount(row, minlength=len(pre))
        if len(found) and count.max() > k:
            keep = _k_largest(row, values, count, k)
            row, column = row[keep], column[keep]
            count = np.bincount(row, minlength=len(pre))
        counts.append(count)
        indices.append(column)
    return _pattern(np.concatenate(counts), np.concatenate(indices), columns)


def pattern_above(x: Tensor, weight: Tensor, bias: Tensor, threshold: float) -> Pattern:
    """Every positive pre-activation that is greater than `threshold`."""
    columns = len(weight)
    counts, indices = [], []
    for pre in _chunks(x, weight, bias):
        mask = pre > max(threshold, 0.0)
        counts.append(mask.sum(1).cpu().numpy())
        indices.append(np.flatnonzero(mask.cpu().numpy()) % columns)
    return _pattern(np.concatenate(counts), np.concatenate(indices), columns, x.device)


def batch_top_pattern(
    x: Tensor, weight: Tensor, bias: Tensor, k: int, guess: float | None = None
) -> tuple[Pattern, float]:
    """The k times rows largest positive pre-activations of the whole batch, and the smallest one kept.

    `guess` is a value that is probably a little below that smallest one (last batch's, say): it only saves time.
    """
    wanted, columns = k * len(x), len(weight)
    floor = max(guess, 0.0) if guess is not None else _guess(x, weight, bias, k)
    while True:
        counts, indices, values = [], [], []
        for pre in _chunks(x, weight, bias):
            pre = pre.cpu().numpy()
            mask = pre > floor
            found = np.flatnonzero(mask)
            counts.append(np.bincount(found // columns, minlength=len(pre)))
            indices.append(found % columns)
            values.append(pre.reshape(-1)[found])
        count, index, value = np.concatenate(counts), np.concatenate(indices), np.concatenate(values)
        if len(value) >= wanted or floor <= 0.0:
            break
        floor = max(0.9 * floor - 1e-3, 0.0) if len(value) >= 0.8 * wanted else 0.0
    if len(value) > wanted:
        least = np.partition(value, len(value) - wanted)[len(value) - wanted]
        keep = value >= least
        spare = int(keep.sum()) - wanted
        if spare:  # ties at the edge: the last of them go
            keep[np.flatnonzero(value == least)[-spare:]] = False
        row = np.repeat(np.arange(len(x)), count)[keep]
        count, index, value = np.bincount(row, minlength=len(x)), index[keep], value[keep]
    return _pattern(count, index, columns, x.device), float(value.min()) if len(value) else 0.0


def _chunks(x: Tensor, weight: Tensor, bias: Tensor) -> Iterator[Tensor]:
    step = max(CHUNK_BYTES // (4 * len(weight)), 64)
    x, weight, bias = x.detach(), weight.detach(), bias.detach()
    buffer = x.new_empty(min(step, len(x)), len(weight))
    for i in range(0, len(x), step):
        part = x[i : i + step]
        yield torch.addmm(bias, part, weight.t(), out=buffer[: len(part)])


def _candidates(pre: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    # flat places of at least the k largest of every row (few more), and their values
    rows, columns = pre.shape
    groups = columns // GROUP
    if groups >= 2 * k:
        # k groups hold a latent at least as large as the k-th largest group maximum
        top = pre[:, : groups * GROUP].reshape(rows, GROUP, groups).amax(1)
        bound = np.partition(top.numpy(), groups - k, axis=1)[:, groups - k]
    else:
        bound = pre.topk(k, dim=1, sorted=True).values[:, -1].numpy()
    values = pre.numpy()
    mask = values >= np.maximum(bound, np.finfo(np.float32).tiny)[:, None]
    found = np.flatnonzero(mask)
    return found, values.reshape(-1)[found]


def _k_largest(row: np.ndarray, values: np.ndarray, count: np.ndarray, k: int) -> np.ndarray:
    # which candidates are among their row's k largest: pad the rows to a rectangle, find the k-th of each
    start = np.concatenate([[0], np.cumsum(count)])
    place = np.arange(len(row)) - start[row]
    wide = np.full((len(count), int(count.max())), -np.inf, dtype=values.dtype)
    wide[row, place] = values
    if wide.shape[1] <= k:
        return np.ones(len(row), dtype=bool)
    least = np.partition(wide, wide.shape[1] - k, axis=1)[:, wide.shape[1] - k]
    keep = values >= least[row]
    kept = np.bincount(row[keep], minlength=len(count))
    for r in np.flatnonzero(kept > k):  # ties at the edge: the higher latents go
        here = np.arange(start[r], start[r + 1])
        equal = here[values[here] == least[r]]
        keep[equal[len(equal) - (kept[r] - k) :]] = False
    return keep


def _top_dense(x: Tensor, weight: Tensor, bias: Tensor, k: int) -> Pattern:
    counts, indices = [], []
    for pre in _chunks(x, weight, bias):
        values, index = pre.topk(k, dim=1, sorted=False)
        index, order = index.sort(1)
        mask: Bool[Tensor, "rows k"] = values.gather(1, order) > 0
        counts.append(mask.sum(1))
        indices.append(index[mask])
    count = torch.cat(counts)
    indptr = torch.zeros(len(count) + 1, dtype=torch.int64, device=x.device)
    torch.cumsum(count, 0, out=indptr[1:])
    return Pattern(indptr, torch.cat(indices).int(), len(weight))


def _guess(x: Tensor, weight: Tensor, bias: Tensor, k: int) -> float:
    # the quantile of a few rows, lowered by a tenth
    sample = x[:: max(len(x) // 64, 1)][:64]
    pre = torch.addmm(bias.detach(), sample.detach(), weight.detach().t()).flatten()
    n = min(k * len(sample), len(pre))
    return max(0.9 * float(pre.kthvalue(len(pre) - n + 1).values), 0.0)


def _pattern(count: np.ndarray, index: np.ndarray, columns: int, device: torch.device | None = None) -> Pattern:
    indptr = torch.from_numpy(np.concatenate([[0], np.cumsum(count)]).astype(np.int64))
    places = torch.from_numpy(index.astype(np.int32))
    return Pattern(indptr.to(device or "cpu"), places.to(device or "cpu"), columns)
