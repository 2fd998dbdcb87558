"""Activation patching and ablation: run a text with one value of another in it, or none, and see what it does.

Nodes are sites by layer, position and head. A sweep resumes each run at the layer that is changed, many at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.causal.metrics import Metric
from lensing.causal.nodes import Nodes, choose, sweep_nodes
from lensing.draw.heat import heat_html
from lensing.errors import PromptError, UsageError
from lensing.model.run import Model
from lensing.model.tokens import Prompt, Tokens

Texts = Prompt | Sequence[Prompt] | Tokens


@final
@dataclass(frozen=True, eq=False)
class Patching:
    """How much of the way from the base text's answer to the source's each node brings, when patched alone.

    `effect` is (m - m_base) / (m_source - m_base), `raw` is m. Axes: layers, then positions and heads where these were
    told apart. With `mode` "denoise" the base is the corrupt text and the source the clean one; with "noise" the other
    way round, so that 1 means that the node alone destroys the answer.
    """

    nodes: Nodes
    metric: str
    mode: str
    effect: Float[Tensor, "n_layers ..."]
    raw: Float[Tensor, "n_layers ..."]
    clean: float
    corrupt: float
    other_tokens: tuple[str, ...]
    """Tokens of the corrupt text; those of the clean one are the nodes'."""

    def top(self, n: int = 10) -> list[tuple[str, float]]:
        """Return the nodes with the largest effect either way, with their labels."""
        return self.nodes.top(self.effect, n)

    def grid(self) -> tuple[list[str], list[str], Float[Tensor, "rows columns"]]:
        """Return names of rows and columns and the effects between them, for a heat map."""
        return self.nodes.grid(self.effect)

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            **self.nodes.to_json(), "metric": self.metric, "mode": self.mode, "effect": self.effect.tolist(),
            "raw": self.raw.tolist(), "clean": self.clean, "corrupt": self.corrupt,
            "other_tokens": list(self.other_tokens), "top": [{"node": n, "effect": e} for n, e in self.top()],
        }  # fmt: skip

    def _repr_html_(self) -> str:
        rows, columns, values = self.grid()
        return heat_html(f"{self.nodes.kind}: {self.metric}, {self.mode}", rows, columns, values.tolist())


@final
@dataclass(frozen=True, eq=False)
class Ablation:
    """What the metric loses or gains when one node at a time is ablated: `effect` is m without it less m."""

    nodes: Nodes
    metric: str
    method: str
    effect: Float[Tensor, "n_layers ..."]
    whole: float
    """The metric of the model as it is."""

    def top(self, n: int = 10) -> list[tuple[str, float]]:
        """Return the nodes with the largest effect either way, with their labels."""
        return self.nodes.top(self.effect, n)

    def grid(self) -> tuple[list[str], list[str], Float[Tensor, "rows columns"]]:
        """Return names of rows and columns and the effects between them, for a heat map."""
        return self.nodes.grid(self.effect)

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            **self.nodes.to_json(), "metric": self.metric, "method": self.method, "effect": self.effect.tolist(),
            "whole": self.whole, "top": [{"node": n, "effect": e} for n, e in self.top()],
        }  # fmt: skip

    def _repr_html_(self) -> str:
        rows, columns, values = self.grid()
        return heat_html(f"{self.nodes.kind}: {self.metric}, {self.method} ablation", rows, columns, values.tolist())


