"""Parts of a run: begin at a block, keep some positions only, let padding on the left be no token."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lensing.errors import UsageError

if TYPE_CHECKING:
    from lensing.model.adapter import Adapter
    from lensing.model.tokens import Tokens

Positions = int | slice | Sequence[int] | None


@dataclass(frozen=True)
class Keep:
    """Which positions of what is captured are kept, and where; everything on the model's device if not said."""

    index: slice | Tensor | None = None
    device: torch.device | None = None

    @property
    def whole(self) -> bool:
        """Whether all positions are kept where they are."""
        return self.index is None and self.device is None

    def __call__(self, value: Tensor, axis: int, copy: bool) -> Tensor:
        """The part of a captured tensor that is kept; a copy of its own where only a part is, so the rest is freed."""
        if isinstance(self.index, slice):
            value = value[(slice(None),) * axis + (self.index,)].clone()
        elif self.index is not None:
            value = value.index_select(axis, self.index.to(value.device))
        elif copy:
            value = value.clone()
        return value if self.device is None else value.to(self.device)


def keeping(positions: Positions, length: int, device: torch.device | str | None) -> Keep:
    """Return what to keep of captures over `length` positions; UsageError where one lies outside."""
    target = None if device is None else torch.device(device)
    if positions is None or isinstance(positions, slice):
        return Keep(positions, target)
    asked = [positions] if isinstance(positions, int) else [int(p) for p in positions]
    for p in asked:
        if not -length <= p < length:
            raise UsageError(f"There is no position {p} among {length}. Give {-length} to {length - 1}.")
    return Keep(torch.tensor([p % length for p in asked]), target)


class _Pass(nn.Module):
    """Stands in for a block that is not run: what goes in comes out."""

    def __init__(self, block: nn.Module, returns: int) -> None:
        super().__init__()
        object.__setattr__(self, "_block", block)
        object.__setattr__(self, "_returns", returns)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_block"), name)  # some trunks ask a block for its kind of mask

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        h = args[0] if args else kwargs["hidden_states"]
        return (h, *[None] * (self._returns - 1)) if self._returns else h


@contextlib.contextmanager
def without_blocks(adapter: Adapter, first: int) -> Iterator[None]:
    """Let the blocks before `first` pass on what they get; the model's own trunk, masks and positions stay."""
    returns = adapter.findings.tuples
    for layer in range(first):
        adapter.layers[layer] = _Pass(adapter.blocks[layer].module, returns[layer])
    try:
        yield
    finally:
        for layer in range(first):
            adapter.layers[layer] = adapter.blocks[layer].module


@contextlib.contextmanager
def contiguous_head(adapter: Adapter) -> Iterator[None]:
    """Give the unembedding its rows one after the other in memory, with the strides of a tensor that is whole.

    Of a slice of positions torch makes a batched product, and in bfloat16 on a CPU a copy of the weights for each row.
    """

    def whole(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # contiguous() leaves a single row its strides
        return (args[0].clone(memory_format=torch.contiguous_format), *args[1:])

    hook = adapter.head.register_forward_pre_hook(whole)
    try:
        yield
    finally:
        hook.remove()


def masking(hf: Any, tokens: Tokens) -> dict[str, Any]:
    """Return what the model must be told where padding stands on the left; on the right no real token looks."""
    if bool(tokens.mask[:, 0].all()):
        return {}
    mask = tokens.mask.long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    takes = inspect.signature(hf.forward).parameters
    return {"attention_mask": mask} | ({"position_ids": positions} if "position_ids" in takes else {})
