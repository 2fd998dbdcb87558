"""Edits: what is done to a site's tensor on its way through the forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lensing.errors import UsageError

if TYPE_CHECKING:
    from lensing.model.sites import Site
    from lensing.model.tokens import Tokens

At = str | slice | int | Tensor  # "all", "prompt", "generated", or the role whose turns of a chat are meant
REPLY = "assistant"  # who says what is generated


@dataclass(frozen=True)
class EditContext:
    """Where the chunk of tokens being computed stands; under the KV cache a chunk is one new token a row.

    `positions` are columns of the padded batch; `offsets` says how many of them are padding before each row's first
    token. Positions lie on axis `pos_axis` of what an edit sees (2 for scores and patterns). `parts` is how a
    dictionary offers its inner values; it is None where nobody asked for them. `tokens` is the prompt. `ends` says that
    nothing comes after this chunk, so that a position which is not there will not come either.
    """

    positions: Int[Tensor, " pos"]
    prompt_length: int
    lengths: Int[Tensor, " batch"]
    special: Bool[Tensor, "batch pos"]
    offsets: Int[Tensor, " batch"] | None = None
    pos_axis: int = 1
    parts: Callable[[str], Callable[[Tensor], Tensor] | None] | None = None
    tokens: Tokens | None = None
    ends: bool = False

    @classmethod
    def whole(cls, tokens: Tokens) -> EditContext:
        """Where a whole prompt stands."""
        length = tokens.ids.shape[1]
        positions = torch.arange(length, device=tokens.ids.device)
        return cls(positions, length, tokens.lengths, tokens.special, tokens.offsets, tokens=tokens, ends=True)

    def to(self, device: torch.device) -> EditContext:
        """The same with its tensors on a device, as blocks of a model may lie on several."""
        if self.positions.device == device:
            return self
        moved = {name: getattr(self, name).to(device) for name in ("positions", "lengths", "special")}
        offsets = None if self.offsets is None else self.offsets.to(device)
        return replace(self, **moved, offsets=offsets, tokens=None if self.tokens is None else self.tokens.to(device))

    def offer(self, part: str, value: Callable[[], Tensor]) -> Tensor | None:
        """Return a dictionary's inner value as edited; None, and `value` not computed, where nobody asked for it."""
        visit = self.parts(part) if self.parts is not None else None
        return None if visit is None else visit(value())

    @property
    def batch(self) -> int:
        """The number of rows."""
        return self.special.shape[0]


def where(ctx: EditContext, at: At = "all", include_special: bool = False) -> Bool[Tensor, "batch pos"]:
    """Return which positions of the chunk `at` means, leaving out BOS and padding unless `include_special`.

    Positions count from 0 over each row's prompt and continuation; negative ones count back from the end of each row's
    prompt. A tensor of booleans, `[pos]` or `[batch, pos]`, marks positions of the padded prompt. Of a chat, a role
    means what its turns say ("template": what the chat template wrote), and "assistant" also all that is generated.
    """
    positions = ctx.positions[None, :].expand(ctx.batch, -1)
    if isinstance(at, Tensor):
        return _marked(at, ctx) if include_special else _marked(at, ctx) & ~ctx.special
    if isinstance(at, str) and at not in ("all", "prompt", "generated"):
        return _said(at, ctx, positions) if include_special else _said(at, ctx, positions) & ~ctx.special
    in_prompt = positions < ctx.prompt_length
    if ctx.offsets is not None:
        positions = positions - ctx.offsets[:, None]
    if at == "all":
        chosen = torch.ones_like(ctx.special)
    elif at == "prompt":
        chosen = in_prompt
    elif at == "generated":
        chosen = ~in_prompt
    elif isinstance(at, int) and not isinstance(at, bool):
        chosen = positions == _from_end(at, ctx)
        if ctx.ends:
            _check_there(at, ctx, chosen, include_special)
    elif isinstance(at, slice):
        if ctx.ends and (at.start or 0) >= (longest := int(ctx.lengths.max())):
            raise UsageError(
                f"There are no positions from {at.start} on in {longest} tokens. Give a slice within them."
            )
        first = _from_end(at.start or 0, ctx)
        chosen = positions >= first
        if at.stop is not None:
            chosen = chosen & (positions < _from_end(at.stop, ctx))
        if at.step not in (None, 1):
            if at.step < 1:
                raise UsageError(f"A slice of positions cannot have the step {at.step}. Give a step of 1 or more.")
            chosen = chosen & ((positions - first) % at.step == 0)
    else:
        raise UsageError(
            f"There are no positions {at!r}. Give 'all', 'prompt', 'generated', a slice, a number, a mask, or of a "
            "chat a role."
        )
    return chosen if include_special else chosen & ~ctx.special


def _check_there(at: int, ctx: EditContext, chosen: Bool[Tensor, "batch pos"], include_special: bool) -> None:
    """Refuse a position that is not there in some row, or that would be left alone, where nothing else will come."""
    for row, length in enumerate(ctx.lengths.tolist()):
        if not -length <= at < length:
            raise UsageError(
                f"There is no position {at} in the {length} tokens of text {row}. Give {-length} to {length - 1}."
            )
    if not include_special and bool((chosen & ctx.special).any()):
        raise UsageError(f"Position {at} is a special token (BOS), which is left alone. Give include_special=True.")


