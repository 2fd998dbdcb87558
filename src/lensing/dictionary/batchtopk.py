"""BatchTopK: the k times rows largest pre-activations of a batch while training, one threshold afterwards."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.base import CLASSES, Dictionary
from lensing.dictionary.kernels import Pattern
from lensing.dictionary.select import batch_top_pattern, pattern_above
from lensing.dictionary.spread import Edge

SETTLE = 0.01  # step of the threshold's running mean (Bussmann et al. 2024; SAELens takes the same step)


class _BatchTopK(Dictionary):
    """What BatchTopK and its nested form share.

    `threshold` is the running mean of the smallest activation that training kept; at inference a latent is active
    where its pre-activation is greater: JumpReLU. float64, because its steps are small. One number, until decoder rows
    of unequal length are folded in: then one for each latent.
    """

    whole_batch: ClassVar[bool] = True
    splits: ClassVar[bool] = True

    def __init__(self, config: Any, d_in: int, **wiring: Any) -> None:
        super().__init__(config, d_in, **wiring)
        self.k = config.k_at(0.0)
        self.register_buffer("threshold", torch.tensor([-1.0], dtype=torch.float64))
        self.threshold: Tensor

    def active(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """Every pre-activation above the threshold (and above zero)."""
        edge = self.threshold.clamp(min=0.0)
        return pattern_above(centred, self.encoder, self.b_enc, float(edge) if len(edge) == 1 else edge)

    def active_in_training(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """The k times rows largest positive pre-activations of the batch; moves the threshold towards its edge."""
        edge = Edge(self.world) if self.world.team.size > 1 else None
        pattern, least = batch_top_pattern(
            centred, self.encoder, self.b_enc, self.k, self.guess, quick=self.quick, edge=edge
        )
        self.settle(least)
        return pattern

    @property
    def guess(self) -> float | None:
        """A number probably a little below the smallest activation that this batch will keep."""
        settled = float(self.threshold)
        return 0.9 * settled if settled > 0 else None

    def settle(self, least: float) -> None:
        """Move the threshold towards the smallest activation that a batch kept."""
        settled = float(self.threshold)
        self.threshold.fill_(least if settled < 0 else settled + SETTLE * (least - settled))

    def begin_step(self, progress: float) -> None:
        """Let k fall, where the config says so."""
        self.k = self.config.k_at(progress)

    def stretch_(self, factor: Float[Tensor, " d_sae"]) -> None:
        """Make activations larger, the threshold too."""
        super().stretch_(factor)
        if len(self.threshold) == 1 and torch.allclose(factor, factor.mean()):
            self.threshold *= float(factor.mean())
        else:
            self.threshold = self.threshold * factor.double()

    def extra_tensors(self) -> dict[str, Tensor]:
        """The threshold, in full precision whatever the weights are stored as."""
        return {"threshold": self.threshold}

    def load_extra_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take the threshold, one or one for each latent."""
        found = tensors["threshold"].double()
        if found.shape not in ((1,), (self.d_sae,)):
            raise RuntimeError(f"threshold of shape {list(found.shape)}")
        self.threshold = found.clone()


@CLASSES.register("batchtopk")
class BatchTopKDictionary(_BatchTopK):
    """A dictionary with k active latents a row on average (Bussmann et al. 2024), one threshold at inference."""

    architecture: ClassVar[str] = "batchtopk"


@CLASSES.register("matryoshka")
class MatryoshkaDictionary(_BatchTopK):
    """BatchTopK whose first latents alone must rebuild too (Bussmann et al. 2025): prefixes are in the config."""

    architecture: ClassVar[str] = "matryoshka"
