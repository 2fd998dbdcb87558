"""How many latents are active and how strongly, how often each is, and how many never are."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lensing.dictionary.codes import Codes

DENSITY_EDGES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


class Firing:
    """Streaming counts over batches of codes: rows, active places, rows in which each latent is active."""

    def __init__(self, d_sae: int) -> None:
        self.rows = 0
        self.counts: Int[Tensor, " d_sae"] = torch.zeros(d_sae, dtype=torch.int64)
        self.total = 0.0  # of the absolute activations

    def add(self, codes: Codes) -> None:
        """Take in codes; a place counts where its activation is above zero."""
        self.rows += codes.rows
        active = codes.index[codes.value > 0]
        self.counts += torch.bincount(active, minlength=codes.d_sae).cpu()
        self.total += float(codes.value.double().abs().sum())

    @property
    def l0(self) -> float:
        """Mean number of active latents a row."""
        return int(self.counts.sum()) / max(self.rows, 1)

    @property
    def l1(self) -> float:
        """Mean sum of the absolute activations of a row, decoder rows having length 1."""
        return self.total / max(self.rows, 1)

    @property
    def density(self) -> Float[Tensor, " d_sae"]:
        """Share of rows in which each latent is active."""
        return self.counts.double() / max(self.rows, 1)

    @property
    def dead_share(self) -> float:
        """Share of latents that no row activates."""
        return float((self.counts == 0).double().mean())

    def histogram(self) -> list[int]:
        """Latents by density: silent in all rows; then by the decade of the density, as DENSITY_EDGES cut it."""
        edges = torch.tensor(DENSITY_EDGES, dtype=torch.float64)
        alive = self.density[self.counts > 0]
        # a density on an edge belongs above it, 1 to the last decade, what is below the first edge to the first
        place = (torch.bucketize(alive, edges, right=True) - 1).clamp(0, len(edges) - 2)
        return [int((self.counts == 0).sum()), *torch.bincount(place, minlength=len(edges) - 1).tolist()]


def l0(codes: Codes) -> float:
    """Mean number of latents with an activation above zero, a row."""
    return float((codes.value > 0).sum()) / max(codes.rows, 1)
