"""All that can be said of vectors and their reconstructions without a model: streaming, in float64."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.measure.fvu import FVU


class Reconstruction:
    """Streaming numbers over batches of (x, x_hat), e = x - x_hat; none depends on how rows are cut into batches."""

    def __init__(self) -> None:
        self.meter = FVU()
        self._error = self._square = self._cosine = self._ratio = self._written = self._along = 0.0

    def add(self, x: Float[Tensor, "rows d"], x_hat: Float[Tensor, "rows d"]) -> None:
        """Take in rows and their reconstructions."""
        self.meter.add(x, x_hat)
        a, b = x.double(), x_hat.double()
        long, rebuilt, along = a.norm(dim=1), b.norm(dim=1), (a * b).sum(1)
        self._error += float((a - b).square().sum())
        self._square += float(a.square().sum())
        self._cosine += float(_over(along, long * rebuilt).sum())
        self._ratio += float(_over(rebuilt, long).sum())
        self._written += float(b.square().sum())
        self._along += float(along.sum())

    @property
    def rows(self) -> int:
        """Rows that were added."""
        return self.meter.n

    @property
    def fvu(self) -> float:
        """Sum of |e|^2 over sum of |x - mu|^2, mu the mean of all rows."""
        return self.meter.value

    @property
    def uncentred_fvu(self) -> float:
        """Sum of |e|^2 over sum of |x|^2, the mean not taken out."""
        return self._share(self._error, self._square)

    @property
    def mse(self) -> float:
        """Mean over rows of |e|^2, summed over dimensions."""
        return self._share(self._error, self.rows)

    @property
    def cosine(self) -> float:
        """Mean over rows of the cosine of x and x_hat; 0 where either is zero."""
        return self._share(self._cosine, self.rows)

    @property
    def norm_ratio(self) -> float:
        """Mean over rows of |x_hat| / |x|; 0 where x is zero."""
        return self._share(self._ratio, self.rows)

    @property
    def bias(self) -> float:
        """Sum of |x_hat|^2 over sum of <x, x_hat>: 1 without shrinkage (Rajamanoharan et al. 2024, equation 10)."""
        return self._share(self._written, self._along)

    @staticmethod
    def _share(part: float, whole: float) -> float:
        return part / whole if whole else float("nan")


def _over(part: Tensor, whole: Tensor) -> Tensor:
    # 0 where the whole is zero
    return torch.where(whole > 0, part / whole.clamp(min=torch.finfo(whole.dtype).tiny), 0.0)
