"""BatchTopK: the k times rows largest pre-activations of a batch while training, one threshold afterwards."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.base import CLASSES, Dictionary
from lensing.dictionary.kernels import Pattern, batch_top_pattern, pattern_above

SETTLE = 0.01  # step of the threshold's running mean (Bussmann et al. 2024; SAELens takes the same step)


@CLASSES.register("batchtopk")
class BatchTopKDictionary(Dictionary):
    """A dictionary with k active latents a row on average (Bussmann et al. 2024), JumpReLU at inference.

    `threshold` is the running mean of the smallest activation that training kept; at inference a latent is active
    where its pre-activation is greater. float64, because its steps are small.
    """

    architecture: ClassVar[str] = "batchtopk"

    def __init__(self, config: Any, d_in: int, *, seed: int = 0) -> None:
        super().__init__(config, d_in, seed=seed)
        self.register_buffer("threshold", torch.tensor(-1.0, dtype=torch.float64))
        self.threshold: Tensor

    def active(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """Every pre-activation above the threshold."""
        return pattern_above(centred, self.encoder, self.b_enc, float(self.threshold))

    def active_in_training(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """The k times rows largest positive pre-activations of the batch; moves the threshold towards its edge."""
        settled = float(self.threshold)
        guess = 0.9 * settled if settled > 0 else None
        pattern, least = batch_top_pattern(centred, self.encoder, self.b_enc, self.config.k, guess)
        self.threshold.fill_(least if settled < 0 else settled + SETTLE * (least - settled))
        return pattern

    def scale_(self, factor: float) -> None:
        """Fold an input scaling in, the threshold too."""
        super().scale_(factor)
        self.threshold /= factor

    def extra_tensors(self) -> dict[str, Tensor]:
        """The threshold, in full precision whatever the weights are stored as."""
        return {"threshold": self.threshold.reshape(1)}

    def load_extra_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take the threshold."""
        self.threshold.copy_(tensors["threshold"].reshape(()))
