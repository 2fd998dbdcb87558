"""Distance between next-token distributions, in nats."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 1 << 22  # numbers a chunk: large vocabularies are taken a few positions at a time


def kl(p: Float[Tensor, "*leading vocab"], q: Float[Tensor, "*leading vocab"]) -> Float[Tensor, "*leading"]:
    """KL(p || q) in nats at every position, from logits, in float64."""
    flat_p, flat_q = p.reshape(-1, p.shape[-1]), q.reshape(-1, q.shape[-1])
    step = max(CHUNK // p.shape[-1], 1)
    parts = []
    for a, b in zip(flat_p.split(step), flat_q.split(step), strict=True):
        log_a, log_b = a.double().log_softmax(-1), b.double().log_softmax(-1)
        # where p is zero the term is zero, whatever q says
        parts.append(torch.where(log_a > -torch.inf, log_a.exp() * (log_a - log_b), 0.0).sum(-1).clamp(min=0))
    return torch.cat(parts).view(p.shape[:-1])


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
