"""How well a score ranks positives above negatives: AUROC and average precision, exact with ties."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lensing.dictionary.codes import Codes
from lensing.errors import UsageError


def auroc(scores: Float[Tensor, " n"], labels: Bool[Tensor, " n"]) -> float:
    """Probability that a random positive scores above a random negative, ties counting one half."""
    positives, negatives = _curve(_numpy(scores), _numpy(labels).astype(bool))
    return _auroc(positives, negatives)


def average_precision(scores: Float[Tensor, " n"], labels: Bool[Tensor, " n"]) -> float:
    """Sum over thresholds of (recall gained) x (precision there), tied scores entering together."""
    positives, negatives = _curve(_numpy(scores), _numpy(labels).astype(bool))
    return _average_precision(positives, negatives)


def score_latents(
    codes: Codes, labels: Bool[Tensor, " rows"]
) -> tuple[Float[Tensor, " d_sae"], Float[Tensor, " d_sae"]]:
    """AUROC and average precision of every latent's activation as a score for the labels of the rows.

    Equal to `auroc` and `average_precision` on every dense column, but the rows where a latent is silent (one large
    tie at zero) are only counted.
    """
    positive = _numpy(labels).astype(bool)
    if len(positive) != codes.rows:
        raise UsageError(f"{len(positive)} labels do not fit {codes.rows} rows. Give one label a row.")
    total = int(positive.sum())
    _check(total, len(positive) - total)
    areas, precisions = np.full(codes.d_sae, 0.5), np.full(codes.d_sae, total / len(positive))
    for j in np.unique(_numpy(codes.index)):
        rows, value = codes.column(int(j))
        value, mine = _numpy(value), positive[_numpy(rows)]
        on = value > 0
        p, n = _groups(value[on], mine[on])
        p, n = np.append(p, total - p.sum()), np.append(n, len(positive) - total - n.sum())
        areas[j], precisions[j] = _auroc(p, n), _average_precision(p, n)
    return torch.from_numpy(areas), torch.from_numpy(precisions)


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _check(positives: int, negatives: int) -> None:
    if not positives or not negatives:
        raise UsageError(f"{positives} positives and {negatives} negatives cannot be ranked. Give some of both.")


def _curve(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if scores.shape != labels.shape or scores.ndim != 1:
        raise UsageError(f"Scores {scores.shape} and labels {labels.shape} differ. Give one label a score.")
    if np.isnan(scores).any():
        raise UsageError("A score is not a number. Remove such rows first.")
    _check(int(labels.sum()), int((~labels).sum()))
    return _groups(scores, labels)


def _groups(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # positives and negatives of every distinct score, highest first
    distinct, place = np.unique(scores, return_inverse=True)
    n = len(distinct)
    positives = np.bincount(place[labels], minlength=n)[::-1]
    negatives = np.bincount(place[~labels], minlength=n)[::-1]
    return positives.astype(np.float64), negatives.astype(np.float64)


def _auroc(positives: np.ndarray, negatives: np.ndarray) -> float:
    above = np.cumsum(positives) - positives
    return float((negatives * (above + positives / 2)).sum() / (positives.sum() * negatives.sum()))


def _average_precision(positives: np.ndarray, negatives: np.ndarray) -> float:
    found, taken = np.cumsum(positives), np.cumsum(positives + negatives)
    precision = np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
    return float((positives * precision).sum() / positives.sum())
