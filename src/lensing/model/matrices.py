"""Weights as plain numbers, wherever and however a model holds them: quantised, on other devices, out of memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 1024  # of an identity matrix that go through a packed linear map at once


def matrix(linear: Any, device: torch.device | None = None) -> Tensor:
    """The weights as [inputs, outputs], so that `x @ matrix` is what the map does but for its bias.

    Of packed weights (quantised ones) it is what the map does to each unit vector, which no packing can hide.
    """
    if not linear.weight.is_floating_point():
        found = _acts(linear)
    else:
        weight = weight_of(linear)
        found = weight if type(linear).__name__ == "Conv1D" else weight.T
    return found if device is None else found.to(device)


def weight_of(module: Any, device: torch.device | None = None) -> Tensor:
    """The weight of an embedding, or of a linear map that is not packed; brought in where it lies elsewhere."""
    weight = module.weight
    away = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
    if weight.device.type == "meta" and away is not None:
        weight = away["weight"]
    return weight if device is None else weight.to(device)


@torch.no_grad()
def _acts(linear: Any) -> Tensor:
    device = device_of(linear)
    # 8-bit products are made of 16-bit numbers in any case
    dtype = torch.float16 if type(linear.weight).__name__ == "Int8Params" else torch.float32
    bias = getattr(linear, "bias", None)
    found = []
    for first in range(0, linear.in_features, ROWS):
        rows = torch.zeros(min(ROWS, linear.in_features - first), linear.in_features, device=device, dtype=dtype)
        rows[:, first:].fill_diagonal_(1)
        out = linear(rows)
        found.append(out if bias is None else out - bias.to(out))
    return torch.cat(found)


def parameters(hf: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter with its name, those that do not lie in memory brought in one after the other."""
    seen: set[int] = set()
    for path, module in hf.named_modules():
        away = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
        for name, value in module.named_parameters(prefix=path, recurse=False):
            if id(value) in seen:  # tied
                continue
            seen.add(id(value))
            here = away is None or value.device.type != "meta"
            yield name, value.detach() if here else away[name.rpartition(".")[2]]  # type: ignore[index]


def device_of(module: Any) -> torch.device:
    """Where a module computes, which is not where its weights lie when these are brought in for each pass."""
    place = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    if place is None:
        return module.weight.device
    return torch.device("cuda", place) if isinstance(place, int) else torch.device(place)
