"""Losses, as pure functions; both are shares of a variance, so that learning rates carry over between models."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def reconstruction_loss(
    x: Float[Tensor, "rows d_in"], x_hat: Float[Tensor, "rows d_in"], variance: float
) -> Float[Tensor, ""]:
    """Mean over rows of |x - x_hat|^2, divided by the data's `variance` (mean |x - mu|^2)."""
    return (x - x_hat).square().sum() / (len(x) * variance)


def auxiliary_loss(
    error: Float[Tensor, "rows d_in"],
    pre: Float[Tensor, "rows dead"],
    directions: Float[Tensor, "dead d_in"],
    k: int,
) -> Float[Tensor, ""]:
    """AuxK (Gao et al. 2024): how badly the k best dead latents of every row rebuild the error, as its share.

    `error` is taken as given (detached), `pre` are the dead latents' pre-activations; b_dec stands on neither side.
    """
    error = error.detach()
    f = pre.relu()
    if pre.shape[1] > k:
        value, index = f.topk(k, dim=1, sorted=False)
        f = torch.zeros_like(f).scatter(1, index, value)
    power = error.square().sum()
    return (f @ directions - error).square().sum() / power.clamp(min=torch.finfo(power.dtype).tiny)
