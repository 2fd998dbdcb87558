"""The optimiser's surroundings: unit-norm decoder rows with projected gradients, and the learning rate's course."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lensing.dictionary.configs import Recipe

ROWS = 256


def default_lr(width: int) -> float:
    """2e-4 / sqrt(width / 2**14), the field's rule for TopK with Adam (Gao et al. 2024)."""
    return 2e-4 / math.sqrt(width / 2**14)


def lr_share(step: int, steps: int, *, warmup: int, decay: float = 0.2, warmup_from: float | None = None) -> float:
    """Share of the full rate at a step: warm-up, flat, linear to zero over the last `decay` of the steps.

    The warm-up is linear from zero, or a cosine from the share `warmup_from` (Gemma Scope).
    """
    rise = min((step + 1) / max(warmup, 1), 1.0)
    if warmup_from is not None:
        rise = warmup_from + (1 - warmup_from) * 0.5 * (1 - math.cos(math.pi * min(step / max(warmup, 1), 1.0)))
    fall = min((steps - step) / max(decay * steps, 1.0), 1.0)
    return rise * fall


def adam(dictionary: nn.Module, recipe: Recipe, lr: float) -> torch.optim.Adam:
    """Adam over the dictionary's weights, fused where the device allows."""
    return torch.optim.Adam(dictionary.parameters(), lr=lr, betas=recipe.betas, eps=recipe.eps, fused=True)


@torch.no_grad()
def remove_parallel_(gradient: Float[Tensor, "d_sae d_in"], directions: Float[Tensor, "d_sae d_in"]) -> None:
    """Take from every row of the gradient its component along the (unit) row: Adam then turns, not stretches."""
    # in blocks that stay in a core's cache
    for g, d in zip(gradient.split(ROWS), directions.split(ROWS), strict=True):
        g.addcmul_(d, (g * d).sum(1, keepdim=True), value=-1)


@torch.no_grad()
def unit_rows_(directions: Float[Tensor, "d_sae d_in"]) -> None:
    """Scale every row to norm 1."""
    directions /= directions.norm(dim=1, keepdim=True).clamp(min=torch.finfo(directions.dtype).tiny)
