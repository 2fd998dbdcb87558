"""Planted activations: every part of every row is known, so that what a dictionary finds can be counted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.codes import Codes
from lensing.errors import UsageError


@dataclass(frozen=True, eq=False)
class PlantedRows:
    """Rows x [rows, d_in] = mean + the parts `sparse`, `dense`, `circles`, `noise`; `codes` the true activations."""

    x: Float[Tensor, "rows d_in"]
    codes: Codes
    parts: dict[str, Float[Tensor, "rows d_in"]]

    def shares(self) -> dict[str, float]:
        """Every part's share of the total variance (the parts are independent)."""
        variance = {name: float(part.double().var(0).sum()) for name, part in self.parts.items()}
        return {name: v / sum(variance.values()) for name, v in variance.items()}


class Planted:
    """A fixed world of sparse features, a dense subspace, gated circles and noise, from which rows are drawn.

    Feature i of `features` has a random unit direction, fires with probability proportional to (i + 1)^-zipf (scaled
    to a mean of `l0` active features a row, none above `most`) and strength uniform in [1, 1.5]. Three orthonormal
    dense dimensions have standard deviation 0.45, three circles radius 1.3 in random planes, each on with
    probability 0.15; noise has standard deviation 0.05 a dimension; the mean has norm 3.
    """

    def __init__(
        self,
        *,
        d_in: int = 48,
        features: int = 256,
        l0: float = 5.0,
        zipf: float = 0.8,
        most: float = 0.3,
        seed: int = 0,
    ) -> None:
        if l0 >= most * features or d_in < 6:
            raise UsageError(f"{features} features cannot give {l0} active in {d_in} dimensions. Give more of both.")
        g = torch.Generator().manual_seed(seed)
        self.directions = torch.nn.functional.normalize(torch.randn(features, d_in, generator=g), dim=1)
        self.probabilities = _scaled(torch.arange(1, features + 1, dtype=torch.float64) ** -zipf, l0, most).float()
        self.dense = torch.linalg.qr(torch.randn(d_in, 3, generator=g)).Q.T.contiguous()
        self.planes = torch.stack([torch.linalg.qr(torch.randn(d_in, 2, generator=g)).Q.T for _ in range(3)])
        self.mean = 3 * torch.nn.functional.normalize(torch.randn(d_in, generator=g), dim=0)
        self.d_in = d_in

    def draw(self, rows: int, *, seed: int = 0) -> PlantedRows:
        """Draw rows with their true parts."""
        g = torch.Generator().manual_seed(seed + 1_000_003)
        on = torch.rand(rows, len(self.probabilities), generator=g) < self.probabilities
        codes = Codes.from_dense(on.float())
        codes = codes.with_values(1 + 0.5 * torch.rand(codes.nnz, generator=g))
        sparse = torch.cat([dense @ self.directions for _, dense in codes.chunks()])
        dense = 0.45 * torch.randn(rows, 3, generator=g) @ self.dense
        angle = 2 * math.pi * torch.rand(rows, 3, generator=g)
        point = 1.3 * torch.stack([angle.cos(), angle.sin()], -1)
        point = point * (torch.rand(rows, 3, generator=g) < 0.15)[..., None]
        circles = torch.einsum("rcp,cpd->rd", point, self.planes)
        noise = 0.05 * torch.randn(rows, self.d_in, generator=g)
        parts = {"sparse": sparse, "dense": dense, "circles": circles, "noise": noise}
        return PlantedRows(self.mean + sparse + dense + circles + noise, codes, parts)


def _scaled(weights: Tensor, total: float, most: float) -> Tensor:
    # the multiple of the weights, cut at `most`, that sums to `total`: by bisection
    low, high = 0.0, total / float(weights.min())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((weights * middle).clamp(max=most).sum()) < total else (low, middle)
    return (weights * high).clamp(max=most)
