"""Mean and variance of rows, gathered part by part: parts merge in any order to what one pass would give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor

CHUNK = 1 << 22  # numbers widened to float64 at a time


@dataclass(frozen=True, eq=False)
class Moments:
    """How many rows were seen, their mean [width] and the sum of squared distances from it [width], in float64."""

    n: int
    mean: Float64[Tensor, " width"]
    scatter: Float64[Tensor, " width"]

    @classmethod
    def none(cls, width: int) -> Self:
        """The moments of no rows."""
        return cls(0, torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64))

    def update(self, rows: Float[Tensor, "row width"]) -> Moments:
        """Return the moments of what was seen and of `rows`."""
        found = self
        for part in rows.split(max(CHUNK // max(rows.shape[1], 1), 1)):
            wide = part.double()
            mean = wide.mean(0) if len(part) else torch.zeros_like(self.mean)
            found = found.merge(Moments(len(part), mean, (wide - mean).square().sum(0)))
        return found

    def merge(self, other: Moments) -> Moments:
        """Return the moments of what both have seen: a merged with b is b merged with a, bit for bit."""
        if not self.n or not other.n:
            return self if self.n else other
        n = self.n + other.n
        mean = (self.n * self.mean + other.n * other.mean) / n
        apart = (self.mean - other.mean).square() * (self.n * other.n / n)
        return Moments(n, mean, (self.scatter + other.scatter) + apart)

    @property
    def variance(self) -> Float64[Tensor, " width"]:
        """Mean squared distance from the mean, for each number of a row."""
        return self.scatter / max(self.n, 1)

    @property
    def mean_square_norm(self) -> float:
        """Mean of a row's squared length."""
        return float((self.mean.square() + self.variance).sum())

    def to_json(self) -> dict[str, Any]:
        """Return plain values: n, mean_square_norm, mean, variance."""
        return {
            "n": self.n, "mean_square_norm": self.mean_square_norm,
            "mean": self.mean.tolist(), "variance": self.variance.tolist(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return the moments that `to_json` wrote."""
        mean, variance = (torch.tensor(record[name], dtype=torch.float64) for name in ("mean", "variance"))
        return cls(int(record["n"]), mean, variance * int(record["n"]))