def _said(role: str, ctx: EditContext, positions: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    """What a role says in this chunk of a chat."""
    if ctx.tokens is None or ctx.tokens.roles is None:
        raise UsageError(
            f"There are no positions {role!r} in a text that is no chat. Give 'all', 'prompt', 'generated', a slice, a "
            "number or a mask, or encode the text with model.encode_chat."
        )
    silent = torch.zeros_like(ctx.tokens.mask)  # an assistant that has not said anything yet
    known = any(role in row for row in ctx.tokens.roles) or role != REPLY
    said = _marked(ctx.tokens.of(role) if known else silent, ctx)
    return said | (positions >= ctx.prompt_length) if role == REPLY else said


def _marked(mask: Tensor, ctx: EditContext) -> Bool[Tensor, "batch pos"]:
    """The part of a mask over the prompt that stands in this chunk; what was generated is not marked."""
    mask = torch.atleast_2d(mask).to(ctx.special.device)
    if mask.dtype != torch.bool or mask.shape[1] != ctx.prompt_length or mask.shape[0] not in (1, ctx.batch):
        raise UsageError(
            f"A mask of {mask.dtype} and shape {list(mask.shape)} does not mark positions. Give booleans of shape "
            f"{[ctx.batch, ctx.prompt_length]}."
        )
    inside = ctx.positions < mask.shape[1]
    return (mask[:, ctx.positions.clamp(max=mask.shape[1] - 1)] & inside).expand(ctx.batch, -1)


def _from_end(position: int, ctx: EditContext) -> Int[Tensor, "batch 1"]:
    start = torch.full_like(ctx.lengths, position)
    return (start + ctx.lengths if position < 0 else start)[:, None]


class Edit(ABC):
    """One change at one site (or pattern of sites); `apply` is called once for every chunk of the forward pass."""

    site: str | tuple[str, int] | Site
    has_parts = False  # whether it offers `.sae.acts` and the like
    may_break = False  # whether what it writes is somebody's own code and may be NaN

    @abstractmethod
    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        """Return the new value of the site, of the same shape; `h` itself must not be changed in place."""


class Replace(Edit):
    """Put `value` at the site: `[batch, pos, ...]` (or batch 1) by absolute position, or as in `Add`."""

    def __init__(
        self, site: str | tuple[str, int] | Site, value: Tensor, *, at: At = "all", include_special: bool = True
    ) -> None:
        self.site, self.value, self.at, self.include_special = site, _real(value), at, include_special
        self.may_break = bool(value.isnan().any())

    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        chosen = where(at, self.at, self.include_special)
        value, axis = self.value.to(h), at.pos_axis
        if value.dim() == h.dim():
            inside = at.positions < value.shape[axis]  # tokens beyond the stored value keep what they have
            value = value.index_select(axis, at.positions.clamp(max=value.shape[axis] - 1))
            chosen = chosen & inside[None, :]
        else:
            value = _broadcast(value, h, axis)
        try:
            return torch.where(like(chosen, h, axis), value, h)
        except RuntimeError as error:
            raise _shape_error(self.value, h, at.pos_axis) from error


class Add(Edit):
    """Add a vector at the site: `[d]` for every row, or `[batch, d]` for each row its own; specials are left out."""

    def __init__(
        self, site: str | tuple[str, int] | Site, vector: Tensor, *, at: At = "all", include_special: bool = False
    ) -> None:
        self.site, self.vector, self.at, self.include_special = site, _real(vector), at, include_special
        self.may_break = bool(vector.isnan().any())

    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        chosen = where(at, self.at, self.include_special)
        try:
            added = h + _broadcast(self.vector.to(h), h, at.pos_axis)
            return torch.where(like(chosen, h, at.pos_axis), added, h)
        except RuntimeError as error:
            raise _shape_error(self.vector, h, at.pos_axis) from error


class Apply(Edit):
    """Apply any function of the tensor at the site, `[batch, pos, ...]` or, of scores and patterns, by head.

    What it returns must have the same shape and lie on the same device.
    """

    may_break = True

    def __init__(self, site: str | tuple[str, int] | Site, function: Callable[[Tensor], Tensor]) -> None:
        self.site, self.function = site, function

    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        return self.function(h)


def like(chosen: Bool[Tensor, "batch pos"], h: Tensor, axis: int = 1) -> Tensor:
    """A mask of positions with the missing axes of `h`, whose positions lie on `axis`."""
    shape = [1] * h.dim()
    shape[0], shape[axis] = chosen.shape
    return chosen.reshape(shape)


def _real(value: Tensor) -> Tensor:
    if value.is_complex():
        raise UsageError(f"A tensor of {value.dtype} cannot be an activation. Give real numbers.")
    return value


def _broadcast(vector: Tensor, h: Tensor, axis: int) -> Tensor:
    """Give `[...]` or `[batch, ...]` the missing axes of `h`: that of positions, and that of rows."""
    rest = [size for i, size in enumerate(h.shape) if i not in (0, axis)]
    if list(vector.shape) == rest:
        return vector.unsqueeze(axis - 1)
    if vector.dim() == len(rest) + 1 and vector.shape[0] in (1, h.shape[0]) and list(vector.shape[1:]) == rest:
        return vector.unsqueeze(axis)
    raise _shape_error(vector, h, axis)


def _shape_error(vector: Tensor, h: Tensor, axis: int) -> UsageError:
    want, rows = [size for i, size in enumerate(h.shape) if i not in (0, axis)], h.shape[0]
    return UsageError(
        f"A tensor of shape {list(vector.shape)} does not fit this site. Give {want}, or {[rows, *want]} for one a row."
    )
