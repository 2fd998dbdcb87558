"""Path patching: what a head's output does along chosen paths only, everything else held (Wang et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lensing.causal.metrics import Metric
from lensing.causal.nodes import BY_HEAD, Nodes, place
from lensing.causal.patch import Patching, Texts, check_pair, way
from lensing.errors import UsageError
from lensing.model.cache import Cache
from lensing.model.edit import Edit, Replace
from lensing.model.run import Model
from lensing.model.tokens import Tokens
from lensing.progress import Meter

Receiver = tuple[str, int, int | None]


@torch.no_grad()
def path_patch(
    model: Model,
    clean: Texts,
    corrupt: Texts,
    metric: Metric,
    *,
    receivers: Sequence[Receiver] | Literal["logits"] = "logits",
    layers: Sequence[int] | None = None,
    mode: Literal["denoise", "noise"] = "denoise",
    hold_mlps: bool = True,
    quiet: bool = True,
) -> Patching:
    """Patch each head's output, at all positions, along the direct paths to some receivers, and measure the answer.

    The base text runs with one head's output from the source text while all other heads (and MLPs, unless they are not
    held) keep the base's; what the receivers, such as ("attn_q", 3, 1) or ("mlp_in", 2, None), then read is put into a
    run of the base text that is free otherwise. With "logits" the end of the stream is the receiver.
    """
    a, b = model.encode(clean), model.encode(corrupt)
    check_pair(a, b)
    if mode not in ("denoise", "noise"):
        raise UsageError(f"There is no mode {mode!r}. Give 'denoise' or 'noise'.")
    source, base = (a, b) if mode == "denoise" else (b, a)
    places = [] if receivers == "logits" else [_receiver(model, r) for r in receivers]
    if receivers != "logits" and not places:
        raise UsageError("There is no receiver. Give some, such as ('attn_q', 3, 1), or receivers='logits'.")
    # an MLP reads what the heads of its own layer write
    deepest = max((layer + kind.startswith(("mlp", "resid_mid")) for kind, layer, _ in places), default=model.n_layers)
    chosen = list(range(min(deepest, model.n_layers))) if layers is None else list(layers)
    for layer in chosen:
        place(model, "attn_z", layer)
        if layer >= deepest:
            raise UsageError(f"Heads of layer {layer} write after the receivers read. Give layers before {deepest}.")
    held = ["attn_z.*", *(["mlp_out.*"] if hold_mlps else [])]
    logits, theirs = model.run_with_cache(source, sites="attn_z.*")
    base_logits, ours = model.run_with_cache(base, sites=held)
    assert logits is not None
    assert base_logits is not None
    m_source, m_base = float(metric(logits).mean()), float(metric(base_logits).mean())
    raw = torch.zeros(len(chosen), model.n_heads, dtype=torch.float64)
    with Meter("patching paths", total=raw.numel(), unit="heads", quiet=quiet) as meter:
        for i, layer in enumerate(chosen):
            for head in range(model.n_heads):
                z = ours["attn_z", layer].clone()
                z[:, :, head] = theirs["attn_z", layer][:, :, head]
                raw[i, head] = _through(model, base, ours, layer, z, places, metric)
                meter.advance()
    nodes = Nodes("attn_z", tuple(chosen), None, tuple(range(model.n_heads)), tuple(a.strings[0]))
    names = (
        "logits" if not places else ", ".join(f"{k}.{n}" + ("" if h is None else f" head {h}") for k, n, h in places)
    )
    return Patching(
        nodes=nodes, metric=metric.name, mode=f"{mode}, paths to {names}", effect=way(raw, m_base, m_source), raw=raw,
        clean=m_source if mode == "denoise" else m_base, corrupt=m_base if mode == "denoise" else m_source,
        other_tokens=tuple(b.strings[0]),
    )  # fmt: skip


def _through(
    model: Model, base: Tokens, ours: Cache, layer: int, z: Tensor, places: Sequence[Receiver], metric: Metric
) -> float:
    held: list[Edit] = [Replace(site, z if site == f"attn_z.{layer}" else ours[site]) for site in ours]
    with model.edit(*held):
        if not places:
            return float(metric(model.logits(base)).double().mean())
        _, seen = model.run_with_cache(base, sites=[f"{kind}.{n}" for kind, n, _ in places], stop=True)
    sites = dict.fromkeys(f"{kind}.{n}" for kind, n, _ in places)
    _, now = model.run_with_cache(base, sites=list(sites), stop=True)
    edits: list[Edit] = []
    for site in sites:
        value = now[site].clone()
        for kind, n, head in places:
            if f"{kind}.{n}" == site:
                value = seen[site] if head is None else _with_head(value, seen[site], head)
        edits.append(Replace(site, value))
    with model.edit(*edits):
        return float(metric(model.logits(base)).double().mean())


def _with_head(value: Tensor, other: Tensor, head: int) -> Tensor:
    value = value.clone()
    value[:, :, head] = other[:, :, head]
    return value


def _receiver(model: Model, receiver: Receiver) -> Receiver:
    kind, layer, head = receiver
    site = place(model, kind, layer)
    if head is not None and (kind not in BY_HEAD or site.by_query):
        raise UsageError(f"{kind} has no heads to receive. Give attn_q, attn_k or attn_v with a head, or None.")
    heads = model.shape(site, 1, 1)[2] if head is not None else 1
    if head is not None and not 0 <= head < heads:
        raise UsageError(f"There are heads 0 to {heads - 1} at {site}. Give one of these.")
    return kind, layer, head
