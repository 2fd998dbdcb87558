"""Which next words a direction of the residual stream speaks for and against, read straight through the unembedding."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.model.run import Model

STREAM = ("embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


def speaks_in_stream(model: Model, site: str) -> bool:
    """Whether what is written at a site stands in the residual stream as it is, so that its words can be read."""
    return model.resolve(site).kind in STREAM


@torch.no_grad()
def direct_words(model: Model, directions: Float[Tensor, "n d_model"]) -> Float[Tensor, "n vocab"]:
    """Return each direction's logits through the final norm's gain and the unembedding, less their mean over words.

    The norm's division by the stream's length is left out, and so is a cap: the order of words is what this shows.
    """
    gain, centres = _gain(model)
    d = directions.to(gain)
    d = (d - d.mean(-1, keepdim=True) if centres else d) * gain
    if model.adapter.project_out is not None:
        d = model.adapter.project_out(d)
    logits = d @ model.W_U.to(d)
    return logits - logits.mean(-1, keepdim=True)


def _gain(model: Model) -> tuple[Float[Tensor, " d_model"], bool]:
    """Return what the final norm multiplies each coordinate by, and whether it takes the mean away, by numbers."""
    d, norm = model.d_model, model.adapter.final_norm
    if norm is None:
        return torch.ones(d, device=model.device), False
    # mean 0, no entry 0: the norm divides it by its length alone
    probe = torch.ones(d, device=model.device)
    probe[::2] = -1.0
    if d % 2:
        probe[-3:] = torch.tensor([1.0, 1.0, -2.0])
    probe = probe.to(model.dtype)
    scale = probe.float().square().mean().sqrt()
    # a bias cancels in the difference
    gain = (norm(probe) - norm(-probe)).float() / 2 * scale / probe.float()
    shifted = (norm(probe + 1) - norm(-probe - 1)).float() / 2 * scale / probe.float()
    return gain, bool(torch.allclose(shifted, gain, rtol=1e-2))
