"""How many latents are active, how often each is, and how many never are."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lensing.dictionary.codes import Codes


class Firing:
    """Streaming counts over batches of codes: rows, active places, rows in which each latent is active."""

    def __init__(self, d_sae: int) -> None:
        self.rows = 0
        self.counts: Int[Tensor, " d_sae"] = torch.zeros(d_sae, dtype=torch.int64)

    def add(self, codes: Codes) -> None:
        """Take in codes; a place counts where its activation is above zero."""
        self.rows += codes.rows
        active = codes.index[codes.value > 0]
        self.counts += torch.bincount(active, minlength=codes.d_sae).cpu()

    @property
    def l0(self) -> float:
        """Mean number of active latents a row."""
        return int(self.counts.sum()) / max(self.rows, 1)

    @property
    def density(self) -> Float[Tensor, " d_sae"]:
        """Share of rows in which each latent is active."""
        return self.counts.double() / max(self.rows, 1)

    @property
    def dead_share(self) -> float:
        """Share of latents that no row activates."""
        return float((self.counts == 0).double().mean())


def l0(codes: Codes) -> float:
    """Mean number of latents with an activation above zero, a row."""
    return float((codes.value > 0).sum()) / max(codes.rows, 1)
