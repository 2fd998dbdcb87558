"""The largest latents of several layers together: BatchTopK across a cross-layer transcoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lensing.dictionary.kernels import Pattern, pre_at
from lensing.dictionary.select import batch_top_pattern, pattern_above


def joint_top_patterns(
    xs: Sequence[Float[Tensor, "rows _"]],
    weights: Sequence[Float[Tensor, "d_sae _"]],
    biases: Sequence[Float[Tensor, " d_sae"]],
    k: int,
    guess: float | None = None,
    *,
    quick: bool = False,
) -> tuple[list[Pattern], float]:
    """The k times rows times layers largest positive pre-activations of a batch, and the smallest one kept (0: none).

    `guess` is a value that is probably a little below that smallest one: it only saves time. Of equal ones at the edge
    those of lower layers, rows and latents stay.
    """
    layers = list(zip(xs, weights, biases, strict=True))
    wanted = k * sum(len(x) for x in xs)
    if guess is None:  # each layer's own edge: the lowest of them leaves enough in every layer
        guess = min(batch_top_pattern(x, w, b, k, quick=quick)[1] for x, w, b in layers) * (1 - 1e-6)
    floor = max(guess, 0.0)
    while True:
        found = [pattern_above(x, w, b, floor, quick=quick) for x, w, b in layers]
        if sum(len(p.index) for p in found) >= wanted or floor <= 0.0:
            break
        floor = max(0.9 * floor - 1e-3, 0.0)
    for pattern, (x, w, b) in zip(found, layers, strict=True):
        if pattern.pre is None:
            pattern.pre = pre_at(x.detach(), w, b, pattern)
    value = torch.cat([p.pre for p in found if p.pre is not None])
    keep = torch.ones(len(value), dtype=torch.bool, device=value.device)
    if len(value) > wanted:
        edge = value.kthvalue(len(value) - wanted + 1).values
        keep = value >= edge
        spare = int(keep.sum()) - wanted
        if spare:
            keep[(value == edge).nonzero()[-spare:, 0]] = False
    least = float(value[keep].min()) if bool(keep.any()) else 0.0
    parts = keep.split([len(p.index) for p in found])
    return [_kept(p, part) for p, part in zip(found, parts, strict=True)], least


def _kept(pattern: Pattern, keep: Bool[Tensor, " nnz"]) -> Pattern:
    if bool(keep.all()) or pattern.pre is None:
        return pattern
    indptr = torch.zeros_like(pattern.indptr)
    torch.cumsum(torch.bincount(pattern.row_of[keep], minlength=pattern.rows), 0, out=indptr[1:])
    return Pattern(indptr, pattern.index[keep], pattern.columns, pattern.pre[keep])
