"""Attribution patching: what activation patching would bring, from gradients, all nodes at once.

`gradient` is the first-order estimate at the base text (Nanda 2023; Syed et al. 2023); `ig` averages the gradient over
texts whose embeddings lie between base and source (EAP-IG, Hanna et al. 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lensing.causal.metrics import Metric
from lensing.causal.nodes import BY_HEAD, choose, place
from lensing.causal.patch import Patching, Texts, check_pair, way
from lensing.errors import UsageError
from lensing.model.run import Model
from lensing.model.sites import Site
from lensing.model.tokens import Tokens


def attribute(
    model: Model,
    clean: Texts,
    corrupt: Texts,
    metric: Metric,
    *,
    site: str = "resid_pre",
    layers: Sequence[int] | None = None,
    method: Literal["gradient", "ig"] = "gradient",
    steps: int = 5,
    mode: Literal["denoise", "noise"] = "denoise",
) -> Patching:
    """Estimate what `patch` measures at every position (and head) of a kind of site: (source - base) . dm/d(site).

    Two forward passes and one backward one, or `steps` of each for "ig", instead of one run for every node. Numbers are
    means over pairs, and in the same units as those of `patch`: 1 is the whole way from base to source.
    """
    a, b = model.encode(clean), model.encode(corrupt)
    check_pair(a, b)
    if mode not in ("denoise", "noise") or method not in ("gradient", "ig"):
        raise UsageError(
            f"There is no mode {mode!r} with method {method!r}. Give 'denoise' or 'noise', 'gradient' or 'ig'."
        )
    if steps < 1:
        raise UsageError(f"steps is {steps}. Give 1 or more.")
    source, base = (a, b) if mode == "denoise" else (b, a)
    nodes = choose(model, a, site, layers, True, None)
    chosen = [place(model, site, layer) for layer in nodes.layers]
    names = [s.name for s in chosen]
    logits, theirs = model.run_with_cache(source, sites=[*names, "embed"])
    base_logits, ours = model.run_with_cache(base, sites=[*names, "embed"])
    assert logits is not None
    assert base_logits is not None
    m_source, m_base = float(metric(logits).mean()), float(metric(base_logits).mean())
    gradients = [torch.zeros_like(ours[s], dtype=torch.float64) for s in chosen]
    shares = [0.0] if method == "gradient" else [k / steps for k in range(1, steps + 1)]
    for share in shares:
        mixed = ours["embed"] + share * (theirs["embed"] - ours["embed"])
        for total, g in zip(gradients, _gradients(model, base, mixed, chosen, metric), strict=True):
            total += g.double() / len(shares)
    effects = []
    for s, g in zip(chosen, gradients, strict=True):
        each = (theirs[s].double() - ours[s].double()) * g
        if s.by_query:
            each = each.sum(-1).transpose(1, 2)  # over keys: position, head
        elif each.dim() == 4 or site not in BY_HEAD:
            each = each.sum(-1)
        effects.append(each.mean(0))
    change = torch.stack(effects)
    return Patching(
        nodes=nodes, metric=metric.name, mode=f"{mode}, {method}", effect=way(change, 0.0, m_source - m_base),
        raw=change + m_base, clean=m_source if mode == "denoise" else m_base,
        corrupt=m_base if mode == "denoise" else m_source, other_tokens=tuple(b.strings[0]),
    )  # fmt: skip


def _gradients(model: Model, tokens: Tokens, embed: Tensor, chosen: Sequence[Site], metric: Metric) -> list[Tensor]:
    start = embed.detach().requires_grad_()
    logits, cache = model.run_with_cache(
        tokens, sites=[s.name for s in chosen], start=(("resid_pre", 0), start), grad="edits"
    )
    assert logits is not None
    with torch.enable_grad():
        return list(torch.autograd.grad(metric(logits).sum(), [cache[s] for s in chosen]))
