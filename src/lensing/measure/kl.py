"""Distance between next-token distributions, in nats."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 1 << 22  # numbers a chunk: large vocabularies are taken a few positions at a time


def kl(p: Float[Tensor, "*leading vocab"], q: Float[Tensor, "*leading vocab"]) -> Float[Tensor, "*leading"]:
    """KL(p || q) in nats at every position, from logits, in float64."""
    step = max(CHUNK // p.shape[-1], 1)
    flat_p, flat_q = (x.reshape(-1, p.shape[-1]).split(step) for x in (p, q))
    parts = [kl_to_each(a, [b])[0] for a, b in zip(flat_p, flat_q, strict=True)]
    return torch.cat(parts).view(p.shape[:-1])


def kl_to_each(
    p: Float[Tensor, "rows vocab"], qs: Iterable[Float[Tensor, "rows vocab"]]
) -> list[Float[Tensor, " rows"]]:  # fmt: skip
    """KL(p || q) as `kl` gives it, of each q; what p alone decides is made once, whole and in float64."""
    log_p = p.double().log_softmax(-1)
    share = log_p.exp()
    own = _mean(share, log_p)
    step = max(CHUNK // p.shape[-1], 1)
    found = []
    for q in qs:
        parts = zip(share.split(step), q.split(step), strict=True)
        found.append((own - torch.cat([_mean(a, b.double().log_softmax(-1)) for a, b in parts])).clamp(min=0))
    return found


def _mean(share: Tensor, log_q: Tensor) -> Tensor:
    """The mean of ln q under p; where p is zero the term is zero, whatever q says."""
    found = (share * log_q).sum(-1)
    return torch.where(share > 0, share * log_q, 0.0).sum(-1) if bool(found.isnan().any()) else found


def cross_entropy(
    logits: Float[Tensor, "*leading vocab"], targets: Int[Tensor, "*leading"]
) -> Float[Tensor, "*leading"]:
    """-log p(target) in nats at every position, from logits, in float64."""
    flat, wanted = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    step = max(CHUNK // logits.shape[-1], 1)
    parts = [
        -a.double().log_softmax(-1).gather(1, t[:, None])[:, 0]
        for a, t in zip(flat.split(step), wanted.split(step), strict=True)
    ]
    return torch.cat(parts).view(targets.shape)
