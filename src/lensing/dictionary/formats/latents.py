"""Weights as other tools can hold them: float32, and TopK's latents rescaled so that each ranks by its own value."""

from __future__ import annotations

import torch
from torch import Tensor

from lensing.dictionary.base import Dictionary


@torch.no_grad()
def exported(dictionary: Dictionary) -> dict[str, Tensor]:
    """Every tensor by our name, W_enc as [d_in, d_sae], in float32 on the CPU, thresholds [d_sae] and not below zero.

    Where TopK ranks latents unequally, their activations are given in the unit that ranks them, and their decoder rows
    are longer by as much: what is rebuilt stays as it was.
    """
    sae = dictionary
    weights = {name: tensor.detach().cpu().double() for name, tensor in (sae.weights() | sae.extra_tensors()).items()}
    weights["W_enc"] = sae.W_enc.detach().cpu().double()
    if "rank" in weights:
        rank = weights.pop("rank")
        weights["W_enc"], weights["b_enc"] = weights["W_enc"] * rank, weights["b_enc"] * rank
        weights["W_dec"] = weights["W_dec"] / rank[:, None]
    if "threshold" in weights:
        weights["threshold"] = weights["threshold"].clamp(min=0.0).expand(sae.d_sae)
    return {name: tensor.float().contiguous() for name, tensor in weights.items()}
