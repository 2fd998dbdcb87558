"""Who is dead: latents that have been silent for too many rows."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from lensing.dictionary.codes import Codes


class Silence:
    """Rows since every latent was last active; a latent is dead from `limit` rows of silence on."""

    def __init__(self, d_sae: int, limit: int) -> None:
        self.limit = limit
        self.rows: Int[Tensor, " d_sae"] = torch.zeros(d_sae, dtype=torch.int64)

    def add(self, codes: Codes) -> None:
        """Take in one batch's codes."""
        self.rows += codes.rows
        self.rows[codes.index[codes.value > 0].cpu().long()] = 0

    def dead(self) -> Int[Tensor, " dead"]:
        """The dead latents, ascending."""
        return (self.rows >= self.limit).nonzero().squeeze(1)
