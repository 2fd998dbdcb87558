"""Two latents side by side, of one dictionary or of two at the same site: seeds, widths, methods."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, final

import torch

from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import refuse_unknown_latent

NEAREST = 8


@final
@dataclass(frozen=True)
class Comparison:
    """Cosines of two latents' decoder and encoder directions, and the latents of the second one nearest the first.

    All are None or nothing where the dictionaries do not write vectors of one site.
    """

    same_site: bool
    decoder: float | None
    encoder: float | None
    nearest: tuple[tuple[int, float], ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


@torch.no_grad()
def compare(one: Dictionary, a: int, two: Dictionary, b: int) -> Comparison:
    """Return how alike latent `a` of one dictionary and `b` of another (or the same) are."""
    refuse_unknown_latent(one, a)
    refuse_unknown_latent(two, b)
    if (one.target or one.site) != (two.target or two.site) or one.W_dec.shape[1] != two.W_dec.shape[1]:
        return Comparison(False, None, None, ())
    cosine = torch.nn.functional.cosine_similarity(two.W_dec.float(), one.W_dec[a].float()[None], dim=1)
    encoder = None
    if one.site == two.site:
        encoder = float(torch.nn.functional.cosine_similarity(one.W_enc[:, a].float(), two.W_enc[:, b].float(), dim=0))
    decoder = float(cosine[b])
    if one is two:
        cosine[a] = -2.0
    best = cosine.topk(min(NEAREST, len(cosine) - (one is two)))
    nearest = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Comparison(True, decoder, encoder, tuple(nearest))
