"""Superposition: how many concepts a unit mixes, and how directions share the dimensions of their space."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.codes import Codes
from lensing.errors import UsageError
from lensing.measure.cover import LIFT, SHARE, TOP, Labels

DIRECTIONS = 100
MIN_FIRES = 20  # a latent with a handful of rows is covered by anything


@dataclass(frozen=True)
class Covers:
    """How many concepts each unit of one kind needs (None: all that qualify together cover too little), and its rows.

    The number is `measure.cover.concepts_needed` of the unit's top rows.
    """

    kind: str
    needed: tuple[int | None, ...]
    rows: tuple[int, ...]

    def within(self, n: int) -> float:
        """Share of units that `n` concepts explain; NaN without units."""
        return float(np.mean([c is not None and c <= n for c in self.needed])) if self.needed else float("nan")

    @property
    def median(self) -> float:
        """Median number of concepts, infinite where half of the units are not covered."""
        return float(np.median([np.inf if c is None else c for c in self.needed])) if self.needed else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Return plain values; an infinite median is None."""
        median = self.median if np.isfinite(self.median) else None
        return dataclasses.asdict(self) | {"median": median, "within": {n: self.within(n) for n in (1, 2, 5, 10)}}


@dataclass(frozen=True)
class Geometry:
    """How `n` directions of one kind share `d` dimensions, all taken at length 1.

    Medians over directions of `feature_dimensionality` and `interference`, and the sum of the former: the number of
    dimensions that are in use, were they shared evenly.
    """

    kind: str
    n: int
    d: int
    dimensionality: float
    interference: float
    total: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


def geometry(kind: str, directions: Float[Tensor, "n d"]) -> Geometry:
    """Summarise how directions share their space; lengths, which differ by kind, are left out."""
    n, d = directions.shape
    if not n:
        return Geometry(kind, 0, d, float("nan"), float("nan"), 0.0)
    unit = torch.nn.functional.normalize(directions.double(), dim=1)
    share, beside = feature_dimensionality(unit), interference(unit)
    return Geometry(kind, n, d, float(share.quantile(0.5)), float(beside.quantile(0.5)), float(share.sum()))


def covers(
    kind: str,
    units: Iterable[tuple[np.ndarray | None, np.ndarray]],
    labels: Labels,
    *,
    top: float = TOP,
    share: float = SHARE,
    lift: float = LIFT,
) -> Covers:
    """Count, for many units over the same labelled rows, the concepts that cover `share` of each unit's `top` rows.

    A unit is (rows, values): its value at those rows and 0 elsewhere; rows None means all. The same number as
    `concepts_needed(top_rows(values, top), labels, share=share, lift=lift).count`, with what the units share made once.
    """
    n, frequency, concept = _table(labels)
    needed, sizes = [], []
    for rows, values in units:
        chosen = _strongest(values, min(max(round(top * n), 1), int((values > 0).sum())))
        chosen = chosen if rows is None else rows[chosen]
        needed.append(_greedy(concept[chosen], frequency, share, lift))
        sizes.append(len(chosen))
    return Covers(kind, tuple(needed), tuple(sizes))


def compare_covers(
    neurons: Float[Tensor, "rows d_mlp"],
    h: Float[Tensor, "rows d_model"],
    codes: Codes,
    labels: Labels,
    *,
    directions: int = DIRECTIONS,
    seed: int = 0,
    top: float = TOP,
    share: float = SHARE,
) -> tuple[Covers, Covers, Covers]:
    """Return the concepts needed by all neurons of a layer, by random directions of the stream, by all alive latents.

    All by their positive side; h is centred, so that a direction's sides are alike. A latent is alive if it fires on 20
    rows.

    Raises: UsageError: rows that differ in number.
    """
    if len({len(neurons), len(h), codes.rows}) > 1:
        raise UsageError(f"Neurons of {len(neurons)}, vectors of {len(h)} and codes of {codes.rows} rows. Give alike.")
    draw = torch.Generator().manual_seed(seed)
    random = torch.randn(h.shape[1], directions, generator=draw)
    centred = h.float() - h.float().mean(0)
    alive = torch.bincount(codes.index[codes.value > 0], minlength=codes.d_sae) >= MIN_FIRES

    def latents() -> Iterable[tuple[np.ndarray, np.ndarray]]:
        for j in alive.nonzero()[:, 0].tolist():
            rows, value = codes.column(j)
            yield rows.cpu().numpy(), value.float().cpu().numpy()

    return (
        covers("neurons", ((None, c.float().numpy()) for c in neurons.T), labels, top=top, share=share),
        covers("random directions", ((None, (centred @ r).numpy()) for r in random.T), labels, top=top, share=share),
        covers("latents", latents(), labels, top=top, share=share),
    )


