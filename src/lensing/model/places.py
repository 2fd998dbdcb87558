"""Where a site lies physically: a side of a module, and which part of the tensor there it is."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lensing.model.norms import Norm

# in, out: first input and output of a module. scores, pattern: before and after an attention module's softmax.
# scale: what a norm divides by.
Side = Literal["in", "out", "scores", "pattern", "scale"]


@dataclass(frozen=True)
class Layout:
    """Where one of q, k and v lies in the output of a fused projection: numbers `index` by head `[heads, d_head]`."""

    index: Tensor

    @functools.cached_property
    def _run(self) -> int | None:
        """Where the numbers begin, if they stand one after the other."""
        first = int(self.index.flatten()[0])
        alike = torch.equal(self.index.flatten().cpu(), torch.arange(first, first + self.index.numel()))
        return first if alike else None

    def take(self, h: Tensor) -> Tensor:
        """[..., width] to [..., heads, d_head]; a view where the numbers stand one after the other."""
        if self._run is None:
            return h[..., self.index]
        return h.narrow(-1, self._run, self.index.numel()).view(*h.shape[:-1], *self.index.shape)

    def put(self, h: Tensor, part: Tensor) -> Tensor:
        """`h` with this part changed."""
        out = h.clone()
        out[..., self.index] = part
        return out


@dataclass(frozen=True)
class Place:
    """A spot of the forward pass, seen as `[batch, pos, ...]` (scores and patterns `[batch, head, query, key]`).

    `carry` names the block whose output must receive the change too: the stream has two readers after `resid_mid`.
    `factor` is what the block multiplies a contribution by; `layout` a part of a fused projection; `sinks` the columns
    behind the keys that a softmax has besides them; `copy` says that later code writes into this tensor, `late` that no
    code writes into what a norm reads, so that its scale can wait.
    """

    module: nn.Module
    side: Side
    d_head: int | None = None
    carry: nn.Module | None = None
    shaped: bool = True
    factor: float | None = None
    layout: Layout | None = None
    norm: Norm | None = None
    sinks: int = 0
    copy: bool = False
    late: bool = False

    @property
    def whole(self) -> bool:
        """Whether the site is all of the module's tensor, as it is."""
        parts = (self.layout, self.d_head, self.factor, self.norm)
        return self.side in ("in", "out") and self.shaped and all(part is None for part in parts)

    def see(self, h: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The site's tensor in what the module takes or gives; `shape` is [batch, pos] of the chunk."""
        if self.side in ("scores", "pattern"):
            return h[..., : h.shape[-1] - self.sinks] if self.sinks else h
        if not self.shaped:
            return h
        if h.dim() < 3 or h.shape[0] != shape[0] or h.shape[1] != shape[1]:
            h = h.reshape(*shape, *h.shape[-1:])  # OPT flattens its rows
        if self.layout is not None:
            return self.layout.take(h)
        if self.d_head is not None:
            return h.reshape(*shape, -1, self.d_head)
        return h if self.factor is None else h * self.factor

    def write(self, h: Tensor, seen: Tensor, new: Tensor) -> Tensor:
        """The module's tensor with the site's new value in it; where that is the old one, bit for bit as it was."""
        new = new.to(h.dtype)
        if self.sinks:
            return torch.cat([new, h[..., new.shape[-1] :]], -1)
        if self.layout is not None:
            return self.layout.put(h.reshape(*new.shape[:2], -1), new).reshape(h.shape)
        if self.factor is not None:
            new = torch.where(new == seen, h.reshape(new.shape), new / self.factor)
        new = new.reshape(h.shape)
        if h.is_contiguous() or new.stride() == h.stride():
            return new
        # a function of half a tensor (Phi-3's gate) takes another path, and rounds otherwise, on one of its own
        return torch.empty_strided(h.shape, h.stride(), dtype=h.dtype, device=h.device).copy_(new)

    def through(self, h: Tensor, seen: Tensor) -> Tensor:
        """The module's tensor as before, bit for bit, but computed from what was seen of it."""
        if self.factor is None:
            return self.write(h, seen, seen)
        return h.detach() + ((seen - seen.detach()) / self.factor).reshape(h.shape)


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the hidden states a module was called with, by position or by keyword."""
    if args and isinstance(args[0], Tensor):
        return args[0]
    if isinstance(kwargs.get("hidden_states"), Tensor):
        return kwargs["hidden_states"]
    return next(v for v in kwargs.values() if isinstance(v, Tensor))


def first_output(output: Any) -> Tensor:
    """Return the tensor of a module's output: itself, the first of a tuple, or the logits of a model."""
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "logits"):
        return output.logits
    return output[0]
