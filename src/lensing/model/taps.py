"""Hooks that live only while wanted: edits are applied, then values captured, then perhaps the forward is stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from lensing.errors import UsageError
from lensing.model.adapter import Adapter
from lensing.model.attention import AttentionTap
from lensing.model.edit import Edit, EditContext
from lensing.model.norms import scales
from lensing.model.parts import Keep
from lensing.model.places import Place, first_input, first_output
from lensing.model.sites import Site

READ = ("in", "scale", "out")
SIDES = ("in", "scores", "pattern", "scale", "out")  # a norm's scale is changed before its output is seen


Read = Callable[[Tensor], None]


class Stop(Exception):
    """Raised by the last hook that was needed; the forward pass ends there."""


class _Spot:
    """All that happens at one side of one module."""

    def __init__(self) -> None:
        self.edits: list[tuple[Site, Place, Edit]] = []
        self.captures: list[tuple[Site, Place]] = []
        self.carries: list[int] = []
        self.stop = False


class Taps:
    """A context manager that attaches the hooks for these captures and edits, and takes them off whatever happens.

    Set `at` before each forward pass; captured tensors lie in `values` afterwards, by site name. At one spot edits
    come in the order given, before captures. With `late` the scales of norms are made when it ends, all together.
    """

    def __init__(
        self,
        adapter: Adapter,
        captures: Iterable[tuple[Site, Place]],
        edits: Sequence[tuple[Site, Place, Edit]] = (),
        *,
        from_embedding: bool = False,
        stop_early: bool = False,
        stop_after: Place | None = None,
        detach: bool = True,
        keep: Keep | None = None,
        late: bool = False,
    ) -> None:
        self._late: list[tuple[str, Place, Tensor]] | None = [] if late else None
        self.values: dict[str, Tensor] = {}
        self._at: EditContext | None = None
        self._shape: tuple[int, ...] = ()
        self._detach, self._stop_early, self._keep = detach, stop_early, keep or Keep()
        self._grad_root = adapter.embedding if from_embedding else None
        self._deltas: dict[int, Tensor] = {}
        self._spots: dict[tuple[nn.Module, str], _Spot] = {}
        self._inside: dict[tuple[str, str], _Spot] = {}
        for site, place, edit in edits:
            self._spot(site, place).edits.append((site, place, edit))
            if place.carry is not None and site.part is None:
                carries = self._spots.setdefault((place.carry, "out"), _Spot()).carries
                if id(place.module) not in carries:
                    carries.append(id(place.module))
        wanted = list(captures)
        for site, place in wanted:
            self._spot(site, place).captures.append((site, place))
        if stop_after is not None:
            self._spots.setdefault((stop_after.module, stop_after.side), _Spot()).stop = True
        softmaxes: dict[nn.Module, dict[str, _Spot]] = {}
        for (module, side), spot in self._spots.items():
            if side not in READ:
                softmaxes.setdefault(module, {})[side] = spot
        self._attention = [AttentionTap(module, self._on_softmax(spots)) for module, spots in softmaxes.items()]
        self._made: dict[nn.Module, _Reader] | None = None
        self._n_wanted = len({site.name for site, _ in wanted})
        self._handles: list[Any] = []

    @property
    def at(self) -> EditContext | None:
        """Where the chunk of tokens being computed stands."""
        return self._at

    @at.setter
    def at(self, at: EditContext) -> None:
        self._at, self._shape = at, tuple(at.special.shape)

    @property
    def watch_softmax(self) -> bool:
        """Whether the model's attention must run its plain code."""
        return any(side in ("scores", "pattern") for _, side in self._spots)

    def _spot(self, site: Site, place: Place) -> _Spot:
        if site.part is not None:
            return self._inside.setdefault((site.whole.name, site.part), _Spot())
        return self._spots.setdefault((place.module, place.side), _Spot())

    def __enter__(self) -> Self:
        self.values = {}
        try:
            if self._grad_root is not None:
                self._handles.append(self._grad_root.register_forward_hook(_require_grad))
            readers = self._readers()
            self._handles += [reader.attach() for reader in readers.values()]
            for (module, side), spot in sorted(self._spots.items(), key=lambda item: SIDES.index(item[0][1])):
                if module in readers and side in READ:
                    continue
                if side == "in":
                    self._handles.append(module.register_forward_pre_hook(self._in_hook(spot), with_kwargs=True))
                elif side == "out":
                    self._handles.append(module.register_forward_hook(self._out_hook(spot)))
                elif side == "scale":
                    self._handles.append(module.register_forward_hook(self._scale_hook(spot), with_kwargs=True))
            self._handles += [tap.attach() for tap in self._attention]
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
        if self._late:
            late, self._late = self._late, []
            if kind is None:
                made = scales([place.norm for _, place, _ in late if place.norm], [raw for *_, raw in late])
                for (name, place, _), scale in zip(late, made, strict=True):
                    self.values[name] = place.see(scale, self._shape)

    # hooks ----------------------------------------------------------------------------------------------------------

    def _readers(self) -> dict[nn.Module, _Reader]:
        """For modules where nothing is changed, stopped or cut the shortest code: there may be hundreds.

        Made once, unless somebody has changed the modules since.
        """
        if self._made is None or not all(reader.fits for reader in self._made.values()):
            self._made = {
                module: _Reader(module, *(self._reads(spots.get(side)) for side in READ))
                for module, spots in self._only_read().items()
            }
        return self._made

    def _only_read(self) -> dict[nn.Module, dict[str, _Spot]]:
        if not (self._detach and self._keep.whole) or self._stop_early:
            return {}
        found: dict[nn.Module, dict[str, _Spot]] = {}
        for (module, side), spot in self._spots.items():
            if side in READ:
                found.setdefault(module, {})[side] = spot
        return {
            module: spots for module, spots in found.items()
            if not (module._forward_hooks or module._forward_pre_hooks)
            and not any(s.edits or s.carries or s.stop or any(p.copy for _, p in s.captures) for s in spots.values())
        }  # fmt: skip

    def _reads(self, spot: _Spot | None) -> list[Read]:
        return [] if spot is None else [self._read(site.name, place) for site, place in spot.captures]

    def _read(self, name: str, place: Place) -> Read:
        see = place.see
        scale = None if place.side != "scale" or place.norm is None else place.norm.scale

        def read_later(raw: Tensor) -> None:
            assert self._late is not None
            self._late.append((name, place, raw))

        def read(raw: Tensor) -> None:
            value = see(raw, self._shape) if scale is None else see(scale(raw), self._shape)
            self.values[name] = value.detach() if value.requires_grad else value

        def read_whole(raw: Tensor) -> None:
            value = raw if raw.shape[:2] == self._shape else see(raw, self._shape)
            self.values[name] = value.detach() if value.requires_grad else value

        if scale is not None and place.late and self._late is not None:
            return read_later
        return read_whole if place.whole else read

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

    def _scale_hook(self, spot: _Spot) -> Any:
        norm = next(place.norm for _, place, *_ in (*spot.edits, *spot.captures))
        assert norm is not None

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
            scale = norm.scale(first_input(args, kwargs))
            new = self._visit(spot, scale, id(module))
            if new is scale:
                return None
            bias = norm.bias.to(scale)
            changed = ((output.to(scale.dtype) - bias) * (scale / new) + bias).to(output.dtype)
            return torch.where((new == scale).reshape(*output.shape[:-1], 1), output, changed.reshape(output.shape))

        return hook

    def _on_softmax(self, spots: dict[str, _Spot]) -> Any:
        def on_softmax(scores: Tensor, run: Any) -> Tensor:
            if "scores" in spots:
                scores = self._visit(spots["scores"], scores, 0)
            pattern = run(scores)
            return self._visit(spots["pattern"], pattern, 0) if "pattern" in spots else pattern

        return on_softmax

    # values ---------------------------------------------------------------------------------------------------------

    def _visit(self, spot: _Spot, raw: Tensor, module: int) -> Tensor:
        """Apply this spot's edits in order, then capture; return the very same tensor if nothing was edited."""
        h, shape = raw, self._shape
        for source in spot.carries:
            delta = self._deltas.pop(source, None)
            if delta is not None:
                h = h + delta.reshape(h.shape)
        for site, place, edit in spot.edits:
            seen = place.see(h, shape)
            new = self._edited(site, edit, seen)
            if new is seen:
                continue
            changed = place.write(h, seen, new)
            if place.carry is not None:
                delta = changed - h
                self._deltas[module] = self._deltas[module] + delta if module in self._deltas else delta
            h = changed
        for site, place in spot.captures:
            seen = place.see(h, shape)
            if not self._detach and seen is not h and place.norm is None:
                h = place.through(h, seen)  # gradients reach what was captured only if the pass goes on from it
            self._capture(site, seen, place.copy)
        if spot.stop or (self._stop_early and len(self.values) == self._n_wanted):
            raise Stop
        return h

    def _edited(self, site: Site, edit: Edit, seen: Tensor) -> Tensor:
        assert self.at is not None
        at = replace(self.at, pos_axis=2) if site.by_query else self.at
        if edit.has_parts and any(whole == site.name for whole, _ in self._inside):
            at = replace(at, parts=lambda part: self._part(site.name, part))
        new = edit.apply(seen, at.to(seen.device))
        if not isinstance(new, Tensor) or new.shape != seen.shape:
            got = list(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise UsageError(
                f"{type(edit).__name__} at {edit.site} returned {got} where {list(seen.shape)} went in. "
                "Return a tensor of the same shape."
            )
        if new.device != seen.device:
            raise UsageError(
                f"{type(edit).__name__} at {edit.site} returned a tensor on {new.device} where one on {seen.device} "
                "went in. Move it with .to(h.device)."
            )
        if not new.is_floating_point():
            raise UsageError(
                f"{type(edit).__name__} at {edit.site} returned {str(new.dtype).removeprefix('torch.')} where "
                f"{str(seen.dtype).removeprefix('torch.')} went in. Convert it with .to(h.dtype)."
            )
        if new is not seen and edit.may_break and bool(new.isnan().any()) and not bool(seen.isnan().any()):
            raise UsageError(
                f"{type(edit).__name__} at {edit.site} returned numbers that are not a number (NaN). Look for a "
                "division by zero or a logarithm of zero in it."
            )
        return new

    def _part(self, site: str, part: str) -> Any:
        """What a dictionary offers its inner values to: returns a function of the value, or None where nobody asks."""
        spot = self._inside.get((site, part))
        if spot is None:
            return None

        def visit(value: Tensor) -> Tensor:
            for inner, _, edit in spot.edits:
                value = self._edited(inner, edit, value)
            for inner, _ in spot.captures:
                self._capture(inner, value, copy=False)
            return value

        return visit

    def _capture(self, site: Site, value: Tensor, copy: bool) -> None:
        if copy or not self._keep.whole:
            value = self._keep(value, 2 if site.by_query else 1, copy)
        self.values[site.name] = value.detach() if self._detach and value.requires_grad else value


class _Reader:
    """A handle: what goes into a module and comes out of it is read, by a function in the place of its own forward.

    That costs a fraction of what hooks do, which a module that has any calls by a longer way.
    """

    def __init__(self, module: nn.Module, ins: Sequence[Read], scales: Sequence[Read], outs: Sequence[Read]) -> None:
        self._module, self._names = module, module.__dict__
        self._before = self._names.get("forward")
        inner, before = module.forward, [*ins, *scales]

        def forward(*args: Any, **kwargs: Any) -> Any:
            if before:
                raw = args[0] if args and args[0].__class__ is Tensor else first_input(args, kwargs)
                for read in before:
                    read(raw)
            output = inner(*args, **kwargs)
            if outs:
                raw = output if output.__class__ is Tensor else first_output(output)
                for read in outs:
                    read(raw)
            return output

        forward.__wrapped__ = inner  # type: ignore[attr-defined]  # whoever asks for its parameters
        self._forward = forward

    @property
    def fits(self) -> bool:
        """Whether the module is as it was when this was made."""
        m = self._module
        return self._names.get("forward") is self._before and not (m._forward_hooks or m._forward_pre_hooks)

    def attach(self) -> _Reader:
        """Begin to read."""
        self._names["forward"] = self._forward
        return self

    def remove(self) -> None:
        """Give the module its own forward back."""
        if self._before is None:
            del self._names["forward"]
        else:
            self._names["forward"] = self._before


def _require_grad(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
    """Let the graph begin at the embedding when the weights are frozen."""
    if torch.is_grad_enabled() and not output.requires_grad:
        return output.detach().requires_grad_()
    return None
