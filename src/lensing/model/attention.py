"""Scores and patterns: every family's own attention code runs, and its softmax is watched while it does.

A softmax inside an attention module is what turns scores into a pattern, whoever wrote the module; under a
TorchFunctionMode it passes through here, on this thread alone. Families that can compute attention without a softmax in
Python (SDPA, flash) are asked for the eager code while it is watched.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

EAGER = "eager_attention_forward"
_LOCK = threading.Lock()
SOFTMAX = {functional.softmax, torch.softmax, Tensor.softmax, torch.special.softmax}

# scores before the softmax, and how to compute the pattern from (perhaps changed) scores: returns the pattern
OnSoftmax = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]


class SoftmaxWatch(TorchFunctionMode):
    """While it is entered, each softmax of this thread is handed to a function."""

    def __init__(self, on_softmax: OnSoftmax) -> None:
        super().__init__()
        self._on_softmax = on_softmax

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in SOFTMAX:
            return func(*args, **kwargs)
        scores, rest = (args[0], args[1:]) if args else (kwargs["input"], ())
        kwargs = {k: v for k, v in kwargs.items() if k != "input"}
        return self._on_softmax(scores, lambda x: func(x, *rest, **kwargs))


class _Dispatch:
    """Stands for a family's eager attention function while modules of it are watched: theirs alone see the watch."""

    def __init__(self, plain: Callable[..., Any]) -> None:
        self.plain, self.watches = plain, dict[nn.Module, SoftmaxWatch]()

    def __call__(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        watch = self.watches.get(module)
        if watch is None:
            return self.plain(module, *args, **kwargs)
        with watch:
            return self.plain(module, *args, **kwargs)


class _Dispatched:
    """A handle: the module is watched within its family's eager function until it is removed."""

    def __init__(self, names: dict[str, Any], module: nn.Module, watch: SoftmaxWatch) -> None:
        self._names, self._module = names, module
        with _LOCK:
            if not isinstance(names[EAGER], _Dispatch):
                names[EAGER] = _Dispatch(names[EAGER])
            names[EAGER].watches[module] = watch

    def remove(self) -> None:
        """Give the family its function back, unless other modules of it are watched."""
        with _LOCK:
            dispatch = self._names[EAGER]
            if isinstance(dispatch, _Dispatch):
                dispatch.watches.pop(self._module, None)
                if not dispatch.watches:
                    self._names[EAGER] = dispatch.plain


class AttentionTap:
    """Watches the softmax of one attention module, during its forward and not elsewhere.

    Most families call an eager function of their own file, and the watch need not last longer than that: it costs
    something with every call of torch.
    """

    def __init__(self, module: nn.Module, on_softmax: OnSoftmax) -> None:
        self._watch = SoftmaxWatch(on_softmax)
        self._depth = 0
        forward = inspect.unwrap(type(module).forward)
        names = getattr(forward, "__globals__", {})
        self.handles: list[Any]
        if EAGER in names and EAGER in forward.__code__.co_names:
            self.handles = [_Dispatched(names, module, self._watch)]
            return
        self.handles = [
            module.register_forward_pre_hook(self._enter),
            module.register_forward_hook(self._leave, always_call=True),
        ]

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._watch.__enter__()
        self._depth += 1

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._depth:
            self._depth -= 1
            self._watch.__exit__(None, None, None)


@contextlib.contextmanager
def eager(config: Any) -> Iterator[None]:
    """Ask a model's attention modules for their plain code, and give them back as they were."""
    before = getattr(config, "_attn_implementation", None)
    if before in (None, "eager"):
        yield
        return
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = before
