"""The numbers that a finished dictionary carries: measured on held-out rows, after rounding."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.base import Dictionary
from lensing.dictionary.codes import Codes
from lensing.dictionary.statistics import Statistics
from lensing.measure.fvu import FVU
from lensing.measure.l0 import Firing


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
    meter, latents = FVU(), LatentMeter(dictionary.d_sae)
    with torch.no_grad():
        for part in rows:
            x, y = part if isinstance(part, tuple) else (part, None)
            codes = dictionary.encode(x)
            meter.add(x if y is None else y, dictionary.decode(codes) + dictionary.skipped(x))
            latents.add(codes)
    return latents.statistics(meter, corpus=corpus, documents=documents)


class LatentMeter:
    """What latents do, batch by batch: how often, how strongly."""

    def __init__(self, d_sae: int) -> None:
        self.d_sae, self.firing, self.largest = d_sae, Firing(d_sae), torch.zeros(d_sae)
        self.parts: list[Codes] = []

    def add(self, codes: Codes) -> None:
        """Take in codes."""
        self.firing.add(codes)
        self.largest = torch.maximum(self.largest, codes.maximum)
        self.parts.append(codes)

    def statistics(self, fvu: FVU, *, corpus: str, documents: int) -> Statistics:
        """Everything, with what `fvu` took in of the vectors."""
        return Statistics(
            corpus=corpus,
            n=fvu.n,
            documents=documents,
            mean=fvu.mean.float(),
            total_variance=fvu.total_variance,
            mean_norm=fvu.mean_norm,
            max_activation=self.largest,
            p999=_percentile(self.parts, self.d_sae, 0.999),
            density=self.firing.density.float(),
            fvu=fvu.value,
            l0=self.firing.l0,
            dead_share=self.firing.dead_share,
        )


def _percentile(parts: list[Codes], d_sae: int, q: float) -> Tensor:
    # every latent's quantile over its activations above zero, linear between order statistics; 0 for silent latents
    index = np.concatenate([c.index.numpy() for c in parts])
    value = np.concatenate([c.value.numpy() for c in parts])
    index, value = index[value > 0], value[value > 0]
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
