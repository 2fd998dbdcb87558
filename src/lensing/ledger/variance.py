"""The ledger's variance: lines that sum exactly to what a dictionary leaves of it, each on held-out documents.

With e = x - x_hat, fitted on one half of the documents and scored on the other, both ways round:

    mean error      |E e|^2: what a constant would mend
    calibration     what one gain on x_hat - E x_hat would mend
    amortisation    what least squares on the encoder's own latents, all free in sign, would mend
    remainder       what is left

Each line is the held-out squared error before its step less that after it, over E|x - mu|^2: they telescope, may be
negative, and sum to the first line, the FVU. The order is part of their meaning. The probe (Engels et al. 2024) splits
the error after the first step: linear is what a ridge regression of e on x tells, nonlinear the rest. It names no
cause: a Gaussian with the same covariance has a nonlinear part too, and so have known features that are coded badly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lensing.dictionary.base import Dictionary
from lensing.dictionary.codes import Codes
from lensing.errors import UsageError
from lensing.ledger.gram import Gram, total

GROUPS = 10  # of documents; halves are made of five, errors come from leaving one out
RIDGES = tuple(10.0**k for k in range(-7, 1))  # shares of the mean diagonal
CLOSES = 1e-9  # relative, in float64


@final
@dataclass(frozen=True)
class Line:
    """A share of the variance E|x - mu|^2, with its jackknife standard error over groups of documents."""

    name: str
    share: float
    se: float


@final
@dataclass(frozen=True)
class Variance:
    """What is left of the variance, split twice: by what would mend it (`lines`), and by a probe (`probe`).

    Both sum to `fvu`. `engels` is the mean over dimensions of the R2 of e from x without an intercept, in sample, as
    published; `orthogonal` is E<e, x_hat - E x_hat> over E|x - mu|^2, 0 where the decoder is optimal.
    """

    fvu: Line
    lines: tuple[Line, ...]
    probe: tuple[Line, ...]
    engels: float
    orthogonal: float
    n: int
    documents: int
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def least_squares(x: Float[Tensor, "rows d"], dictionary: Dictionary, codes: Codes) -> Float[Tensor, "rows d"]:
    """Return x - x_hat' of the best codes on each row's own active latents, their sign free; b_dec stays as it is.

    The error is never longer than that of the encoder's codes, up to rounding.
    """
    target = (x - dictionary.b_dec).double()
    out = torch.empty_like(target)
    counts = codes.counts()
    for k in counts.unique().tolist():
        rows = (counts == k).nonzero()[:, 0]
        if not k:
            out[rows] = target[rows]
            continue
        step = max((1 << 22) // (k * x.shape[1]), 1)
        for some in rows.split(step):
            places = codes.indptr[some][:, None] + torch.arange(k, device=some.device)
            atoms = dictionary.W_dec.double()[codes.index[places].long()]  # [rows, k, d]
            gram = atoms @ atoms.transpose(1, 2)
            # latents that point alike make it singular: a trace of ridge leaves the fit what it is
            gram.diagonal(dim1=1, dim2=2).add_(1e-10 * gram.diagonal(dim1=1, dim2=2).mean(1, keepdim=True))
            fit = torch.linalg.solve(gram, (atoms @ target[some, :, None]))
            out[some] = target[some] - (fit * atoms).sum(1)
    return out


def variance(groups: Sequence[Gram], *, shift: Float64[Tensor, " d"], documents: int) -> Variance:
    """Return the lines of the sums of `GROUPS` groups of documents.

    Raises: UsageError: groups without rows, or vectors that do not vary.
    """
    if len(groups) != GROUPS or any(g.n == 0 for g in groups):
        empty = sum(g.n == 0 for g in groups)
        raise UsageError(f"{empty} of {GROUPS} groups of documents have no row. Give a text of more documents.")
    whole = total(groups)
    d = len(whole.x)
    spread = whole.xx.trace() - whole.x @ whole.x / whole.n
    if not spread > 1e-12 * whole.xx.trace():
        raise UsageError("The vectors do not vary: there is no variance to account for. Give another site or text.")
    warnings = []
    if whole.n // 2 < 10 * d:
        warnings.append(f"{whole.n:,} rows are few for {d} dimensions: the probe's linear share is too low.")
    half = GROUPS // 2
    ridges = _ridge(groups[:half]), _ridge(groups[half:])  # each chosen inside the half that it is fitted on

    def lines(kept: Sequence[int]) -> Float64[Tensor, " lines"]:
        first = [groups[i] for i in kept if i < half]
        second = [groups[i] for i in kept if i >= half]
        a, b = total(first), total(second)
        ways = torch.stack([_held_out(a, b, ridges[0]), _held_out(b, a, ridges[1])])
        found = ways.sum(0)
        return found[1:] / found[0]

    everything = lines(range(GROUPS))
    left = torch.stack([lines([i for i in range(GROUPS) if i != out]) for out in range(GROUPS)])
    se = ((GROUPS - 1) / GROUPS * (left - left.mean(0)).square().sum(0)).sqrt()
    names = ("FVU", "mean error", "calibration", "amortisation", "remainder", "mean error", "linear", "nonlinear")
    rows = [Line(n, float(v), float(s)) for n, v, s in zip(names, everything, se, strict=True)]
    fvu, waterfall, probe = rows[0], tuple(rows[1:5]), tuple(rows[5:8])
    for part in (waterfall, probe):
        gap = abs(math.fsum(line.share for line in part) - fvu.share)
        assert gap <= CLOSES * max(abs(fvu.share), 1e-30), f"the lines miss their sum by {gap:g}"
    return Variance(
        fvu=fvu, lines=waterfall, probe=probe, engels=_engels(whole, shift), orthogonal=_orthogonal(whole),
        n=whole.n, documents=documents, warnings=tuple(warnings),
    )  # fmt: skip


def _held_out(fit: Gram, score: Gram, ridge: float) -> Float64[Tensor, " 9"]:
    """Sums over the scored rows: |x - mu|^2, |e|^2, the waterfall's four lines, the probe's three."""
    n, mu, mean = score.n, fit.x / fit.n, fit.e / fit.n
    size = score.xx.trace() - 2 * mu @ score.x + n * mu @ mu
    error = score.ee.sum()
    flat = error - 2 * mean @ score.e + n * mean @ mean
    gained = _gain(fit, score)
    better = fit.b / fit.n
    amortised = score.bb - 2 * better @ score.b + n * better @ better
    probed = _probed(fit, score, ridge)
    return torch.stack([
        size, error, error - flat, flat - gained, gained - amortised, amortised, error - flat, flat - probed, probed,
    ])  # fmt: skip


def _gain(fit: Gram, score: Gram) -> Tensor:
    """Squared error of mu + g (x_hat - E x_hat), g fitted."""

    def products(g: Gram, mu: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # with x_hat = x - e: sums of u u, u w, w w for u = x - mu, w = x_hat - h
        s = g.x - g.e
        xh = g.xx.trace() - g.xe.trace()
        hh = g.xx.trace() - 2 * g.xe.trace() + g.ee.sum()
        return (
            g.xx.trace() - 2 * mu @ g.x + g.n * mu @ mu,
            xh - h @ g.x - mu @ s + g.n * mu @ h,
            hh - 2 * h @ s + g.n * h @ h,
        )

    mu, h = fit.x / fit.n, (fit.x - fit.e) / fit.n
    _, uw, ww = products(fit, mu, h)
    gain = uw / ww if ww > 0 else torch.ones(())
    a, b, c = products(score, mu, h)
    return a - 2 * gain * b + gain**2 * c


def _centred(g: Gram, mu: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of products of x - mu and e - mean: xx, xe, and the trace of ee."""
    xx = g.xx - torch.outer(mu, g.x) - torch.outer(g.x, mu) + g.n * torch.outer(mu, mu)
    xe = g.xe - torch.outer(mu, g.e) - torch.outer(g.x, mean) + g.n * torch.outer(mu, mean)
    return xx, xe, g.ee.sum() - 2 * mean @ g.e + g.n * mean @ mean


