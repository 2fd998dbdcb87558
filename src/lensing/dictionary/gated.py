"""Gated: one half of the encoder says which latents are active, the other how much (Rajamanoharan et al. 2024)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lensing.dictionary.base import CLASSES, Dictionary
from lensing.dictionary.kernels import Pattern
from lensing.dictionary.select import pattern_above


@CLASSES.register("gated")
class GatedDictionary(Dictionary):
    """A latent is active where pi = (x - b_dec) W_enc + b_enc > 0, as max((pi - b_enc) exp(r_mag) + b_mag, 0)."""

    architecture: ClassVar[str] = "gated"
    splits: ClassVar[bool] = True

    def __init__(self, config: Any, d_in: int, **wiring: Any) -> None:
        super().__init__(config, d_in, **wiring)
        self.r_mag = nn.Parameter(torch.zeros(config.width))
        self.b_mag = nn.Parameter(torch.zeros(config.width))

    def active(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """Every latent whose gate is open."""
        return pattern_above(centred, self.encoder, self.b_enc, 0.0)

    def active_in_training(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """The same, found quickly."""
        return pattern_above(centred, self.encoder, self.b_enc, 0.0, quick=self.quick)

    def activate(self, pre: Float[Tensor, " nnz"], pattern: Pattern) -> Float[Tensor, " nnz"]:
        """The magnitude, where the gate is open; the gate's own place on the axis gives no gradient."""
        i = pattern.index
        magnitude = (pre - self.b_enc[i]) * self.r_mag.exp()[i] + self.b_mag[i]
        return magnitude.relu() * (pre > 0)

    def stretch_(self, factor: Float[Tensor, " d_sae"]) -> None:
        """Make activations larger: the magnitude and the gate's axis alike."""
        super().stretch_(factor)
        self.b_mag.mul_(factor)

    def extra_tensors(self) -> dict[str, Tensor]:
        """What turns the gate's axis into a magnitude."""
        return {"r_mag": self.r_mag.detach(), "b_mag": self.b_mag.detach()}

    def load_extra_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take them."""
        with torch.no_grad():
            self.r_mag.copy_(tensors["r_mag"])
            self.b_mag.copy_(tensors["b_mag"])
