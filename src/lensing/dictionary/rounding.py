"""The types that weights are stored as: what they round to, and how they lie in a file."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int8
from torch import Tensor

SCALE = ".scale"  # what stands beside a tensor of whole numbers, by row: W_dec.scale


def rounded(weight: Float[Tensor, ...], dtype: torch.dtype) -> Float[Tensor, ...]:
    """What a tensor becomes when it is stored as `dtype` and read again; a second rounding changes nothing.

    int8 holds matrices as whole numbers of at most 127 times a power of two for each row; vectors stay as they are.
    """
    if dtype != torch.int8:
        return weight.to(dtype).to(weight.dtype)
    if weight.ndim < 2:
        return weight
    whole, scale = whole_rows(weight)
    return whole.to(weight.dtype) * scale[:, None]


def whole_rows(weight: Float[Tensor, "rows d"]) -> tuple[Int8[Tensor, "rows d"], Float[Tensor, " rows"]]:
    """Split a matrix into whole numbers from -127 to 127 and the smallest power of two for each row that allows it."""
    largest = weight.abs().amax(dim=1) / 127
    mantissa, exponent = torch.frexp(largest)
    # 0.5 is a power of two itself: frexp gives it the exponent above its own
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)
    scale = torch.where(largest > 0, torch.ldexp(torch.ones_like(largest), exponent), 1.0)
    return (weight / scale[:, None]).round().to(torch.int8), scale


def pack(weights: dict[str, Float[Tensor, ...]], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors as they lie in a weights file, on the CPU; matrices of int8 with their scales beside them."""
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        weight = weight.detach().cpu()
        if dtype == torch.int8 and weight.ndim == 2:
            found[name], found[name + SCALE] = whole_rows(weight)
        else:
            found[name] = weight if dtype == torch.int8 else weight.to(dtype)
    return found


def unpack(tensors: dict[str, Tensor], transposed: tuple[str, ...] = ("W_enc",)) -> dict[str, Tensor]:
    """Undo `pack`; of the `transposed` matrices, columns stand for rows."""
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith(SCALE)}
    for name in found:
        if (scale := tensors.get(name + SCALE)) is not None:
            found[name] = found[name].to(scale.dtype) * (scale if name in transposed else scale[:, None])
    return found
