"""Nearest latents, exactly and over all of them: by what fires together, and by direction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lensing.index.chunks import Chunks

Array = np.ndarray
AT_ONCE = 1 << 22  # pairs of active latents that are counted at once
HELD = 3 << 24  # bytes of sums of pairs held at once
NUMBERS = 1 << 20  # of a table of measures that are made at once


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Of some latents the `k` nearest others, nearest first: [n, k]; index -1 where there are no more."""

    index: Array
    value: Array


@dataclass(frozen=True, eq=False)
class Together:
    """How latents `first` to `last` fire with all others: rows where both are active, sums of products, [n, d_sae]."""

    first: int
    last: int
    both: Array
    product: Array


def together(chunks: Chunks) -> Iterator[Together]:
    """Yield for one range of latents after the other how they fire with all latents.

    Only pairs that fire together cost anything: sum over rows of (active latents)^2 in all.
    """
    d = len(chunks.counts)
    step = max(HELD // (d * 16), 1)
    for first in range(0, d, step):
        last = min(first + step, d)
        both, product = np.zeros((last - first, d), dtype=np.int64), np.zeros((last - first, d))
        for i in range(len(chunks.paths)):
            _count(chunks, i, first, both, product)
        yield Together(first, last, both, product)


def _count(chunks: Chunks, i: int, first: int, both: Array, product: Array) -> None:
    """Add one chunk's pairs."""
    ptr, index, column, row = (chunks.read(i, name) for name in ("ptr", "index", "column", "row"))
    value = chunks.read(i, "value")
    by_row = value[np.argsort(row, kind="stable")]  # latents stand in order, so within a row they do too, as in `index`
    n, d = both.shape
    start, stop = int(column[first]), int(column[first + n])
    rows, own = row[start:stop], value[start:stop]
    latent = np.repeat(np.arange(n), np.diff(column[first : first + n + 1]))
    lengths = np.diff(ptr)[rows]
    ends = np.cumsum(lengths)
    at = 0
    while at < len(rows):
        done = int(np.searchsorted(ends, (ends[at - 1] if at else 0) + AT_ONCE, side="right"))
        some = slice(at, max(done, at + 1))
        at = some.stop
        spans = lengths[some]
        offset = np.cumsum(spans) - spans
        place = np.arange(int(spans.sum())) + np.repeat(ptr[rows[some]] - offset, spans)
        low, high = int(latent[some][0]), int(latent[some][-1]) + 1
        key = np.repeat((latent[some] - low) * d, spans) + index[place]
        weight = np.repeat(own[some].astype(np.float64), spans) * by_row[place]
        size = (high - low) * d
        both[low:high] += np.bincount(key, minlength=size).reshape(-1, d)
        product[low:high] += np.bincount(key, weights=weight, minlength=size).reshape(-1, d)


def by_firing(part: Together, rows: int, count: Array, total: Array, square: Array, k: int) -> dict[str, Neighbours]:
    """Return neighbours by correlation, Jaccard index and conditional firing of latents `part.first` to `part.last`.

    Over all `rows`, silent ones as 0: the correlation of activations; rows where both are active over rows where one
    is; the share of this latent's active rows in which the other is active. `count`, `total` and `square` [d_sae] are
    each latent's active rows, and sums of its activations and their squares. Silent latents have and are no neighbours.
    """
    deviation = np.sqrt(np.maximum(square * rows - total**2, 0.0))
    alive = count > 0
    step = max(NUMBERS // len(count), 1)
    found: dict[str, list[Neighbours]] = {}
    for first in range(part.first, part.last, step):
        own = slice(first, min(first + step, part.last))
        here = slice(own.start - part.first, own.stop - part.first)
        both = part.both[here].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            correlation = part.product[here] * rows - np.outer(total[own], total)
            correlation /= np.outer(deviation[own], deviation)
            # latents that never fire together are no neighbours of this kind
            jaccard = np.where(both > 0, both / (count[own, None] + count[None] - both), -np.inf)
            conditional = np.where(both > 0, both / count[own, None], -np.inf)
        measures = {"correlation": correlation, "jaccard": jaccard, "conditional": conditional}
        for name, value in measures.items():
            found.setdefault(name, []).append(_nearest(value, first, alive, k))
    return {name: _joined(parts) for name, parts in found.items()}


def _joined(parts: list[Neighbours]) -> Neighbours:
    return Neighbours(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("index", "value")))


def by_direction(directions: Float[Tensor, "d_sae d"], alive: Array, k: int) -> Neighbours:
    """Return neighbours by the cosine of directions, in float32, over all latents that are not silent."""
    unit = torch.nn.functional.normalize(directions.detach().float(), dim=1)
    found = []
    rows = max(NUMBERS // len(unit), 1)
    for first in range(0, len(unit), rows):
        cosine = (unit[first : first + rows] @ unit.T).cpu().numpy().astype(np.float64)
        found.append(_nearest(cosine, first, alive, k))
    return _joined(found)


def _nearest(value: Array, first: int, alive: Array, k: int) -> Neighbours:
    """The k largest of each row, ties to the smaller index; neither itself nor silent ones."""
    value = np.where(np.isnan(value), -np.inf, value)
    n, d = value.shape
    value[:, ~alive] = -np.inf
    value[np.arange(n), np.arange(first, first + n)] = -np.inf
    value[~alive[first : first + n]] = -np.inf
    k = min(k, d)
    bar = -np.partition(-value, k - 1, axis=1)[:, k - 1 : k]
    above, equal = value > bar, value == bar
    equal &= np.cumsum(equal, axis=1) <= k - above.sum(1, keepdims=True)
    some = np.nonzero(above | equal)[1].reshape(n, k)
    order = np.argsort(-np.take_along_axis(value, some, 1), axis=1, kind="stable")
    index = np.take_along_axis(some, order, 1)
    best = np.take_along_axis(value, index, 1)
    return Neighbours(
        np.where(np.isfinite(best), index, -1).astype(np.int32), np.where(np.isfinite(best), best, np.nan)
    )
