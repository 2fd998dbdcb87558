"""Ridge regression of many labels at once from accumulated sums, on dense rows or on tokens as one-hots.

A concept's undetermined rows take no part in its fit. One factorisation serves all concepts, with such rows given the
base rate as target; what they add to the covariance is then taken out by conjugate gradients with that factorisation
as preconditioner (Hestenes and Stiefel 1952), at the price of reading only the undetermined rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from lensing.world.truth import ON, UNDETERMINED

CHUNK = 8192  # rows
STEPS, TOLERANCE = 12, 1e-6  # of conjugate gradients: at most, and the share of the fit still missing


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over some rows: of features (float64 [d], [d, d]) and, per concept, over its on and undetermined rows."""

    n: int
    total: Float[Tensor, " d"]
    gram: Float[Tensor, "d d"]
    on: Float[Tensor, "concepts d"]
    open: Float[Tensor, "concepts d"]
    n_on: Float[Tensor, " concepts"]
    n_open: Float[Tensor, " concepts"]

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.n + other.n, self.total + other.total, self.gram + other.gram, self.on + other.on,
            self.open + other.open, self.n_on + other.n_on, self.n_open + other.n_open,
        )  # fmt: skip

    @property
    def rate(self) -> Float[Tensor, " concepts"]:
        """Share of on tokens among those where the concept is settled."""
        return self.n_on / (self.n - self.n_open).clamp(min=1)

    @property
    def pull(self) -> Float[Tensor, "concepts d"]:
        """Features times centred labels, summed: n_on (mean where on - mean where settled)."""
        return self.on - self.rate[:, None] * (self.total - self.open)

    @property
    def scatter(self) -> Float[Tensor, "d d"]:
        """Gram matrix of the centred features, float64."""
        return self.gram.double() - torch.outer(self.total, self.total) / self.n

    def part(self, concepts: slice | Tensor) -> Moments:
        """The same rows with some of the concepts only."""
        return Moments(
            self.n, self.total, self.gram, self.on[concepts], self.open[concepts], self.n_on[concepts],
            self.n_open[concepts],
        )  # fmt: skip


class Dense:
    """Real-valued rows, standardised (over all rows: no label is seen); ridge strengths are shares of their number."""

    ridges = (1e-2, 1e-4, 1e-3, 1e-1)  # the first stands where nothing speaks for another

    def __init__(self, h: Float[Tensor, "rows d"]) -> None:
        chunks = h.float().split(CHUNK)
        self.mean = torch.stack([c.double().sum(0) for c in chunks]).sum(0) / len(h)
        squares = torch.stack([(c.double() - self.mean).square().sum(0) for c in chunks]).sum(0)
        sd = (squares / len(h)).sqrt()
        self.sd = torch.where(sd > 1e-12, sd, torch.ones_like(sd))
        self.x = (h.float() - self.mean.float()) / self.sd.float()

    def strength(self, ridge: float, n: int) -> float:
        """What is added to the diagonal of the Gram matrix of `n` rows."""
        return ridge * n

    def moments(self, truth: Int8[Tensor, "concepts rows"], rows: slice) -> Moments:
        """Return the sums over a slice of rows; products with labels are float32 a chunk, sums of chunks float64."""
        concepts, d = len(truth), self.x.shape[1]
        total, gram = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
        on, open_ = (torch.zeros(concepts, d, dtype=torch.float64) for _ in range(2))
        n_on, n_open = (torch.zeros(concepts, dtype=torch.float64) for _ in range(2))
        for first in range(rows.start, rows.stop, CHUNK):
            part = slice(first, min(first + CHUNK, rows.stop))
            x, labels = self.x[part], truth[:, part]
            total += x.double().sum(0)
            gram += x.double().T @ x.double()
            for label, sums, counts in ((ON, on, n_on), (UNDETERMINED, open_, n_open)):
                hit = labels == label
                some = hit.any(1).nonzero()[:, 0]
                chosen = hit[some].float()
                sums[some] += (chosen @ x).double()
                counts[some] += chosen.sum(1).double()
        return Moments(rows.stop - rows.start, total, gram, on, open_, n_on, n_open)

    def scores(self, weight: Float[Tensor, "concepts d"], rows: slice) -> Float[np.ndarray, "concepts rows"]:
        """Return the scores (up to a constant a concept) of a slice of rows."""
        return (weight.float() @ self.x[rows].T).numpy()

    def product(self, weight: Float[Tensor, " d"], rows: np.ndarray) -> Float[Tensor, " d"]:
        """Return the sum over some rows of x (x . weight)."""
        x = self.x[torch.from_numpy(rows)]
        return ((x @ weight.float()) @ x).double()

    def raw(
        self, weight: Float[Tensor, "concepts d"], bias: Float[Tensor, " concepts"]
    ) -> tuple[Float[Tensor, "concepts d"], Float[Tensor, " concepts"]]:
        """Return weights and biases for rows that are not standardised, float32."""
        weight = weight / self.sd
        return weight.float(), (bias - weight @ self.mean).float()


