"""Hooks that live only while wanted: edits are applied, then values captured, then perhaps the forward is stopped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from lensing.errors import UsageError
from lensing.model.adapter import Place, first_input, first_output
from lensing.model.edit import Edit, EditContext
from lensing.model.sites import Site


class Stop(Exception):
    """Raised by the last hook that was needed; the forward pass ends there."""


class _Spot:
    """All that happens at one side of one module."""

    def __init__(self) -> None:
        self.edits: list[tuple[Place, Edit]] = []
        self.captures: list[tuple[Place, str]] = []
        self.carries: list[int] = []
        self.stop = False


class Taps:
    """A context manager that attaches the hooks for these captures and edits, and takes them off whatever happens.

    Set `at` before each forward pass; captured tensors lie in `values` afterwards, by site name.
    """

    def __init__(
        self,
        captures: Iterable[tuple[Site, Place]],
        edits: Sequence[tuple[Site, Place, Edit]] = (),
        *,
        grad_root: nn.Module | None = None,
        stop_early: bool = False,
        stop_after: Place | None = None,
        detach: bool = True,
    ) -> None:
        self.values: dict[str, Tensor] = {}
        self.at: EditContext | None = None
        self._detach, self._stop_early, self._grad_root = detach, stop_early, grad_root
        self._deltas: dict[int, Tensor] = {}
        self._spots: dict[tuple[nn.Module, str], _Spot] = {}
        for _, place, edit in edits:
            self._spot(place.module, place.side).edits.append((place, edit))
            if place.carry is not None:
                carries = self._spot(place.carry, "out").carries
                if id(place.module) not in carries:
                    carries.append(id(place.module))
        wanted = list(captures)
        for site, place in wanted:
            self._spot(place.module, place.side).captures.append((place, site.name))
        if stop_after is not None:
            self._spot(stop_after.module, stop_after.side).stop = True
        self._n_wanted = len({site.name for site, _ in wanted})
        self._handles: list[Any] = []

    def _spot(self, module: nn.Module, side: str) -> _Spot:
        return self._spots.setdefault((module, side), _Spot())

    def __enter__(self) -> Self:
        try:
            if self._grad_root is not None:
                self._handles.append(self._grad_root.register_forward_hook(_require_grad))
            for (module, side), spot in self._spots.items():
                if side == "in":
                    self._handles.append(module.register_forward_pre_hook(self._in_hook(spot), with_kwargs=True))
                else:
                    self._handles.append(module.register_forward_hook(self._out_hook(spot)))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._deltas.clear()

    def _in_hook(self, spot: _Spot) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            raw = first_input(args, kwargs)
            new = self._visit(spot, raw, id(module))
            if new is raw:
                return None
            if args and args[0] is raw:
                return (new, *args[1:]), kwargs
            return args, {k: new if v is raw else v for k, v in kwargs.items()}

        return hook

    def _out_hook(self, spot: _Spot) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            raw = first_output(output)
            new = self._visit(spot, raw, id(module))
            if new is raw:
                return None
            if isinstance(output, Tensor):
                return new
            if hasattr(output, "logits"):
                output.logits = new
                return output
            return (new, *output[1:])

        return hook

    def _visit(self, spot: _Spot, raw: Tensor, module: int) -> Tensor:
        """Apply this spot's edits in order, then capture; return the very same tensor if nothing was edited."""
        assert self.at is not None
        h = raw
        for source in spot.carries:
            delta = self._deltas.pop(source, None)
            if delta is not None:
                h = h + delta.reshape(h.shape)
        for place, edit in spot.edits:
            seen = _see(h, place, self.at)
            new = edit.apply(seen, self.at)
            if not isinstance(new, Tensor) or new.shape != seen.shape:
                got = list(new.shape) if isinstance(new, Tensor) else type(new).__name__
                raise UsageError(
                    f"{type(edit).__name__} at {edit.site} returned {got} where {list(seen.shape)} went in. "
                    "Return a tensor of the same shape."
                )
            if new is seen:
                continue
            changed = new.to(h.dtype).reshape(h.shape)
            if place.carry is not None:
                delta = changed - h
                self._deltas[module] = self._deltas[module] + delta if module in self._deltas else delta
            h = changed
        for place, name in spot.captures:
            value = _see(h, place, self.at)
            self.values[name] = value.detach() if self._detach else value
        if spot.stop or (self._stop_early and len(self.values) == self._n_wanted):
            raise Stop
        return h


def _see(h: Tensor, place: Place, at: EditContext) -> Tensor:
    """View a module's tensor as `[batch, pos, ...]`: OPT flattens its rows, heads lie side by side."""
    if not place.shaped:
        return h
    if place.d_head is not None:
        return h.reshape(*at.special.shape, -1, place.d_head)
    return h if h.dim() == 3 else h.reshape(*at.special.shape, h.shape[-1])


def _require_grad(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
    """Let the graph begin at the embedding when the weights are frozen."""
    if torch.is_grad_enabled() and not output.requires_grad:
        return output.detach().requires_grad_()
    return None
