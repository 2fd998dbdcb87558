"""Scores and patterns: every family's own attention code runs, and its softmax is watched while it does.

A softmax inside an attention module is what turns scores into a pattern, whoever wrote the module; under a
TorchFunctionMode it passes through here, on this thread alone. Families that can compute attention without a softmax in
Python (SDPA, flash) are asked for the eager code while it is watched.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
import types
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
        return self.seen(func, args, kwargs) if func in SOFTMAX else func(*args, **kwargs)

    def seen(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The pattern that a call of a softmax gives, under what watches it."""
        scores, rest = (args[0], args[1:]) if args else (kwargs["input"], ())
        kwargs = {k: v for k, v in kwargs.items() if k != "input"}
        return self._on_softmax(scores, lambda x: func(x, *rest, **kwargs))


class _Dispatch:
    """Stands for a family's eager attention function while modules of it are watched: theirs alone see the watch.

    Nearly all of these functions call `nn.functional.softmax`. Of such a one a twin is run that finds ours under this
    name: a mode would be asked about every call of torch, which costs as much as a small model's attention.
    """

    def __init__(self, plain: Callable[..., Any]) -> None:
        self.plain, self.watches = plain, dict[nn.Module, SoftmaxWatch]()
        self._local = threading.local()
        self._twin = _twin(plain, self._softmax)

    def __call__(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        watch = self.watches.get(module)
        if watch is None:
            return self.plain(module, *args, **kwargs)
        if self._twin is not None:
            self._local.watch, self._local.called = watch, False
            found = self._twin(module, *args, **kwargs)
            if self._local.called:
                return found
            self._twin = None  # it makes patterns under another name
        with watch:
            return self.plain(module, *args, **kwargs)

    def _softmax(self, *args: Any, **kwargs: Any) -> Tensor:
        self._local.called = True
        return self._local.watch.seen(functional.softmax, args, kwargs)


def _twin(plain: Callable[..., Any], softmax: Callable[..., Tensor]) -> Callable[..., Any] | None:
    """The same function with another `nn.functional.softmax`; None where it may turn scores to a pattern otherwise."""
    code = getattr(plain, "__code__", None)
    names = getattr(plain, "__globals__", {})
    if code is None or plain.__closure__ or names.get("nn") is not nn:  # type: ignore[attr-defined]
        return None
    if not {"nn", "functional", "softmax"} <= set(code.co_names) or "F" in code.co_names:
        return None
    ours = _Like(nn, functional=_Like(functional, softmax=softmax))
    found = types.FunctionType(code, {**names, "nn": ours}, plain.__name__, plain.__defaults__)  # type: ignore[attr-defined]
    found.__kwdefaults__ = plain.__kwdefaults__  # type: ignore[attr-defined]
    return found


class _Like:
    """A module but for some of its names."""

    def __init__(self, module: Any, **names: Any) -> None:
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)


class AttentionTap:
    """Watches the softmax of one attention module, during its forward and not elsewhere, while it is attached.

    Most families call an eager function of their own file, and the watch need not last longer than that.
    """

    def __init__(self, module: nn.Module, on_softmax: OnSoftmax) -> None:
        self._module, self._watch = module, SoftmaxWatch(on_softmax)
        self._depth = 0
        forward = inspect.unwrap(type(module).forward)
        names = getattr(forward, "__globals__", {})
        self._names = names if EAGER in names and EAGER in forward.__code__.co_names else None
        self._handles: list[Any] = []

    def attach(self) -> AttentionTap:
        """Begin to watch."""
        if self._names is None:
            self._handles = [
                self._module.register_forward_pre_hook(self._enter),
                self._module.register_forward_hook(self._leave, always_call=True),
            ]
            return self
        with _LOCK:
            if not isinstance(self._names[EAGER], _Dispatch):
                self._names[EAGER] = _Dispatch(self._names[EAGER])
            self._names[EAGER].watches[self._module] = self._watch
        return self

    def remove(self) -> None:
        """Cease, and give the family its function back unless other modules of it are watched."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._names is None:
            return
        with _LOCK:
            dispatch = self._names[EAGER]
            if isinstance(dispatch, _Dispatch):
                dispatch.watches.pop(self._module, None)
                if not dispatch.watches:
                    self._names[EAGER] = dispatch.plain

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