def _weights(fit: Gram, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    mu, mean = fit.x / fit.n, fit.e / fit.n
    xx, xe, _ = _centred(fit, mu, mean)
    eye = torch.eye(len(mu), dtype=xx.dtype)
    return torch.linalg.solve(xx + ridge * xx.diagonal().mean() * eye, xe), mu, mean


def _probed(fit: Gram, score: Gram, ridge: float) -> Tensor:
    """Squared error of e predicted from x by ridge regression with an intercept."""
    w, mu, mean = _weights(fit, ridge)
    xx, xe, ee = _centred(score, mu, mean)
    return ee - 2 * (w * xe).sum() + ((xx @ w) * w).sum()


def _ridge(half: Sequence[Gram]) -> float:
    """The ridge that predicts best from three groups of a half to its other two."""
    fit, score = total(half[:-2]), total(half[-2:])
    return min(RIDGES, key=lambda ridge: float(_probed(fit, score, ridge)))


def _engels(g: Gram, shift: Float64[Tensor, " d"]) -> float:
    """Mean over dimensions of R2 of e from the raw x, no intercept, in sample."""
    xx = g.xx + torch.outer(shift, g.x) + torch.outer(g.x, shift) + g.n * torch.outer(shift, shift)
    xe = g.xe + torch.outer(shift, g.e)
    w = torch.linalg.lstsq(xx, xe, driver="gelsd").solution
    left = g.ee - 2 * (w * xe).sum(0) + ((xx @ w) * w).sum(0)
    around = g.ee - g.e.square() / g.n
    return float((1 - left / around.clamp(min=1e-300))[around > 0].mean())


def _orthogonal(g: Gram) -> float:
    """E<e, x_hat - E x_hat> over E|x - mu|^2."""
    mu, mean = g.x / g.n, g.e / g.n
    xx, xe, ee = _centred(g, mu, mean)
    return float((xe.trace() - ee) / xx.trace())
