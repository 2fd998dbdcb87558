"""What a dictionary misses of one sentence, token by token: the vector, and the behaviour."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import check_fits
from lensing.dictionary.splice import Splice
from lensing.errors import DictionaryError
from lensing.measure.fvu import not_reconstructed
from lensing.measure.kl import cross_entropy, kl
from lensing.model.run import Model
from lensing.model.tokens import Tokens


@dataclass(frozen=True, eq=False)
class Gauges:
    """Per token of one text: the share of the vector that is missed, and the KL in nats of the splice.

    `vector` is |x - x_hat|^2 / |x - mu|^2; `vector_all` the same of the sums over counted tokens, which compares with
    the corpus's FVU. `kl` is KL(clean || spliced) of the next word at each token, the splice at all counted positions.
    `clean` and `spliced` are the last token's logits; `loss` and `loss_spliced` mean nats of the text's own next words
    (NaN where there are none).
    """

    counted: Bool[Tensor, " pos"]
    vector: Float[Tensor, " pos"]
    vector_all: float
    kl: Float[Tensor, " pos"]
    clean: Float[Tensor, " vocab"]
    spliced: Float[Tensor, " vocab"]
    loss: float
    loss_spliced: float


@torch.no_grad()
def gauges(model: Model, dictionary: Dictionary, tokens: Tokens) -> Gauges:
    """Reconstruct and splice one text, BOS left as it is.

    Raises: DictionaryError: a dictionary that does not fit the model, or without statistics.
    """
    check_fits(dictionary, model)
    if dictionary.statistics is None:
        raise DictionaryError(f"{dictionary} has no statistics to take the mean from. Train it again.")
    site = str(dictionary.site)
    logits, cache = model.run_with_cache(tokens, sites=[site])
    assert logits is not None
    with model.edit(Splice(dictionary)):
        spliced = model.logits(tokens)
    clean, spliced, counted = logits[0], spliced[0], ~tokens.special[0]
    x = cache[site][0].flatten(1)
    x_hat, mean = dictionary.reconstruct(x), dictionary.statistics.mean.to(x.device)
    share = not_reconstructed(x, x_hat, mean)
    size = (x.double() - mean.double()).square().sum(-1)
    at = counted[:-1]
    losses = [float(cross_entropy(run[:-1][at], tokens.ids[0, 1:][at]).mean()) for run in (clean, spliced)]
    return Gauges(
        counted=counted, vector=share, vector_all=float((share * size)[counted].sum() / size[counted].sum()),
        kl=kl(clean, spliced), clean=clean[-1], spliced=spliced[-1], loss=losses[0], loss_spliced=losses[1],
    )  # fmt: skip
