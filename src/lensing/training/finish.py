"""The numbers that a finished dictionary carries: measured on held-out rows, after rounding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.base import Dictionary
from lensing.dictionary.codes import Codes
from lensing.dictionary.statistics import Statistics
from lensing.measure.fvu import FVU
from lensing.measure.l0 import Firing


class LatentMeter:
    """What latents do, batch by batch: how often, how strongly."""

    def __init__(self, d_sae: int) -> None:
        self.d_sae, self.firing, self.largest = d_sae, Firing(d_sae), torch.zeros(d_sae)
        # of activations above zero only, for the percentiles: those of every member of a sweep are held together
        self.index: list[np.ndarray] = []
        self.value: list[np.ndarray] = []

    def add(self, codes: Codes) -> None:
        """Take in codes."""
        self.firing.add(codes)
        self.largest = torch.maximum(self.largest, codes.maximum)
        active = codes.value > 0
        self.index.append(codes.index[active].int().numpy())
        self.value.append(codes.value[active].numpy())

    def statistics(self, fvu: FVU, *, corpus: str, documents: int) -> Statistics:
        """Everything, with what `fvu` took in of the vectors (definitions: Statistics)."""
        return Statistics(
            corpus=corpus,
            n=fvu.n,
            documents=documents,
            mean=fvu.mean.float(),
            total_variance=fvu.total_variance,
            mean_norm=fvu.mean_norm,
            max_activation=self.largest,
            p999=_percentile(self.index, self.value, self.d_sae, 0.999),
            density=self.firing.density.float(),
            fvu=fvu.value,
            l0=self.firing.l0,
            dead_share=self.firing.dead_share,
        )


@final
class StatisticsMeter:
    """Statistics of a dictionary over held-out rows that come a part at a time, in float64 sums."""

    def __init__(self, dictionary: Dictionary) -> None:
        self.dictionary, self.fvu, self.latents = dictionary, FVU(), LatentMeter(dictionary.d_sae)

    @torch.no_grad()
    def add(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"] | None = None) -> None:
        """Take in rows, and what is to be written where that is something else."""
        d = self.dictionary
        codes = d.encode(x)
        self.fvu.add(x if y is None else y, d.decode(codes) + d.skipped(x))
        self.latents.add(codes)

    def statistics(self, *, corpus: str, documents: int) -> Statistics:
        """Statistics over everything that was added (definitions: Statistics)."""
        return self.latents.statistics(self.fvu, corpus=corpus, documents=documents)


def measure_statistics(
    dictionary: Dictionary,
    rows: Iterable[Float[Tensor, "rows d_in"] | tuple[Float[Tensor, "rows d_in"], Float[Tensor, "rows d_out"] | None]],
    *,
    corpus: str,
    documents: int,
) -> Statistics:
    """Statistics of a dictionary over held-out rows, in float64 sums (definitions: Statistics).

    A transcoder's rows come as pairs, what is read and what is to be written; mu, variance and norm are of the latter.
    """
    meter = StatisticsMeter(dictionary)
    for part in rows:
        meter.add(*(part if isinstance(part, tuple) else (part, None)))
    return meter.statistics(corpus=corpus, documents=documents)


def _percentile(indices: list[np.ndarray], values: list[np.ndarray], d_sae: int, q: float) -> Tensor:
    # every latent's quantile over its activations above zero, linear between order statistics; 0 for silent latents
    index, value = np.concatenate(indices), np.concatenate(values)
    order = np.lexsort((value, index))
    value = value[order].astype(np.float64)
    counts = np.bincount(index, minlength=d_sae)
    start = np.cumsum(counts) - counts
    place = q * np.maximum(counts - 1, 0)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(counts - 1, 0))
    alive = counts > 0
    out = np.zeros(d_sae)
    a, b = value[(start + low)[alive]], value[(start + high)[alive]]
    out[alive] = a + (place - low)[alive] * (b - a)
    return torch.from_numpy(out).float()
