"""ReLU: every positive pre-activation is active, and an L1 penalty keeps them few."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.base import CLASSES, Dictionary
from lensing.dictionary.kernels import Pattern
from lensing.dictionary.select import pattern_above


@CLASSES.register("relu")
class ReLUDictionary(Dictionary):
    """A dictionary of rectified latents (Bricken et al. 2023; Conerly et al. 2024): x is not centred first."""

    architecture: ClassVar[str] = "relu"
    splits: ClassVar[bool] = True
    centres: ClassVar[bool] = False

    def active(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """Every positive pre-activation."""
        return pattern_above(centred, self.encoder, self.b_enc, 0.0)

    def active_in_training(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """The same, found quickly."""
        return pattern_above(centred, self.encoder, self.b_enc, 0.0, quick=self.quick)
