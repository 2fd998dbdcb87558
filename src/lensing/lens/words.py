"""Which next words a direction of the residual stream speaks for and against, read straight through the unembedding."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.errors import ModelError
from lensing.model.run import Model

NUMBERS = 1 << 24  # of the unembedding, widened at once
STREAM = ("embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


def speaks_in_stream(model: Model, site: str) -> bool:
    """Whether what is written at a site stands in the residual stream as it is, so that its words can be read."""
    return model.resolve(site).kind in STREAM


@torch.no_grad()
def direct_words(model: Model, directions: Float[Tensor, "n d_model"]) -> Float[Tensor, "n vocab"]:
    """Return each direction's logits through the final norm's gain and the unembedding, less their mean over words.

    The norm's division by the stream's length is left out, and so is a cap: the order of words is what this shows.
    """
    final = model.adapter.final_norm
    norm = model.adapter.norm(final)
    if final is not None and norm is None:
        raise ModelError(f"The final norm of {model.name}, a {type(final).__name__}, is none that is known here.")
    d = directions.float() if norm is None else norm.linear(directions.float(), directions.new_ones(1).float())
    if model.adapter.project_out is not None:
        d = model.adapter.project_out(d)
    # some words at a time: a large vocabulary in float32 would be the largest tensor of all
    parts = [d @ part.to(d).T for part in model.W_U.T.split(max(NUMBERS // model.d_model, 1))]
    logits = torch.cat(parts, -1)
    return logits - logits.mean(-1, keepdim=True)