def patch(
    model: Model,
    clean: Texts,
    corrupt: Texts,
    metric: Metric,
    *,
    site: str = "resid_pre",
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | bool = True,
    heads: Sequence[int] | bool | None = None,
    mode: Literal["denoise", "noise"] = "denoise",
    rows: int = 64,
    quiet: bool = True,
) -> Patching:
    """Patch one kind of site, layer by layer, at every position and head asked for, and measure what it brings.

    Texts (one pair, or as many clean as corrupt ones) have one length; numbers are means over pairs. `positions` and
    `heads` are lists, True for each, False for all at once; heads are told apart by default where a site has heads.
    At most `rows` runs are held at a time. Meng et al. 2022; Wang et al. 2022; Zhang and Nanda 2023.
    """
    a, b = model.encode(clean), model.encode(corrupt)
    check_pair(a, b)
    if mode not in ("denoise", "noise"):
        raise UsageError(f"There is no mode {mode!r}. Give 'denoise' or 'noise'.")
    source, base = (a, b) if mode == "denoise" else (b, a)
    nodes = choose(model, a, site, layers, positions, heads)
    logits, caught = model.run_with_cache(source, sites=[(site, layer) for layer in nodes.layers])
    assert logits is not None
    m_source, m_base = float(metric(logits).mean()), float(metric(model.logits(base)).mean())
    values = {layer: caught[site, layer] for layer in nodes.layers}
    raw = sweep_nodes(model, base, nodes, values, metric, rows=rows, quiet=quiet)
    return Patching(
        nodes=nodes, metric=metric.name, mode=mode, effect=way(raw, m_base, m_source), raw=raw,
        clean=m_source if mode == "denoise" else m_base, corrupt=m_base if mode == "denoise" else m_source,
        other_tokens=tuple(b.strings[0]),
    )  # fmt: skip


def ablation(
    model: Model,
    texts: Texts,
    metric: Metric,
    *,
    site: str = "attn_z",
    method: Literal["zero", "mean", "resample"] = "mean",
    reference: Texts | None = None,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | bool = False,
    heads: Sequence[int] | bool | None = None,
    rows: int = 64,
    quiet: bool = True,
) -> Ablation:
    """Ablate one kind of site, a node at a time: with zero, its mean over a reference, or another text's value.

    The mean is over the texts of `reference` at each position where all have the length of `texts`, else over all
    their tokens that are not special. "resample" takes as many texts of one length. Numbers are means over texts.
    """
    tokens = model.encode(texts)
    if not bool(tokens.mask.all()):
        raise PromptError("Texts of several lengths cannot be ablated together. Give texts of one length.")
    nodes = choose(model, tokens, site, layers, positions, heads)
    sites = [(site, layer) for layer in nodes.layers]
    logits, own = model.run_with_cache(tokens, sites=sites)
    assert logits is not None
    if method == "zero":
        values = {layer: torch.zeros_like(own[site, layer]) for layer in nodes.layers}
    elif method not in ("mean", "resample"):
        raise UsageError(f"There is no ablation {method!r}. Give 'zero', 'mean' or 'resample'.")
    elif reference is None:
        raise UsageError(f"A {method} ablation needs other texts. Give reference=, or method='zero'.")
    else:
        other = model.encode(reference)
        _, theirs = model.run_with_cache(other, sites=sites)
        if method == "resample":
            check_pair(tokens, other)
        values = {
            layer: theirs[site, layer] if method == "resample" else _mean(theirs[site, layer], other, own[site, layer])
            for layer in nodes.layers
        }
    whole = float(metric(logits).mean())
    raw = sweep_nodes(model, tokens, nodes, values, metric, rows=rows, quiet=quiet)
    return Ablation(nodes=nodes, metric=metric.name, method=method, effect=raw - whole, whole=whole)


def way(raw: Tensor, base: float, source: float) -> Tensor:
    """The share of the way from base to source; not a number where there is no way between them."""
    return (raw - base) / (source - base if source != base else float("nan"))


def check_pair(clean: Tokens, corrupt: Tokens) -> None:
    """Raise PromptError unless both batches have as many texts, all of one length."""
    if clean.ids.shape != corrupt.ids.shape or not bool(clean.mask.all() & corrupt.mask.all()):
        raise PromptError(
            f"The texts have {clean.lengths.tolist()} and {corrupt.lengths.tolist()} tokens. Patching needs pairs of "
            "one length: change a word for one of as many tokens."
        )


def _mean(theirs: Tensor, other: Tokens, own: Tensor) -> Tensor:
    if theirs.shape[1:] == own.shape[1:] and bool(other.mask.all()):
        return theirs.mean(0, keepdim=True).expand_as(own)
    if theirs.dim() == 4 and theirs.shape[2] == theirs.shape[3]:
        raise PromptError("The mean of patterns needs reference texts of one length, that of the texts.")
    return theirs[~other.special].mean(0).expand_as(own)
