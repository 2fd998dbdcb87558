"""A batch's way through a cross-layer transcoder in training, and what is measured of a finished one."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lensing.dictionary.crosslayer import CrossLayer, CrossStatistics
from lensing.measure.fvu import FVU
from lensing.training.finish import LatentMeter
from lensing.training.losses import auxiliary_loss
from lensing.training.objectives import PENALTIES, Forward, Passed


def pass_cross_layer(
    d: CrossLayer,
    x: Float[Tensor, "rows d_in"],
    y: Float[Tensor, "rows d_out"],
    *,
    variance: float,
    coefficient: float,
    dead: Int[Tensor, " dead"],
    some: slice,
) -> Passed:
    """The loss of a batch: squared error of every site, each layer's penalty, and AuxK of each layer's dead latents.

    `dead` are numbered through all layers; `some` of the rows are those whose error they rebuild. The penalty of a
    layer sees its decoder rows end to end, so that a latent pays for all that it writes (Ameisen et al. 2025).
    """
    config = d.config
    xs = list(x.split(d.parts, dim=1))
    patterns = d.active_in_training([part.detach() for part in xs])
    pres = [layer.pre_at(part, pattern) for layer, part, pattern in zip(d, xs, patterns, strict=True)]
    values = [layer.activate_in_training(pre, p) for layer, pre, p in zip(d, pres, patterns, strict=True)]
    rests = [bias + skip for bias, skip in zip(d.biases(), d.skipped(xs), strict=True)]
    mixed = d.mix(values, patterns, config.prefixes)
    y_hats = torch.cat([part + rest for part, rest in zip(mixed, rests, strict=True)], dim=2)
    loss = (y - y_hats).square().sum() / (len(y_hats) * len(y) * variance)
    y_hat = y_hats[-1]
    rest = torch.cat([part.expand(len(x), -1) for part in rests], dim=1)
    error = (y - y_hat).detach()
    penalty: Tensor | float = 0.0
    aux: Tensor | float = 0.0
    first, width = 0, config.width
    for i, (layer, pattern) in enumerate(zip(d, patterns, strict=True)):
        here = dead[(dead >= i * width) & (dead < (i + 1) * width)] - i * width
        if d.architecture in PENALTIES:
            at = Forward(
                layer, y[:, first:], rest[:, first:], pattern, pres[i], values[i], variance, coefficient,
                xs[i][some], here,
            )  # fmt: skip
            penalty = penalty + PENALTIES[d.architecture](at)
        k = config.dead_latents_used(d.out_parts[i]) if getattr(config, "aux_coef", 0.0) and len(here) else 0
        if k:
            aux = aux + auxiliary_loss(
                error[some, first:], xs[i][some], layer.encoder[here], layer.b_enc[here], layer.W_dec[here], k,
                quick=d.quick,
            ) / len(d)  # fmt: skip
        first += d.out_parts[i]
    total = loss + penalty + getattr(config, "aux_coef", 0.0) * aux
    codes = tuple(layer.codes(value.detach(), p) for layer, value, p in zip(d, values, patterns, strict=True))
    return Passed(y_hat, loss, penalty, aux, total, codes)


@final
class CrossMeter:
    """Statistics of a cross-layer transcoder over held-out rows that come a part at a time, in float64 sums.

    Every layer gets its own, for the vectors that it writes: its FVU there is that of the sites that it writes as the
    whole transcoder rebuilds them.
    """

    def __init__(self, dictionary: CrossLayer) -> None:
        self.dictionary = dictionary
        self.latents = [LatentMeter(layer.d_sae) for layer in dictionary]
        self.onward, self.sites = [FVU() for _ in dictionary], [FVU() for _ in dictionary]

    @torch.no_grad()
    def add(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"] | None = None) -> None:
        """Take in rows of all the sites that are read, and of all that are to be written."""
        assert y is not None
        d = self.dictionary
        xs = list(x.split(d.parts, dim=1))
        codes = d.encode(xs)
        rebuilt = [a + b for a, b in zip(d.decode(codes), d.skipped(xs), strict=True)]
        y_hat, first = torch.cat(rebuilt, dim=1), 0
        for i, width in enumerate(d.out_parts):
            self.latents[i].add(codes[i])
            self.onward[i].add(y[:, first:], y_hat[:, first:])
            self.sites[i].add(y[:, first : first + width], rebuilt[i])
            first += width

    def statistics(self, *, corpus: str, documents: int) -> CrossStatistics:
        """Statistics over everything that was added; each layer's go to the layer."""
        for layer, meter, fvu in zip(self.dictionary, self.latents, self.onward, strict=True):
            layer.statistics = meter.statistics(fvu, corpus=corpus, documents=documents)
        dead = [meter.firing.dead_share for meter in self.latents]
        l0s = [meter.firing.l0 for meter in self.latents]
        return CrossStatistics(
            corpus=corpus, n=self.onward[0].n, documents=documents, fvu=self.onward[0].value,
            fvus=tuple(fvu.value for fvu in self.sites), l0=sum(l0s), l0s=tuple(l0s), dead_share=sum(dead) / len(dead),
            dead_shares=tuple(dead),
        )  # fmt: skip