class OneHot:
    """Tokens at fixed offsets as one-hots, never written out; ridge strengths are pseudo-counts of each token."""

    ridges = (10.0, 1.0, 100.0)

    def __init__(self, tokens: Int[np.ndarray, "rows offsets"]) -> None:
        columns, self.width = [], 0
        for column in tokens.T:
            kinds, number = np.unique(column, return_inverse=True)
            columns.append(number + self.width)
            self.width += len(kinds)
        self.columns = np.stack(columns)

    def strength(self, ridge: float, n: int) -> float:
        """What is added to the diagonal of the Gram matrix."""
        return ridge

    def moments(self, truth: Int8[Tensor, "concepts rows"], rows: slice) -> Moments:
        """Return the sums over a slice of rows: counts of tokens, of pairs, and of tokens where a concept is on."""
        columns = self.columns[:, rows]
        gram = torch.zeros(self.width * self.width)
        ones = torch.ones(columns.shape[1])
        for a in columns:
            for b in columns:
                gram.index_add_(0, torch.from_numpy(a * self.width + b), ones)
        sums = []
        for label in (ON, UNDETERMINED):
            hits = [np.flatnonzero(row) for row in (truth[:, rows] == label).numpy()]
            counts = [np.bincount(columns[:, hit].ravel(), minlength=self.width) for hit in hits]
            sums += [torch.from_numpy(np.stack(counts)).double(), torch.tensor([len(h) for h in hits]).double()]
        total = torch.from_numpy(np.bincount(columns.ravel(), minlength=self.width)).double()
        on, n_on, open_, n_open = sums
        gram = gram.view(self.width, self.width)  # whole numbers, exact in float32
        return Moments(columns.shape[1], total, gram, on, open_, n_on, n_open)

    def scores(self, weight: Float[Tensor, "concepts d"], rows: slice) -> Float[np.ndarray, "concepts rows"]:
        """Return the scores (up to a constant a concept) of a slice of rows."""
        tokens = torch.from_numpy(self.columns[:, rows].T.copy())
        table = weight.float().T.contiguous()  # each row's weights lie together: gathering is ten times as fast
        return torch.nn.functional.embedding_bag(tokens, table, mode="sum").T.contiguous().numpy()

    def product(self, weight: Float[Tensor, " d"], rows: np.ndarray) -> Float[Tensor, " d"]:
        """Return the sum over some rows of x (x . weight)."""
        columns = self.columns[:, rows]
        score = weight.numpy()[columns].sum(0)
        found = np.bincount(columns.ravel(), weights=np.tile(score, len(columns)), minlength=self.width)
        return torch.from_numpy(found)