def interference(directions: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Sum over j != i of (W_i / |W_i| . W_j)^2: what all other directions put on the line of each one.

    As in Elhage et al. 2022, Toy Models of Superposition: 0 where W_i is orthogonal to all others; of unit directions,
    1 where the others together can reach as far as W_i itself. A direction of length 0 has 0.
    """
    norm, total = _projected(directions)
    return (total - norm).clamp(min=0)


def feature_dimensionality(directions: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """D_i = |W_i|^2 / sum over all j of (W_i / |W_i| . W_j)^2: the share of a dimension that each direction has.

    Elhage et al. 2022, Toy Models of Superposition. 1 for a direction that is orthogonal to all others, 1/2 for an
    antipodal pair, 2/5 for a pentagon, 3/4 for a tetrahedron, 0 for a direction of length 0. The sum is at most d.
    """
    norm, total = _projected(directions)
    return torch.where(norm > 0, norm / total.clamp(min=1e-300), 0.0)


def concept_directions(
    h: Float[Tensor, "rows d"], positives: Sequence[np.ndarray], undetermined: Sequence[np.ndarray] | None = None
) -> Float[Tensor, "concepts d"]:
    """Return for each concept the mean of its positive rows less the mean of all rows where it is off, float64.

    Both lists hold row numbers; undetermined rows count on neither side. The mean of h cancels.

    Raises: UsageError: a concept without positive rows or without rows where it is off.
    """
    shift = h.double().mean(0)
    out = torch.zeros(len(positives), h.shape[1], dtype=torch.float64)
    for i, on in enumerate(positives):
        neither = np.zeros(0, dtype=np.int64) if undetermined is None else undetermined[i]
        off = len(h) - len(on) - len(neither)
        if not len(on) or off < 1:
            raise UsageError(f"Concept {i} is on in {len(on)} rows and off in {off}. Leave it out.")
        sums = [(h[torch.as_tensor(rows)].double() - shift).sum(0) for rows in (on, neither)]
        # all rows together sum to zero about their mean
        out[i] = sums[0] / len(on) + (sums[0] + sums[1]) / off
    return out


def _projected(directions: Tensor) -> tuple[Tensor, Tensor]:
    """|W_i|^2, and the sum over all j of (W_i / |W_i| . W_j)^2, through the [d, d] Gram matrix."""
    w = directions.double()
    norm = w.square().sum(1)
    total = ((w @ (w.T @ w)) * w).sum(1)
    return norm, torch.where(norm > 0, total / norm.clamp(min=1e-300), 0.0)


def _table(labels: Labels) -> tuple[int, np.ndarray, np.ndarray]:
    """Rows, every concept's frequency, and which concept each column of labels has on in each row (-1: none)."""
    parts, first = [], 0
    for codes, table in labels.columns:
        number = np.full(max(int(codes.max(initial=0)), max(table, default=0)) + 1, -1, dtype=np.int32)
        number[list(table)] = np.arange(first, first + len(table))
        parts.append(number[codes])
        first += len(table)
    concept = np.stack(parts, 1)
    counts = np.bincount(concept[concept >= 0], minlength=first)
    return len(concept), counts / max(len(concept), 1), concept


def _strongest(values: np.ndarray, n: int) -> np.ndarray:
    """The places of the n largest values, the earlier where they tie."""
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    least = np.partition(values, len(values) - n)[len(values) - n]
    above, ties = np.flatnonzero(values > least), np.flatnonzero(values == least)
    return np.concatenate([above, ties[: n - len(above)]])


def _greedy(concept: np.ndarray, frequency: np.ndarray, share: float, lift: float) -> int | None:
    """The number of `cover.concepts_needed`, from the concepts on in the top rows (see there for the choices)."""
    rows = len(concept)
    if not rows:
        return None
    row, place = np.nonzero(concept >= 0)
    which = concept[row, place]
    hits = np.bincount(which, minlength=len(frequency)) / rows
    fits = ((hits >= lift * frequency * (1 - 1e-9)) & (frequency > 0))[which]
    row, which = row[fits], which[fits]
    covered, chosen = np.zeros(rows, dtype=bool), 0
    while covered.sum() < share * rows - 1e-9:
        gain = np.bincount(which, minlength=len(frequency))
        if gain.max(initial=0) == 0:
            return None
        ties = np.flatnonzero(gain == gain.max())
        covered[row[which == ties[frequency[ties].argmin()]]] = True
        chosen += 1
        left = ~covered[row]
        row, which = row[left], which[left]
    return chosen
