"""The one number by which inputs are multiplied while training, so that rates and coefficients carry over."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.errors import TrainingError


def input_scale(
    rows: Float[Tensor, "rows d"], kind: Literal["variance", "norm", "unit"], parts: tuple[int, ...] = ()
) -> Float[Tensor, " d"]:
    """What every coordinate is multiplied by: one number, or one for each of several parts of the vector.

    "variance": the mean of |x - mu|^2 becomes d (d the part's width). "norm": the mean of |x| becomes sqrt(d) (Conerly
    et al. 2024). "unit": the mean of |x|^2 becomes 1 (Gemma Scope). Raises TrainingError where that is impossible.
    """
    factors = []
    for part in rows.double().split(list(parts) or [rows.shape[1]], dim=1):
        d = part.shape[1]
        variance = float((part - part.mean(0)).square().sum(1).mean())
        if not math.isfinite(variance) or variance <= 0:
            raise TrainingError(
                f"The first {len(rows)} rows have variance {variance}. Train on rows that are finite and differ."
            )
        if kind == "variance":
            factor = math.sqrt(d / variance)
        elif kind == "norm":
            factor = math.sqrt(d) / float(part.norm(dim=1).mean())
        else:
            factor = 1 / math.sqrt(float(part.square().sum(1).mean()))
        factors.append(torch.full((d,), factor, device=rows.device))
    return torch.cat(factors)