def fit(
    features: Dense | OneHot, truth: Int8[Tensor, "concepts rows"], parts: Sequence[slice], real: int | None = None
) -> tuple[Float[Tensor, "concepts d"], Float[Tensor, " concepts"]]:
    """Fit all concepts on two neighbouring slices of rows together; return weights and biases, float64.

    The ridge is chosen by a fit on the first part and a look at the second: the highest mean over concepts of the
    correlation of score and label. Concepts from number `real` on are shuffled ones: they do not choose, and as their
    undetermined rows are random ones, they are fitted by the covariance of all rows.
    """
    first, second = (features.moments(truth, part) for part in parts)
    ridge = max(
        features.ridges, key=lambda r: _correlation(first.part(slice(real)), second.part(slice(real)), features, r)
    )
    both = first + second
    return solve(features, both, features.strength(ridge, both.n), truth[:real], parts[0].start)


def solve(
    features: Dense | OneHot, moments: Moments, strength: float, truth: Int8[Tensor, "some rows"], start: int
) -> tuple[Float[Tensor, "concepts d"], Float[Tensor, " concepts"]]:
    """Solve for weights and biases at one strength of the ridge, without the undetermined rows of `truth`'s concepts.

    `moments` are of the rows from `start` on.
    """
    factor = _factor(moments, strength)
    weight = torch.cholesky_solve(moments.pull.T, factor).T.contiguous()
    some = moments.n_open[: len(truth)].nonzero()[:, 0]
    if len(some):
        labels = truth[some, start : start + moments.n]
        rows = [start + np.flatnonzero((row == UNDETERMINED).numpy()) for row in labels]
        weight[some] = _leave_out(features, moments.part(some), weight[some], factor, rows)
    settled = (moments.total - moments.open) / (moments.n - moments.n_open).clamp(min=1)[:, None]
    return weight, moments.rate - (weight * settled).sum(1)


def _leave_out(
    features: Dense | OneHot, moments: Moments, weight: Tensor, factor: Tensor, rows: Sequence[np.ndarray]
) -> Float[Tensor, "concepts d"]:
    """Go from the solution with all rows in the covariance to that without the given rows of each concept."""
    mean = moments.total / moments.n
    open_ = moments.open - moments.n_open[:, None] * mean  # sum of the centred rows to leave out
    n = (moments.n - moments.n_open).clamp(min=1)[:, None]

    def left_out(w: Tensor) -> Tensor:
        raw = torch.stack([features.product(one, at) for one, at in zip(w, rows, strict=True)])
        shift = (w @ mean)[:, None]
        along = (moments.open * w).sum(1, keepdim=True)
        centred = raw - moments.open * shift - mean * along + moments.n_open[:, None] * mean * shift
        return centred + open_ * (open_ * w).sum(1, keepdim=True) / n  # and the mean of the rest moves

    residual = left_out(weight)
    size = (moments.pull * weight).sum(1).clamp(min=1e-30)
    step = along_step = torch.zeros_like(weight)  # `along_step`: the factorised matrix times `step`
    before = torch.ones(len(weight), 1, dtype=weight.dtype)
    for _ in range(STEPS):
        near = torch.cholesky_solve(residual.T, factor).T
        energy = (residual * near).sum(1, keepdim=True)
        if bool((energy[:, 0] <= TOLERANCE * size).all()):
            break
        step, along_step = near + energy / before * step, residual + energy / before * along_step
        image = along_step - left_out(step)
        length = energy / (step * image).sum(1, keepdim=True).clamp(min=1e-30)
        weight, residual, before = weight + length * step, residual - length * image, energy.clamp(min=1e-30)
    return weight


def _factor(moments: Moments, strength: float) -> Float[Tensor, "d d"]:
    scatter = moments.scatter
    scatter.diagonal().add_(strength)
    return torch.linalg.cholesky(scatter)


def _correlation(fitted: Moments, seen: Moments, features: Dense | OneHot, ridge: float) -> float:
    if not fitted.n or not seen.n:
        return 0.0
    factor = _factor(fitted, features.strength(ridge, fitted.n))
    weight = torch.cholesky_solve(fitted.pull.T, factor).T
    along = (weight * seen.pull).sum(1)
    across = (weight @ seen.scatter * weight).sum(1) * seen.n_on * (1 - seen.rate)
    usable = (fitted.n_on > 0) & (across > 0)
    return float((along[usable] / across[usable].sqrt()).mean()) if usable.any() else 0.0
