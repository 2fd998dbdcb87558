"""Fraction of variance unexplained: sum |x - x_hat|^2 / sum |x - mu|^2 over all rows, mu their mean."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class FVU:
    """Streaming FVU: add batches of (x, x_hat), float64 sums; mu is the mean of all rows that were added."""

    def __init__(self) -> None:
        self.n = 0
        self._shift: Tensor | None = None

    def add(self, x: Float[Tensor, "rows d_in"], x_hat: Float[Tensor, "rows d_in"]) -> None:
        """Take in rows and their reconstructions."""
        if self._shift is None:
            # sums are taken about the first batch's mean: nothing cancels when the mean is far from zero
            self._shift = x.double().mean(0)
            self._sum, self._square, self._error, self._norm = torch.zeros_like(self._shift), 0.0, 0.0, 0.0
        y = x.double() - self._shift
        self._sum += y.sum(0)
        self._square += float(y.square().sum())
        self._error += float((x.double() - x_hat.double()).square().sum())
        self._norm += float(x.double().norm(dim=1).sum())
        self.n += len(x)

    @property
    def mean(self) -> Float[Tensor, " d_in"]:
        """mu, the mean row."""
        assert self._shift is not None
        return self._shift + self._sum / self.n

    @property
    def total_variance(self) -> float:
        """Mean of |x - mu|^2."""
        return (self._square - float((self._sum / self.n).square().sum()) * self.n) / self.n

    @property
    def mean_norm(self) -> float:
        """Mean of |x|."""
        return self._norm / self.n

    @property
    def value(self) -> float:
        """The FVU of everything added; NaN before anything was."""
        return self._error / (self.total_variance * self.n) if self.n else float("nan")


def fvu(x: Float[Tensor, "rows d_in"], x_hat: Float[Tensor, "rows d_in"]) -> float:
    """sum |x - x_hat|^2 / sum |x - mu|^2 over the rows, mu their mean; 0 is perfect, 1 is as good as the mean."""
    meter = FVU()
    meter.add(x.reshape(-1, x.shape[-1]), x_hat.reshape(-1, x.shape[-1]))
    return meter.value


def not_reconstructed(
    x: Float[Tensor, "*leading d_in"], x_hat: Float[Tensor, "*leading d_in"], mean: Float[Tensor, " d_in"]
) -> Float[Tensor, "*leading"]:
    """|x - x_hat|^2 / |x - mu|^2 of every row, mu from the dictionary's statistics; it may exceed 1."""
    x = x.double()
    return (x - x_hat.double()).square().sum(-1) / (x - mean.double()).square().sum(-1)
