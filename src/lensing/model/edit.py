"""Edits: what is done to a site's tensor on its way through the forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lensing.errors import UsageError

if TYPE_CHECKING:
    from lensing.model.sites import Site

At = Literal["all", "prompt", "generated"] | slice | int


@dataclass(frozen=True)
class EditContext:
    """Where the chunk of tokens being computed stands; under the KV cache a chunk is one new token a row."""

    positions: Int[Tensor, " pos"]
    prompt_length: int
    lengths: Int[Tensor, " batch"]
    special: Bool[Tensor, "batch pos"]

    @property
    def batch(self) -> int:
        """The number of rows."""
        return self.special.shape[0]


def where(ctx: EditContext, at: At = "all", include_special: bool = False) -> Bool[Tensor, "batch pos"]:
    """Return which positions of the chunk `at` means, leaving out BOS and padding unless `include_special`.

    Positions count from 0 over prompt and continuation; negative ones count back from the end of each row's prompt.
    """
    positions = ctx.positions[None, :].expand(ctx.batch, -1)
    if at == "all":
        chosen = torch.ones_like(ctx.special)
    elif at == "prompt":
        chosen = positions < ctx.prompt_length
    elif at == "generated":
        chosen = positions >= ctx.prompt_length
    elif isinstance(at, int) and not isinstance(at, bool):
        chosen = positions == _from_end(at, ctx)
    elif isinstance(at, slice):
        first = _from_end(at.start or 0, ctx)
        chosen = positions >= first
        if at.stop is not None:
            chosen = chosen & (positions < _from_end(at.stop, ctx))
        if at.step not in (None, 1):
            if at.step < 1:
                raise UsageError(f"A slice of positions cannot have the step {at.step}. Give a step of 1 or more.")
            chosen = chosen & ((positions - first) % at.step == 0)
    else:
        raise UsageError(f"There are no positions {at!r}. Give 'all', 'prompt', 'generated', a slice or a number.")
    return chosen if include_special else chosen & ~ctx.special


def _from_end(position: int, ctx: EditContext) -> Int[Tensor, "batch 1"]:
    start = torch.full_like(ctx.lengths, position)
    return (start + ctx.lengths if position < 0 else start)[:, None]


class Edit(ABC):
    """One change at one site (or pattern of sites); `apply` is called once for every chunk of the forward pass."""

    site: str | tuple[str, int] | Site

    @abstractmethod
    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        """Return the new value of the site, of the same shape; `h` itself must not be changed in place."""


class Replace(Edit):
    """Put `value` at the site: `[batch, pos, ...]` (or batch 1) by absolute position, or as in `Add`."""

    def __init__(
        self, site: str | tuple[str, int] | Site, value: Tensor, *, at: At = "all", include_special: bool = True
    ) -> None:
        self.site, self.value, self.at, self.include_special = site, value, at, include_special

    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        chosen = where(at, self.at, self.include_special)
        value = self.value.to(h)
        if value.dim() == h.dim():
            inside = at.positions < value.shape[1]  # tokens beyond the stored value keep what they have
            value = value[:, at.positions.clamp(max=value.shape[1] - 1)]
            chosen = chosen & inside[None, :]
        else:
            value = _broadcast(value, h)
        try:
            return torch.where(_like(chosen, h), value, h)
        except RuntimeError as error:
            raise _shape_error(self.value, h) from error


class Add(Edit):
    """Add a vector at the site: `[d]` for every row, or `[batch, d]` for each row its own; specials are left out."""

    def __init__(
        self, site: str | tuple[str, int] | Site, vector: Tensor, *, at: At = "all", include_special: bool = False
    ) -> None:
        self.site, self.vector, self.at, self.include_special = site, vector, at, include_special

    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        chosen = where(at, self.at, self.include_special)
        try:
            return torch.where(_like(chosen, h), h + _broadcast(self.vector.to(h), h), h)
        except RuntimeError as error:
            raise _shape_error(self.vector, h) from error


class Apply(Edit):
    """Apply any function of the tensor at the site; it sees `[batch, pos, ...]` and returns the same shape."""

    def __init__(self, site: str | tuple[str, int] | Site, function: Callable[[Tensor], Tensor]) -> None:
        self.site, self.function = site, function

    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        return self.function(h)


def _like(chosen: Bool[Tensor, "batch pos"], h: Tensor) -> Bool[Tensor, "batch pos ..."]:
    return chosen.reshape(*chosen.shape, *[1] * (h.dim() - 2))


def _broadcast(vector: Tensor, h: Tensor) -> Tensor:
    """Give `[...]` or `[batch, ...]` the missing axes of `[batch, pos, ...]`."""
    feature = h.dim() - 2
    if vector.dim() == feature and vector.shape == h.shape[2:]:
        return vector
    if vector.dim() == feature + 1 and vector.shape[0] in (1, h.shape[0]) and vector.shape[1:] == h.shape[2:]:
        return vector.unsqueeze(1)
    raise _shape_error(vector, h)


def _shape_error(vector: Tensor, h: Tensor) -> UsageError:
    want, rows = list(h.shape[2:]), h.shape[0]
    return UsageError(
        f"A tensor of shape {list(vector.shape)} does not fit this site. Give {want}, or {[rows, *want]} for one a row."
    )
