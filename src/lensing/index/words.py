"""Words of a latent: those that it fires on, and those that its direction speaks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
BINS = 50  # of every histogram


@dataclass(frozen=True, eq=False)
class FiringWords:
    """The tokens that a latent fires on most often: ids, places where it fires, precision and recall.

    `precision` is the share of the token's places in the text where the latent fires, `recall` the share of the
    latent's places that are this token.
    """

    token: Array
    n: Array
    precision: Array
    recall: Array


def firing_words(tokens: Array, row: Array, said: Array, k: int) -> FiringWords:
    """Return the `k` tokens that stand most often where a latent is active; ties go to the smaller id.

    `tokens` is the text, `row` where the latent is active, `said` how often every token of the vocabulary is said.
    """
    ids, n = np.unique(tokens[row], return_counts=True)
    order = np.argsort(-n, kind="stable")[:k]
    ids, n = ids[order], n[order]
    return FiringWords(ids.astype(np.int32), n, n / said[ids], n / max(len(row), 1))


def histogram(values: Array, bins: int = BINS) -> tuple[Array, float, float]:
    """Return counts in equal bins from the smallest to the largest value, and these two."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    if low == high:
        counts = np.zeros(bins, dtype=np.int32)
        counts[-1] = len(values)
        return counts, low, high
    return np.histogram(values, bins=bins, range=(low, high))[0].astype(np.int32), low, high


def extremes(logits: Array, k: int) -> tuple[Array, Array]:
    """Return ids of the `k` largest numbers of each row, largest first, and of the `k` smallest, smallest first."""
    found = []
    for signed in (-logits, logits):
        some = np.argpartition(signed, min(k, logits.shape[1] - 1), axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(signed, some, 1), axis=1, kind="stable")
        found.append(np.take_along_axis(some, order, 1).astype(np.int32))
    return found[0], found[1]
