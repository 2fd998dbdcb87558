"""TopK: the k largest positive pre-activations of every row (Gao et al. 2024)."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.base import CLASSES, Dictionary
from lensing.dictionary.kernels import Pattern, top_pattern


@CLASSES.register("topk")
class TopKDictionary(Dictionary):
    """A dictionary whose every row has at most k active latents."""

    architecture: ClassVar[str] = "topk"

    def active(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """The k largest positive pre-activations of every row."""
        return top_pattern(centred, self.encoder, self.b_enc, self.config.k)
