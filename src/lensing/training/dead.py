"""Who is dead: latents that have been silent for too many rows; and how they may be brought back."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lensing.dictionary.base import Dictionary
from lensing.dictionary.codes import Codes
from lensing.dist import ALONE, Group

RESAMPLED = 0.2  # length of a resampled encoder row, as a share of the living ones' mean (Bricken et al. 2023)


class Silence:
    """Rows since every latent was last active; a latent is dead from `limit` rows of silence on."""

    def __init__(
        self, d_sae: int, limit: int, device: torch.device | str = "cpu", data: Group = ALONE.data
    ) -> None:  # fmt: skip
        self.limit, self.data = limit, data
        self.rows: Int[Tensor, " d_sae"] = torch.zeros(d_sae, dtype=torch.int64, device=device)

    def add(self, *codes: Codes) -> None:
        """Take in one batch's codes, or those of several layers, whose latents are numbered one after the other.

        Of several processes each gives the codes of its own rows.
        """
        if self.data.size > 1:
            self._add_together(codes[0])
            return
        self.rows += codes[0].rows
        first = 0
        for part in codes:
            self.rows[first + part.index[part.value > 0].long()] = 0
            first += part.d_sae

    def _add_together(self, codes: Codes) -> None:
        found = torch.zeros(len(self.rows) + 1, dtype=torch.int64, device=self.rows.device)
        found[codes.index[codes.value > 0].long()] = 1
        found[-1] = codes.rows
        self.data.sum_(found)
        self.rows += found[-1]
        self.rows[found[:-1] > 0] = 0

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
    dead, latents = silence.dead(), d.world.latents
    counts = [len(part) for part in latents.gather(dead)]
    if not sum(counts) or d.is_transcoder:
        return
    error = (x - d.reconstruct(x)).square().sum(1)
    generator = torch.Generator().manual_seed(seed)
    # drawn on the CPU, so that every device draws alike
    drawn = torch.multinomial(error.clamp(min=1e-12).cpu(), sum(counts), replacement=True, generator=generator)
    first = sum(counts[: latents.rank])
    chosen = x[drawn[first : first + len(dead)].to(x.device)]
    directions = torch.nn.functional.normalize(chosen - d.b_dec, dim=1)
    alive = torch.ones(d.d_sae, dtype=torch.bool, device=x.device).index_fill(0, dead, False)
    length = _mean_length(d.encoder[alive], latents)
    d.W_dec[dead] = directions * _mean_length(d.W_dec[alive], latents)
    d.encoder[dead] = directions * length * RESAMPLED
    d.b_enc[dead] = 0.0
    for parameter in (d.encoder, d.W_dec, d.b_enc):
        moments = optimizer.state.get(parameter, {})
        for name in ("exp_avg", "exp_avg_sq"):
            if name in moments:
                moments[name][dead] = 0.0
    silence.rows[dead] = 0


def _mean_length(rows: Tensor, latents: Group) -> Tensor:
    norms = torch.cat(latents.gather(rows.norm(dim=1)))
    return norms.mean() if len(norms) else torch.tensor(1.0)
