"""By how much one score ranks better than another, with a standard error over documents.

AUROC is the mean placement of the positives among the negatives. The variance follows from the placements (DeLong,
DeLong and Clarke-Pearson 1988), summed by document, because tokens of one document are not independent (Obuchowski
1997, "Nonparametric analysis of clustered ROC curve data").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lensing.errors import UsageError


@dataclass(frozen=True, eq=False)
class Sample:
    """Scores of positives and of negatives with each one's document.

    `off_weight` is how many negatives one of them stands for, in positives' units (1 where nothing was drawn); only
    average precision depends on it.
    """

    on: Float[np.ndarray, " positives"]
    off: Float[np.ndarray, " negatives"]
    on_document: Int[np.ndarray, " positives"]
    off_document: Int[np.ndarray, " negatives"]
    off_weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Ranking:
    """AUROC and average precision of a score, and how much each document moves the AUROC away from its mean.

    `on` and `off` [documents] are the influences of a document's positives and negatives; `positives` and `negatives`
    count the documents that have some.
    """

    auroc: float
    average_precision: float
    on: Float[np.ndarray, " documents"]
    off: Float[np.ndarray, " documents"]
    positives: int
    negatives: int

    @property
    def se(self) -> float:
        """Standard error of the AUROC over documents."""
        return _se(self.on, self.off, self.positives, self.negatives)


def rank(samples: Sequence[Sample], documents: int) -> Ranking:
    """Rank positives above negatives within each sample (a fold, say); samples weigh by their positives.

    Exact, ties counting one half. Raises: UsageError: a sample without positives or without negatives.
    """
    total = sum(len(s.on) for s in samples)
    on, off = np.zeros(documents), np.zeros(documents)
    precision, on_tokens, has_off = 0.0, np.zeros(documents), np.zeros(documents, dtype=bool)
    for s in samples:
        if not len(s.on) or not len(s.off):
            raise UsageError(f"{len(s.on)} positives and {len(s.off)} negatives cannot be ranked. Give some of both.")
        of_on, of_off, above = _placements(s)
        share = len(s.on) / total
        on += np.bincount(s.on_document, weights=of_on, minlength=documents) / total
        on_tokens += np.bincount(s.on_document, minlength=documents) / total
        count = np.bincount(s.off_document, minlength=documents)
        centred = np.bincount(s.off_document, weights=of_off, minlength=documents) - of_on.mean() * count
        off += share * centred / len(s.off)
        has_off |= count > 0
        precision += share * above
    area = float(on.sum())
    # Positives are centred on the mean of all samples: a sample whose positives all lie in one document would show no
    # spread about its own mean.
    on -= area * on_tokens
    return Ranking(
        area, precision, on.astype(np.float32), off.astype(np.float32), int((on_tokens > 0).sum()), int(has_off.sum())
    )


def margin(score: Ranking, baseline: Ranking) -> tuple[float, float]:
    """Return AUROC of a score less that of a baseline on the same rows, and the paired standard error over documents.

    Raises: UsageError: the two were not ranked on the same documents.
    """
    if (score.positives, score.negatives, len(score.on)) != (baseline.positives, baseline.negatives, len(baseline.on)):
        raise UsageError(
            f"Rankings of {score.positives} and {baseline.positives} documents with positives cannot be paired. "
            "Rank both scores on the same rows."
        )
    on, off = score.on - baseline.on, score.off - baseline.off
    return score.auroc - baseline.auroc, _se(on, off, score.positives, score.negatives)


def _se(on: np.ndarray, off: np.ndarray, positives: int, negatives: int) -> float:
    """Standard error of a sum of influences over documents, nan where a single document has all of one side."""
    if min(positives, negatives) < 2:
        return float("nan")
    on, off = on.astype(np.float64), off.astype(np.float64)
    both = max(positives, negatives)
    own = (on @ on) * positives / (positives - 1) + (off @ off) * negatives / (negatives - 1)
    # The cross term can outweigh the others only by chance.
    return float(np.sqrt(max(own + 2 * (on @ off) * both / (both - 1), 0.0)))


def _placements(s: Sample) -> tuple[np.ndarray, np.ndarray, float]:
    """Share of negatives below each positive, share of positives above each negative, and average precision."""
    of_on, of_off = np.argsort(s.on), np.argsort(s.off)
    on, off = s.on[of_on], s.off[of_off]
    below, up_to = np.searchsorted(off, on), np.searchsorted(off, on, side="right")
    # Positives are far fewer: the negatives' places follow from theirs by counting.
    passed = np.cumsum(np.bincount(below, minlength=len(off) + 1) + np.bincount(up_to, minlength=len(off) + 1))[:-1]
    found = len(on) - np.searchsorted(on, on)
    precision = found / (found + s.off_weight * (len(off) - below))
    above, under = np.empty(len(on)), np.empty(len(off))
    above[of_on] = (below + up_to) / (2 * len(off))
    under[of_off] = 1 - passed / (2 * len(on))
    return above, under, float(precision.mean())
