"""Who is dead: latents that have been silent for too many rows; and how they may be brought back."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lensing.dictionary.base import Dictionary
from lensing.dictionary.codes import Codes

RESAMPLED = 0.2  # length of a resampled encoder row, as a share of the living ones' mean (Bricken et al. 2023)


class Silence:
    """Rows since every latent was last active; a latent is dead from `limit` rows of silence on."""

    def __init__(self, d_sae: int, limit: int, device: torch.device | str = "cpu") -> None:
        self.limit = limit
        self.rows: Int[Tensor, " d_sae"] = torch.zeros(d_sae, dtype=torch.int64, device=device)

    def add(self, *codes: Codes) -> None:
        """Take in one batch's codes, or those of several layers, whose latents are numbered one after the other."""
        self.rows += codes[0].rows
        first = 0
        for part in codes:
            self.rows[first + part.index[part.value > 0].long()] = 0
            first += part.d_sae

    def dead(self) -> Int[Tensor, " dead"]:
        """The dead latents, ascending."""
        return (self.rows >= self.limit).nonzero().squeeze(1)


@torch.no_grad()
def resample_(
    d: Dictionary, optimizer: torch.optim.Adam, silence: Silence, x: Float[Tensor, "rows d_in"], *, seed: int
) -> None:
    """Give every dead latent the direction of a badly rebuilt row of the batch `x`, and forget its moments.

    Rows are drawn in proportion to their squared error. Source: Bricken et al. 2023, with the error in place of its
    square; dictionary_learning, trainers/standard.py.
    """
    dead = silence.dead()
    if not len(dead) or d.is_transcoder:
        return
    error = (x - d.reconstruct(x)).square().sum(1)
    generator = torch.Generator().manual_seed(seed)
    # drawn on the CPU, so that every device draws alike
    drawn = torch.multinomial(error.clamp(min=1e-12).cpu(), len(dead), replacement=True, generator=generator)
    chosen = x[drawn.to(x.device)]
    directions = torch.nn.functional.normalize(chosen - d.b_dec, dim=1)
    alive = torch.ones(d.d_sae, dtype=torch.bool, device=x.device).index_fill(0, dead, False)
    length = d.encoder[alive].norm(dim=1).mean() if bool(alive.any()) else torch.tensor(1.0)
    d.W_dec[dead] = directions * (d.W_dec[alive].norm(dim=1).mean() if bool(alive.any()) else 1.0)
    d.encoder[dead] = directions * length * RESAMPLED
    d.b_enc[dead] = 0.0
    for parameter in (d.encoder, d.W_dec, d.b_enc):
        moments = optimizer.state.get(parameter, {})
        for name in ("exp_avg", "exp_avg_sq"):
            if name in moments:
                moments[name][dead] = 0.0
    silence.rows[dead] = 0
