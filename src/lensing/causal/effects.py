"""What each latent adds to a number of the model's output, everywhere it fires, with what the dictionary misses beside.

At a site h = sum of f_i W_dec[i] + b_dec + e, at every position. A node is one latent, or the error e, at one position;
its baseline is zero or its value in another text. `gradient` is the first-order estimate f W_dec . dm/dh, `ig` averages
that gradient along the straight way from the baseline to h (Marks et al. 2025, equations 1 to 3), and `exact` runs the
model with each node alone at its baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lensing.causal.metrics import Metric
from lensing.causal.nodes import judged
from lensing.causal.patch import Texts, check_pair
from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import check_fits
from lensing.draw.parts import parts_html
from lensing.errors import DictionaryError, PromptError, UsageError
from lensing.model.edit import Replace
from lensing.model.run import Model
from lensing.model.tokens import Tokens
from lensing.progress import Meter

Method = Literal["gradient", "ig", "exact"]


@final
@dataclass(frozen=True)
class Node:
    """One latent (or the error: `latent` None) of a site at one position (None: all), and what it adds to the metric.

    `change` is its activation less the baseline's, or the length of the error's change; summed over positions, the
    largest of them.
    """

    site: str
    latent: int | None
    position: int | None
    token: str | None
    change: float
    effect: float

    @property
    def label(self) -> str:
        """A short name: `resid_post.2 latent 17 @ the (3)`."""
        what = "error" if self.latent is None else f"latent {self.latent}"
        if self.position is None:
            return f"{self.site} {what}"
        token = self.token or ""
        return f"{self.site} {what} @ {token.strip() or repr(token)} ({self.position})"


@final
@dataclass(frozen=True)
class SiteEffect:
    """All nodes of a site together: their sum (latents and error apart), and what moving all of them at once does.

    `moved` is m(as it is) - m(all of the site's nodes at the baseline). `gap` is the sum less `moved`: the quadrature
    error of `ig`, and under the other methods how far effects are from adding up.
    """

    site: str
    latents: float
    error: float
    moved: float

    @property
    def gap(self) -> float:
        """(latents + error) - moved."""
        return self.latents + self.error - self.moved


@final
@dataclass(frozen=True)
class LatentEffects:
    """What latents and errors add to a metric: m with the node as it is less m with the node at its baseline."""

    metric: str
    method: Method
    baseline: str
    whole: float
    """The metric of the text as it is."""
    nodes: tuple[Node, ...]
    sites: tuple[SiteEffect, ...]

    def top(self, n: int = 10, *, by_position: bool = True) -> list[Node]:
        """Return the nodes with the largest effect either way, errors among them."""
        return sorted(self.nodes if by_position else self.summed(), key=lambda node: -abs(node.effect))[:n]

    def summed(self) -> list[Node]:
        """Return one node for each latent, and for each error, its effects summed over positions."""
        found: dict[tuple[str, int | None], list[Node]] = {}
        for node in self.nodes:
            found.setdefault((node.site, node.latent), []).append(node)
        return [
            Node(site, latent, None, None, max((n.change for n in some), key=abs), sum(n.effect for n in some))
            for (site, latent), some in found.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        sites = [asdict(site) | {"gap": site.gap} for site in self.sites]
        return asdict(self) | {"sites": sites, "nodes": [asdict(n) | {"label": n.label} for n in self.nodes]}

    def _repr_html_(self) -> str:
        total = sum(site.latents + site.error for site in self.sites)
        shown = [(node.label, node.effect) for node in self.top(20)]
        return parts_html(f"{self.metric}, {self.method}", shown, self.whole, total)


def latent_effects(
    model: Model,
    dictionaries: Dictionary | Sequence[Dictionary],
    text: Texts,
    metric: Metric,
    *,
    corrupt: Texts | None = None,
    method: Method = "gradient",
    steps: int = 8,
    rows: int = 64,
    quiet: bool = True,
) -> LatentEffects:
    """Return what every active latent, and every error, adds to a metric at each position of a text, or of many alike.

    The baseline is zero, or the nodes' values in `corrupt`, a text of as many tokens. Special tokens are left out. Of a
    transcoder, nodes are parts of what it writes. `steps` is for "ig" (the points of Gauss and Legendre), `rows` limits
    the runs of "exact" that are held at once. Over several texts of one length, effects and changes are means.

    Raises: UsageError: no dictionary, two of one site, an unknown method. PromptError: texts of several lengths.
    """
    if method not in ("gradient", "ig", "exact"):
        raise UsageError(f"There is no method {method!r}. Give 'gradient', 'ig' or 'exact'.")
    if steps < 1 or rows < 1:
        raise UsageError(f"steps is {steps} and rows {rows}. Give 1 or more.")
    some = [dictionaries] if isinstance(dictionaries, Dictionary) else list(dictionaries)
    written = [_written(model, d) for d in some]
    if not some or len(set(written)) < len(some):
        raise UsageError(f"There are {len(some)} dictionaries of {len(set(written))} sites. Give one for each site.")
    tokens = model.encode(text)
    other = None if corrupt is None else model.encode(corrupt)
    if other is not None:
        check_pair(tokens, other)
    elif not bool(tokens.mask.all()):
        raise PromptError(f"The texts have {tokens.lengths.tolist()} tokens. Give texts of one length.")
    sites = list(dict.fromkeys([*written, *(str(d.site) for d in some), *_streams(model, written)]))
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens, sites=sites)
        theirs = None if other is None else model.run_with_cache(other, sites=sites, stop=True)[1]
    assert logits is not None
    whole = float(metric(logits).double().mean())
    nodes: list[Node] = []
    totals: list[SiteEffect] = []
    with Meter("effects of latents", total=len(some), unit="sites", quiet=quiet) as meter:
        for dictionary, site in zip(some, written, strict=True):
            change = _Change(dictionary, site, tokens, cache, theirs)
            bench = _Bench(model, tokens, site, cache, metric)
            if method == "exact":
                found = change.nodes(bench.exact(change, rows))
            else:
                shares = [(1.0, 1.0)] if method == "gradient" else _quadrature(steps)
                found = change.nodes(change.along(bench.gradient(change, shares)))
            sums = [sum(n.effect for n in found if (n.latent is None) is error) for error in (False, True)]
            totals.append(SiteEffect(site, *sums, moved=whole - bench.without(change)))
            nodes += found
            meter.advance(1)
    baseline = "zero" if other is None else "the other text"
    return LatentEffects(metric.name, method, baseline, whole, tuple(nodes), tuple(totals))


def _written(model: Model, dictionary: Dictionary) -> str:
    check_fits(dictionary, model)
    if dictionary.parts:
        raise DictionaryError(f"{dictionary} joins several sites. Give dictionaries of one site each.")
    return str(model.resolve(dictionary.target or str(dictionary.site)))


def _quadrature(steps: int) -> list[tuple[float, float]]:
    """Points between 0 and 1 and their weights, which sum to 1 (Gauss and Legendre)."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    return [((1 + x) / 2, w / 2) for x, w in zip(points.tolist(), weights.tolist(), strict=True)]


def _streams(model: Model, sites: Sequence[str]) -> list[str]:
    return [f"resid_pre.{model.resolve(site).layer or 0}" for site in sites]


class _Change:
    """How far every node of one site is from its baseline, `[text, pos, ...]`, special tokens left out."""

    def __init__(self, dictionary: Dictionary, site: str, tokens: Tokens, cache: Any, theirs: Any) -> None:
        self.dictionary, self.site, self.tokens = dictionary, site, tokens
        codes, error = self._parts(cache)
        if theirs is not None:
            other, missed = self._parts(theirs)
            codes, error = codes - other, error - missed
        keep = ~tokens.special
        self.codes, self.error = codes * keep[..., None], error * keep[..., None]
        # latents that change anywhere, by position
        self.places = self.codes.ne(0).any(0).nonzero().tolist()

    @torch.no_grad()
    def _parts(self, cache: Any) -> tuple[Tensor, Tensor]:
        d = self.dictionary
        x, y = cache[str(d.site)].flatten(2), cache[self.site].flatten(2)
        codes = d.encode(x)
        error = y.to(d.W_dec) - d.decode(codes) - d.skipped(x)
        return codes.dense().view(*x.shape[:2], -1), error

    @property
    def whole(self) -> Float[Tensor, "text pos d_out"]:
        """All nodes together, as a change of the site; a skip connection's part stays."""
        return self.codes @ self.dictionary.W_dec.detach() + self.error

    def node(self, position: int, latent: int | None) -> Float[Tensor, "text pos d_out"]:
        """One node alone, as a change of the site."""
        alone = torch.zeros_like(self.error)
        d = self.dictionary
        vector = self.error[:, position] if latent is None else self.codes[:, position, latent, None] * d.W_dec[latent]
        alone[:, position] = vector.detach()
        return alone

    def all_nodes(self) -> list[tuple[int, int | None]]:
        """Position and latent (None: the error) of every node."""
        errors = self.error.ne(0).flatten(2).any(-1).any(0).nonzero()[:, 0].tolist()
        return [*((p, i) for p, i in self.places), *((p, None) for p in errors)]

    def along(self, gradient: Float[Tensor, "text pos d_out"]) -> dict[tuple[int, int | None], float]:
        """The mean over texts of every node's change along a gradient."""
        error = (self.error.double() * gradient).sum(-1).mean(0)
        latent = (self.codes.double() * (gradient @ self.dictionary.W_dec.detach().double().T)).mean(0)
        return {(p, i): float(error[p] if i is None else latent[p, i]) for p, i in self.all_nodes()}

    def nodes(self, effects: dict[tuple[int, int | None], float]) -> list[Node]:
        """The nodes with their effects, by position."""
        words = self.tokens.strings[0]
        found = []
        for (p, i), effect in sorted(effects.items(), key=lambda item: (item[0][0], item[0][1] is None, item[0][1])):
            change = self.error[:, p].norm(dim=-1) if i is None else self.codes[:, p, i]
            found.append(Node(self.site, i, p, words[p], float(change.mean()), effect))
        return found


class _Bench:
    """Runs of the texts that begin at the site's block."""

    def __init__(self, model: Model, tokens: Tokens, site: str, cache: Any, metric: Metric) -> None:
        self.model, self.tokens, self.site, self.metric = model, tokens, site, metric
        self.layer = model.resolve(site).layer or 0
        self.h, self.stream = cache[site], cache["resid_pre", self.layer]

    def gradient(self, change: _Change, shares: Sequence[tuple[float, float]]) -> Float[Tensor, "text pos d_out"]:
        """dm/dh of each text's metric, a weighed sum over shares of the way from baseline (0) to value (1)."""
        total = torch.zeros(change.error.shape, dtype=torch.float64, device=self.h.device)
        whole = change.whole.to(self.h).view_as(self.h)
        for share, weight in shares:
            value = (self.h - (1 - share) * whole).detach().requires_grad_()
            with self.model.edit(Replace(self.site, value)), torch.enable_grad():
                start = (("resid_pre", self.layer), self.stream)
                logits, _ = self.model.run_with_cache(self.tokens, start=start, grad="edits")
                assert logits is not None
                (g,) = torch.autograd.grad(self.metric(logits).sum(), value)
            total += g.flatten(2).double() * weight
        return total

    @torch.no_grad()
    def without(self, change: _Change) -> float:
        """The metric with all nodes at the baseline."""
        return float(self._run(change.whole[None])[0])

    @torch.no_grad()
    def exact(self, change: _Change, rows: int) -> dict[tuple[int, int | None], float]:
        """The metric as it is less the metric with one node at a time at the baseline."""
        every = change.all_nodes()
        step = max(rows // len(self.tokens.ids), 1)
        found: dict[tuple[int, int | None], float] = {}
        for first in range(0, len(every), step):
            some = every[first : first + step]
            # the first run changes nothing, so that both sides of a difference come from batches of one kind
            changes = [torch.zeros_like(change.error), *(change.node(p, i) for p, i in some)]
            at_rest, *values = self._run(torch.stack(changes)).tolist()
            found |= {node: at_rest - value for node, value in zip(some, values, strict=True)}
        return found

    def _run(self, changes: Float[Tensor, "run text pos d_out"]) -> Float[Tensor, " run"]:
        """The metric's mean over texts when a change is taken away, for each of several."""
        n = len(changes)
        value = self.h.repeat(n, *(1,) * (self.h.dim() - 1)) - changes.to(self.h).view(-1, *self.h.shape[1:])
        with self.model.edit(Replace(self.site, value)):
            return judged(self.model, self.tokens, n, (self.layer, self.stream.repeat(n, 1, 1)), self.metric)
