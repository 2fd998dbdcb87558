"""JumpReLU: a latent is active above a threshold of its own, which is learnt (Rajamanoharan et al. 2024)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function

from lensing.dictionary.base import CLASSES, Dictionary
from lensing.dictionary.kernels import Pattern
from lensing.dictionary.select import pattern_above


@CLASSES.register("jumprelu")
class JumpReLUDictionary(Dictionary):
    """f = pre where pre > threshold, else 0; thresholds are learnt by straight-through gradients.

    The thresholds are kept as they are, not as logarithms, which small gradients cannot move, and in float32.
    """

    architecture: ClassVar[str] = "jumprelu"
    splits: ClassVar[bool] = True

    def __init__(self, config: Any, d_in: int, **wiring: Any) -> None:
        super().__init__(config, d_in, **wiring)
        self.threshold = nn.Parameter(torch.full((config.width,), float(config.threshold)))

    def active(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """Every pre-activation above its latent's threshold."""
        return pattern_above(centred, self.encoder, self.b_enc, self.threshold.detach())

    def active_in_training(self, centred: Float[Tensor, "rows d_in"]) -> Pattern:
        """Those, and the places below it but inside the estimator's window, where the threshold learns."""
        edge = self.threshold.detach() - 0.5 * self.config.bandwidth
        return pattern_above(centred, self.encoder, self.b_enc, edge, quick=self.quick)

    def activate(self, pre: Float[Tensor, " nnz"], pattern: Pattern) -> Float[Tensor, " nnz"]:
        """The pre-activation, where it is above the threshold."""
        return pre * (pre > self.threshold[pattern.index])

    def activate_in_training(self, pre: Float[Tensor, " nnz"], pattern: Pattern) -> Float[Tensor, " nnz"]:
        """The same, with the straight-through gradient of the threshold, under the tanh penalty of pre too."""
        through = self.config.penalty == "tanh"
        return _Jump.apply(pre, self.threshold[pattern.index], self.config.bandwidth, through)

    def fires(self, pre: Float[Tensor, " nnz"], pattern: Pattern) -> Float[Tensor, " nnz"]:
        """1 where active and 0 elsewhere, with the straight-through gradient of the threshold: what L0 counts."""
        return _Step.apply(pre, self.threshold[pattern.index], self.config.bandwidth)

    @torch.no_grad()
    def end_step(self) -> None:
        """No threshold below zero: there the jump would let negative activations through."""
        self.threshold.clamp_(min=0.0)

    def stretch_(self, factor: Float[Tensor, " d_sae"]) -> None:
        """Make activations larger, the thresholds too."""
        super().stretch_(factor)
        self.threshold.mul_(factor)

    def extra_tensors(self) -> dict[str, Tensor]:
        """The thresholds, in full precision whatever the weights are stored as."""
        return {"threshold": self.threshold.detach()}

    def load_extra_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take the thresholds."""
        with torch.no_grad():
            self.threshold.copy_(tensors["threshold"])


class _Jump(Function):
    """pre 1[pre > t]; d/dpre = 1[pre > t], d/dt = -(t / e) rect((pre - t) / e), rect being 1 within a half of zero.

    With `through`, d/dpre has the jump too, + (t / e) rect((pre - t) / e) (Conerly et al. 2025).
    """

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float, through: bool) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth, ctx.through = bandwidth, through
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        pre, threshold = ctx.saved_tensors
        near = (pre - threshold).abs() < 0.5 * ctx.bandwidth
        jump = grad * near * (threshold / ctx.bandwidth)
        for_pre = grad * (pre > threshold)
        return for_pre + jump if ctx.through else for_pre, -jump, None, None


class _Step(Function):
    """1[pre > t]; d/dt = -(1 / e) rect((pre - t) / e), none for pre."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        pre, threshold = ctx.saved_tensors
        near = (pre - threshold).abs() < 0.5 * ctx.bandwidth
        return None, -grad * near / ctx.bandwidth, None
