"""The latents of a dictionary as a flat map: the two directions along which decoder rows differ most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.base import Dictionary


@final
@dataclass(frozen=True, eq=False)
class Map:
    """Places of all latents, [d_sae, 2], and the share of the rows' variance that the two axes hold."""

    places: Float[Tensor, "d_sae 2"]
    share: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded to four digits."""
        return {"x": _round(self.places[:, 0]), "y": _round(self.places[:, 1]), "share": self.share}


@torch.no_grad()
def decoder_map(dictionary: Dictionary) -> Map:
    """Return the first two principal components of the unit decoder rows, the largest entry of each axis above 0."""
    unit = torch.nn.functional.normalize(dictionary.W_dec.detach().float(), dim=1).double()
    centred = unit - unit.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    axes = vectors[:, -2:].flip(1)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    return Map((centred @ axes).float().cpu(), float(values[-2:].sum() / values.sum().clamp(min=1e-30)))


def _round(values: Tensor) -> list[float]:
    return [round(v, 4) for v in values.tolist()]
