"""TopK: the k largest positive pre-activations of every row (Gao et al. 2024)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.base import CLASSES, Dictionary
from lensing.dictionary.kernels import Pattern
from lensing.dictionary.spread import top_of_all


@CLASSES.register("topk")
class TopKDictionary(Dictionary):
    """A dictionary whose every row has at most k active latents.

    Latents are ranked by `rank` times their pre-activation: 1, until decoder rows of unequal length are folded in.
    """

    architecture: ClassVar[str] = "topk"
    splits: ClassVar[bool] = True

    def __init__(self, config: Any, d_in: int, **wiring: Any) -> None:
        super().__init__(config, d_in, **wiring)
        self.k = config.k_at(0.0)  # falls to config.k while training, where the config says so
        self.register_buffer("rank", torch.ones(config.width))
        self.rank: Tensor

    def active(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """The k largest positive pre-activations of every row, in the order of `rank`."""
        return self._active(centred, self.config.k)

    def active_in_training(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """The same with the k of this point of the training."""
        return self._active(centred, self.k, quick=self.quick)

    def _active(self, centred: Tensor, k: int, *, quick: bool = False) -> Pattern:
        latents = self.world.latents
        if bool((self.rank == 1).all()):
            return top_of_all(centred, self.encoder, self.b_enc, k, latents, quick=quick)
        return top_of_all(centred, self.encoder * self.rank[:, None], self.b_enc * self.rank, k, latents)

    def begin_step(self, progress: float) -> None:
        """Let k fall, where the config says so."""
        self.k = self.config.k_at(progress)

    def stretch_(self, factor: Float[Tensor, " d_sae"]) -> None:
        """Make activations larger and leave their order as it was."""
        super().stretch_(factor)
        if not torch.allclose(factor, factor.mean()):
            self.rank.div_(factor)

    def extra_tensors(self) -> dict[str, Tensor]:
        """The rank, where latents do not rank alike."""
        return {} if bool((self.rank == 1).all()) else {"rank": self.rank}

    def load_extra_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take the rank, if there is one."""
        if "rank" in tensors:
            self.rank.copy_(tensors["rank"])
