"""Which latents are active: the only dense work of a step, done in chunks that stay in a core's cache.

With `quick`, products are in bfloat16 on a CPU: candidates are taken with a margin, their pre-activations are computed
again in float32, and the choice is made on those. Positive floats are in the order of their bits, so what is compared
and partitioned are integers. That is the CPU's way with float32; all else stays in torch, on its device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.kernels import Pattern, pre_at

CHUNK_BYTES = 2 << 20  # a chunk of pre-activations that stays in a core's second-level cache
GPU_BYTES = 256 << 20  # the same elsewhere, where small products keep nobody busy
FEWEST = 256  # rows of a chunk: below, the product spends its time on packing the weights
GROUP = 16  # latents a group: the k-th largest group maximum bounds the k-th largest latent from below
ULPS = 2  # bfloat16 steps below the bound at which a candidate is still taken
SLACK = 1 - 2**-6  # the same as a factor

BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}

Choose = Callable[[Tensor, int], np.ndarray]  # (pre-activations of some rows, the first one's number) -> mask


def top_pattern(
    x: Float[Tensor, "rows d_in"], weight: Float[Tensor, "d_sae d_in"], bias: Float[Tensor, " d_sae"], k: int,
    *, quick: bool = False,
) -> Pattern:  # fmt: skip
    """The `k` largest positive pre-activations x weight.T + bias of every row; of equal ones the lower latents."""
    if not _on_cpu(x):
        return _top_dense(x, weight, bias, k)
    ulps = ULPS if quick else 0

    def choose(pre: Tensor, first: int) -> np.ndarray:
        bits = _bits(pre)
        return bits >= np.maximum(_bound(pre, bits, k) - bits.dtype.type(ulps), bits.dtype.type(1))[:, None]

    found, value = _candidates(x, weight, bias, choose, quick)
    return _kept(found, value, _k_largest(found, value, k), quick)


def pattern_above(
    x: Float[Tensor, "rows d_in"], weight: Float[Tensor, "d_sae d_in"], bias: Float[Tensor, " d_sae"],
    threshold: float | Float[Tensor, " d_sae"], *, quick: bool = False,
) -> Pattern:  # fmt: skip
    """Every pre-activation that is greater than `threshold`, one for all latents or one for each."""
    if not _on_cpu(x):
        return _above(x, weight, bias, torch.as_tensor(threshold, dtype=x.dtype, device=x.device).detach())[0]
    edge = torch.as_tensor(threshold, dtype=x.dtype, device=x.device).detach()
    low = torch.where(edge > 0, edge * SLACK, edge / SLACK).bfloat16() if quick else edge
    found, value = _candidates(x, weight, bias, _greater(low), quick)
    if not quick:
        return found
    above = edge if edge.dim() == 0 else edge[found.index.long()]
    return _kept(found, value, (torch.from_numpy(value) > above).numpy(), quick)


def batch_top_pattern(
    x: Float[Tensor, "rows d_in"], weight: Float[Tensor, "d_sae d_in"], bias: Float[Tensor, " d_sae"], k: int,
    guess: float | None = None, *, quick: bool = False, edge: Any = None,
) -> tuple[Pattern, float]:  # fmt: skip
    """The k times rows largest positive pre-activations of the whole batch, and the smallest one kept (0: none).

    `guess` is a value that is probably a little below that smallest one (last batch's, say): it only saves time. `edge`
    (lensing.dictionary.spread.Edge) decides where the batch is dealt out over several processes.
    """
    wanted = k * (len(x) if edge is None else edge.rows(len(x)))
    floor = max(guess, 0.0) if guess is not None else _guess(x, weight, bias, k)
    if edge is not None:
        floor = edge.lowest(floor)
    elif not _on_cpu(x):
        return _batch_top_dense(x, weight, bias, wanted, floor)
    while True:
        low = torch.tensor(floor * SLACK, dtype=torch.bfloat16) if quick else torch.tensor(floor, dtype=x.dtype)
        found, value = _candidates(x, weight, bias, _greater(low), quick)
        if quick:
            found = _kept(found, value, value > floor, quick)
            value = found.pre.numpy() if found.pre is not None else value
        there = len(value) if edge is None else edge.total(len(value))
        if there >= wanted or floor <= 0.0:
            break
        floor = _lower(floor, there, wanted)
    if edge is not None:
        keep, lowest = edge.keep(found, value, wanted)
        return _kept(found, value if quick else None, keep, quick), lowest
    keep = np.ones(len(value), dtype=bool)
    if len(value) > wanted:
        least = np.partition(value, len(value) - wanted)[len(value) - wanted]
        keep = value >= least
        spare = int(keep.sum()) - wanted
        if spare:  # ties at the edge: the last of them go
            keep[np.flatnonzero(value == least)[-spare:]] = False
    value = value[keep]
    return _kept(found, None, keep, quick), float(value.min()) if len(value) else 0.0


def _chunks(x: Tensor, weight: Tensor, bias: Tensor, quick: bool) -> Iterator[tuple[int, Tensor]]:
    dtype = torch.bfloat16 if quick else x.dtype
    x, weight, bias = (t.detach().to(dtype) for t in (x, weight, bias))
    chunk = CHUNK_BYTES if x.device.type == "cpu" else GPU_BYTES
    step = max(chunk // (x.element_size() * len(weight)), FEWEST)
    buffer = x.new_empty(min(step, len(x)), len(weight))
    for i in range(0, len(x), step):
        part = x[i : i + step]
        yield i, torch.addmm(bias, part, weight.t(), out=buffer[: len(part)])


def _candidates(x: Tensor, weight: Tensor, bias: Tensor, choose: Choose, quick: bool) -> tuple[Pattern, np.ndarray]:
    # the places that `choose` takes, and their pre-activations in the precision of x
    columns = len(weight)
    counts, indices, values = [], [], []
    for first, pre in _chunks(x, weight, bias, quick):
        mask = choose(pre, first)
        found = np.flatnonzero(mask)
        counts.append(np.bincount(found // columns, minlength=len(pre)))
        indices.append((found % columns).astype(np.int32))
        if not quick:
            values.append(pre.numpy().reshape(-1)[found])
    pattern = _pattern(np.concatenate(counts), np.concatenate(indices), columns)
    if quick:
        return pattern, pre_at(x, weight, bias, pattern).numpy()
    return pattern, np.concatenate(values)


def _kept(pattern: Pattern, value: np.ndarray | None, keep: np.ndarray, quick: bool) -> Pattern:
    # the places that are kept; what is known of their pre-activations goes with them
    if value is None:
        value = pattern.pre.numpy() if pattern.pre is not None else None
    known = value if quick else None
    if keep.all():
        pattern.pre = None if known is None else torch.from_numpy(known)
        return pattern
    count = np.bincount(pattern.row_of.numpy()[keep], minlength=pattern.rows)
    out = _pattern(count, pattern.index.numpy()[keep], pattern.columns)
    out.pre = None if known is None else torch.from_numpy(known[keep])
    return out


def _greater(low: Tensor) -> Choose:
    # whether a pre-activation is above one number, or its latent's; in integers where all of these are positive
    if low.dtype in BITS and bool((low >= 0).all()):
        edge = low.view(BITS[low.dtype]).numpy()
        return lambda pre, _: _bits(pre) > edge
    return lambda pre, _: (pre > low).numpy()


def _bits(pre: Tensor) -> np.ndarray:
    # as integers of the same width: those above zero are in the order of the floats, zero is 0 and all others negative
    return pre.view(BITS[pre.dtype]).numpy()


def _bound(pre: Tensor, bits: np.ndarray, k: int) -> np.ndarray:
    # for every row a lower bound of its k-th largest latent, as bits: k groups hold one as large as the k-th maximum
    rows, columns = bits.shape
    groups = columns // GROUP
    if groups >= 2 * k:
        whole = pre.view(BITS[pre.dtype])[:, : groups * GROUP]
        top = whole.reshape(rows, GROUP, groups).amax(1).numpy()
        return np.partition(top, groups - k, axis=1)[:, groups - k]
    return np.partition(bits, columns - k, axis=1)[:, columns - k]


def _k_largest(pattern: Pattern, values: np.ndarray, k: int) -> np.ndarray:
    # which candidates are positive and among their row's k largest: pad the rows to a rectangle, find the k-th of each
    start = pattern.indptr.numpy()
    row = pattern.row_of.numpy()
    widest = int(np.diff(start).max(initial=0))
    keep = values > 0
    if widest <= k:
        return keep
    wide = np.full((pattern.rows, widest), -np.inf, dtype=values.dtype)
    wide[row, np.arange(len(row)) - start[row]] = values
    least = np.partition(wide, widest - k, axis=1)[:, widest - k]
    keep &= values >= least[row]
    kept = np.bincount(row[keep], minlength=pattern.rows)
    for r in np.flatnonzero(kept > k):  # ties at the edge: the higher latents go
        here = np.arange(start[r], start[r + 1])
        equal = here[values[here] == least[r]]
        keep[equal[len(equal) - (kept[r] - k) :]] = False
    return keep


def _top_dense(x: Tensor, weight: Tensor, bias: Tensor, k: int) -> Pattern:
    counts, indices = [], []
    for _, pre in _chunks(x, weight, bias, False):
        values, index = pre.topk(k, dim=1, sorted=False)
        index, order = index.sort(1)
        mask = values.gather(1, order) > 0
        counts.append(mask.sum(1))
        indices.append(index[mask])
    return _on_device(torch.cat(counts), torch.cat(indices).int(), len(weight))


def _above(x: Tensor, weight: Tensor, bias: Tensor, edge: Tensor | float) -> tuple[Pattern, Tensor]:
    counts, indices, values = [], [], []
    for _, pre in _chunks(x, weight, bias, False):
        mask = pre > edge
        counts.append(mask.sum(1))
        indices.append(mask.nonzero()[:, 1].int())
        values.append(pre[mask])
    return _on_device(torch.cat(counts), torch.cat(indices), len(weight)), torch.cat(values)


def _batch_top_dense(x: Tensor, weight: Tensor, bias: Tensor, wanted: int, floor: float) -> tuple[Pattern, float]:
    while True:
        found, value = _above(x, weight, bias, floor)
        if len(value) >= wanted or floor <= 0.0:
            break
        floor = _lower(floor, len(value), wanted)
    if len(value) > wanted:
        least = value.kthvalue(len(value) - wanted + 1).values
        keep = value >= least
        if spare := int(keep.sum()) - wanted:  # ties at the edge: the last of them go
            keep[(value == least).nonzero()[-spare:, 0]] = False
        count = torch.bincount(found.row_of[keep], minlength=found.rows)
        found, value = _on_device(count, found.index[keep], len(weight)), value[keep]
    return found, float(value.min()) if len(value) else 0.0


def _lower(floor: float, found: int, wanted: int) -> float:
    # a guess that was too high: a little lower where it was nearly right, else from the start
    return max(0.9 * floor - 1e-3, 0.0) if found >= 0.8 * wanted else 0.0


def _on_device(count: Tensor, index: Tensor, columns: int) -> Pattern:
    indptr = torch.zeros(len(count) + 1, dtype=torch.int64, device=count.device)
    torch.cumsum(count, 0, out=indptr[1:])
    return Pattern(indptr, index, columns)


def _on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32


def _guess(x: Tensor, weight: Tensor, bias: Tensor, k: int) -> float:
    # the quantile of a few rows, lowered by a tenth
    sample = x[:: max(len(x) // 64, 1)][:64]
    pre = torch.addmm(bias.detach(), sample.detach(), weight.detach().t()).flatten()
    n = min(k * len(sample), len(pre))
    return max(0.9 * float(pre.kthvalue(len(pre) - n + 1).values), 0.0)


def _pattern(count: np.ndarray, index: np.ndarray, columns: int) -> Pattern:
    indptr = torch.from_numpy(np.concatenate([[0], np.cumsum(count)]).astype(np.int64))
    return Pattern(indptr, torch.from_numpy(index.astype(np.int32, copy=False)), columns)
