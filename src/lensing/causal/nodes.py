"""Nodes, a kind of site by layer, position and head, and runs in which one node at a time holds another value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.causal.metrics import Metric
from lensing.errors import UsageError
from lensing.model.edit import Edit, EditContext
from lensing.model.ends import ends
from lensing.model.run import Model
from lensing.model.sites import Site, SiteName
from lensing.model.tokens import Tokens
from lensing.progress import Meter

BY_HEAD = ("attn_q", "attn_k", "attn_v", "attn_z", "attn_pattern", "attn_scores")


@final
@dataclass(frozen=True)
class Nodes:
    """Which nodes: layers, then positions and heads where these are told apart (None: all at once)."""

    kind: str
    layers: tuple[int, ...]
    positions: tuple[int, ...] | None
    heads: tuple[int, ...] | None
    tokens: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes of numbers by node."""
        return tuple(len(axis) for axis in (self.layers, self.positions, self.heads) if axis is not None)

    @property
    def each(self) -> list[tuple[int | None, int | None]]:
        """Position and head of the nodes of one layer, in order."""
        return [(p, h) for p in self.positions or (None,) for h in self.heads or (None,)]

    def label(self, flat: int) -> str:
        """The name of a node by its place among all of them."""
        place = [int(v) for v in torch.unravel_index(torch.tensor(flat), self.shape)]
        name, axis = f"{self.kind}.{self.layers[place[0]]}", 1
        if self.positions is not None:
            position = self.positions[place[axis]]
            name, axis = f"{name} at {self.tokens[position]!r} ({position})", axis + 1
        return name if self.heads is None else f"{name} head {self.heads[place[axis]]}"

    def top(self, values: Tensor, n: int) -> list[tuple[str, float]]:
        """Return the nodes whose values are largest either way, with their labels."""
        flat = values.flatten().nan_to_num(0.0)
        return [(self.label(i), float(flat[i])) for i in flat.abs().argsort(descending=True)[:n].tolist()]

    def grid(self, values: Tensor) -> tuple[list[str], list[str], Float[Tensor, "rows columns"]]:
        """Return names of rows and columns and the values between them, for a heat map: layers (by head) as rows."""
        rows = [str(layer) for layer in self.layers]
        if self.positions is None:
            columns = [f"head {h}" for h in self.heads] if self.heads is not None else [self.kind]
            return rows, columns, values.reshape(len(rows), -1)
        if self.heads is not None:
            rows = [f"{layer}.{head}" for layer in self.layers for head in self.heads]
            values = values.transpose(1, 2).flatten(0, 1)
        return rows, [self.tokens[p] for p in self.positions], values

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "kind": self.kind, "layers": list(self.layers), "positions": self.positions and list(self.positions),
            "heads": self.heads and list(self.heads), "tokens": list(self.tokens),
        }  # fmt: skip


def choose(
    model: Model, tokens: Tokens, kind: str, layers: Sequence[int] | None, positions: Sequence[int] | bool,
    heads: Sequence[int] | bool | None,
) -> Nodes:  # fmt: skip
    """Return the nodes that are asked for; `positions` and `heads` are lists, True for each, False for all at once.

    Raises: SiteError: the model cannot give the site. UsageError: a position or a head is not there.
    """
    chosen = range(model.n_layers) if layers is None else layers
    if not chosen:
        raise UsageError("There is no layer to change. Give layers= at least one, or leave it out.")
    shape = [model.shape(place(model, kind, layer), 1, tokens.ids.shape[1]) for layer in chosen].pop()
    by_head = kind in BY_HEAD if heads is None else heads is not False
    if by_head and kind not in BY_HEAD:
        raise UsageError(f"{kind} has no heads. Leave heads= out.")
    n_heads = shape[1 if kind in ("attn_pattern", "attn_scores") else 2]
    which = range(n_heads) if heads is None or isinstance(heads, bool) else heads
    if by_head and any(not 0 <= h < n_heads for h in which):
        raise UsageError(f"There are heads 0 to {n_heads - 1} at {kind}. Give some of these.")
    length = tokens.ids.shape[1]
    span = range(length) if positions is True else () if positions is False else positions
    for p in span:
        if not -length <= p < length:
            raise UsageError(f"There is no position {p} in {length} tokens. Give {-length} to {length - 1}.")
    return Nodes(
        kind, tuple(chosen), tuple(p % length for p in span) or None, tuple(which) if by_head else None,
        tuple(tokens.strings[0]),
    )  # fmt: skip


def place(model: Model, kind: str, layer: int) -> Site:
    """Return the site of a kind at a layer; SiteError where the model cannot give it."""
    site = model.resolve((kind, layer))
    model.adapter.place(site)
    return site


class _Write(Edit):
    """Writes into row i of a batch the source's value at its own position and head; None means all of them."""

    def __init__(
        self, site: SiteName, source: Tensor, nodes: Sequence[tuple[int | None, int | None]], texts: int
    ) -> None:
        self.site, self.source, self.nodes, self.texts = site, source, nodes, texts

    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        out = h.clone()
        for i, (position, head) in enumerate(self.nodes):
            rows = slice(i * self.texts, (i + 1) * self.texts)
            p, n = (slice(None) if x is None else slice(x, x + 1) for x in (position, head))
            # scores and patterns are by head, then query; the others by position, then head
            where = (rows, n, p) if at.pos_axis == 2 else (rows, p, n) if h.dim() == 4 else (rows, p)
            out[where] = self.source[(slice(None), *where[1:])].to(h)
        return out


@torch.no_grad()
def sweep_nodes(
    model: Model, base: Tokens, nodes: Nodes, source: Mapping[int, Tensor], metric: Metric, *, rows: int, quiet: bool
) -> Float[Tensor, "n_layers ..."]:
    """Return the metric's mean over texts for each node, when it alone holds the source's value, in float64.

    `source` has by layer a tensor of the site's shape over all texts. Each layer's runs begin at that layer, many nodes
    at a time, at most `rows` rows.
    """
    texts = len(base.ids)
    step = max(rows // texts, 1)
    _, cache = model.run_with_cache(base, sites=[("resid_pre", layer) for layer in nodes.layers], stop=True)
    each = nodes.each
    raw = torch.zeros(len(nodes.layers), len(each), dtype=torch.float64)
    with Meter(f"patching {nodes.kind}", total=raw.numel(), unit="nodes", quiet=quiet) as meter:
        for i, layer in enumerate(nodes.layers):
            resid = cache["resid_pre", layer]
            for first in range(0, len(each), step):
                some = each[first : first + step]
                n = len(some)
                with model.edit(_Write((nodes.kind, layer), source[layer], some, texts)):
                    raw[i, first : first + n] = judged(model, base, n, (layer, resid.repeat(n, 1, 1)), metric)
                meter.advance(n)
    return raw.reshape(nodes.shape)


def judged(
    model: Model, base: Tokens, times: int, start: tuple[int, Tensor], metric: Metric
) -> Float[Tensor, " times"]:
    """Return the metric's mean over texts, in float64, for each of several runs that begin at a block, as edited."""
    # a metric that looks at one position is given no other
    position = getattr(metric, "position", None)
    judge = metric if position is None else replace(metric, position=-1)  # type: ignore[type-var]
    tokens = base.repeat(times)
    where = torch.zeros_like(tokens.mask)
    where[:, slice(None) if position is None else position] = True
    logits = ends(model, tokens, where, start=start).logits().view(len(tokens.ids), -1, model.d_vocab)
    return torch.stack([judge(part).double().mean() for part in logits.split(len(base.ids))]).cpu()
