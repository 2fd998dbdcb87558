"""Labels by meaning: an embedding model that is loaded here, exact cosines, nothing sent anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.errors import UsageError
from lensing.model.run import Model

BATCH_TOKENS = 4096


@final
class Meaning:
    """Vectors of texts, by a decoder that was trained to embed (Qwen3-Embedding, e5-mistral): its last token's state
    after the final norm.

    A model that was not trained for it gives vectors too; how well they tell meanings apart is then anybody's guess.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @torch.no_grad()
    def vectors(self, texts: Sequence[str]) -> Float[Tensor, "texts d_model"]:
        """Return one vector of length 1 for each text, texts longer than the context cut at its end.

        Raises: UsageError: no text, or an empty one.
        """
        if not texts or any(not text.strip() for text in texts):
            raise UsageError("There is no text to embed. Give at least one word.")
        rows = [self.model.encode(text).ids[0][: self.model.context] for text in texts]
        out = torch.empty(len(rows), self.model.d_model)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        while order:
            step = max(BATCH_TOKENS // len(rows[order[0]]), 1)
            some, order = order[:step], order[step:]
            tokens = self.model.encode([rows[i] for i in some])
            _, cache = self.model.run_with_cache(tokens, sites=["final_norm"], stop=True)
            out[some] = cache["final_norm"][torch.arange(len(some)), tokens.lengths - 1].float().cpu()
        return torch.nn.functional.normalize(out, dim=1)


def nearest(
    query: Float[Tensor, " d_model"], vectors: Float[Tensor, "texts d_model"], n: int
) -> list[tuple[int, float]]:
    """Return the `n` texts of largest cosine, largest first."""
    best = (vectors @ query).topk(min(n, len(vectors)))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
