"""Which parts of the residual stream speak for a word: exact sums at frozen norm scales, split as finely as asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.draw.parts import parts_html

By = Literal["component", "head", "source", "neuron", "latent"]


@final
@dataclass(frozen=True)
class Part:
    """One addend: what it is, where it stands, and what it adds.

    `kind` is embed, attn, head, source (a head and the token it reads), mlp, neuron, latent, error (of a dictionary) or
    bias. `position` is the token that a source part reads from.
    """

    kind: str
    value: float
    layer: int | None = None
    index: int | None = None
    position: int | None = None
    token: str | None = None

    @property
    def label(self) -> str:
        """A short name: `L5H3`, `L5H3 <- the`, `mlp 4`, `neuron 4.17`, `latent 2.301`."""
        if self.kind == "head":
            return f"L{self.layer}H{self.index}"
        if self.kind == "source":
            return f"L{self.layer}H{self.index} <- {self.token} ({self.position})"
        if self.kind in ("neuron", "latent"):
            return f"{self.kind} {self.layer}.{self.index}"
        return self.kind if self.layer is None else f"{self.kind} {self.layer}"


@final
@dataclass(frozen=True, eq=False)
class Attribution:
    """Parts that sum to a number of the model, and how far the sum is from it.

    `whole` is the number itself, as the model computed it: a logit or a difference of two, before any soft cap
    (`capped` is what the cap makes of it, None for a difference or without a cap). `error` is |sum - whole|.
    """

    what: str
    parts: tuple[Part, ...]
    whole: float
    capped: float | None
    by: str
    scale: float
    """The final norm's scale at the position, held as it was."""

    @property
    def total(self) -> float:
        """The sum of the parts, in float64."""
        return float(torch.tensor([p.value for p in self.parts], dtype=torch.float64).sum())

    @property
    def error(self) -> float:
        """How far the sum of the parts is from the model's own number."""
        return abs(self.total - self.whole)

    def top(self, n: int = 10, kind: str | None = None) -> list[Part]:
        """Return the parts that add or take away most, largest first."""
        chosen = [p for p in self.parts if kind is None or p.kind == kind]
        return sorted(chosen, key=lambda p: -abs(p.value))[:n]

    def table(self, kind: str) -> Float[Tensor, "n_layers n"]:
        """Return the values of one kind of part by layer and index; parts that are not there are 0."""
        some = [p for p in self.parts if p.kind == kind and p.layer is not None and p.index is not None]
        shape = [1 + max(p.layer or 0 for p in some), 1 + max(p.index or 0 for p in some)] if some else [0, 0]
        found = torch.zeros(*shape, dtype=torch.float64)
        for p in some:
            found[p.layer, p.index] += p.value  # type: ignore[index]
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "what": self.what, "by": self.by, "whole": self.whole, "capped": self.capped, "total": self.total,
            "error": self.error, "scale": self.scale,
            "parts": [
                {"kind": p.kind, "layer": p.layer, "index": p.index, "position": p.position, "token": p.token,
                 "label": p.label, "value": p.value}
                for p in self.parts
            ],
        }  # fmt: skip

    def _repr_html_(self) -> str:
        return parts_html(self.what, [(p.label, p.value) for p in self.top(20)], self.whole, self.total)
