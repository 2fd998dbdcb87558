"""What a norm does, found by numbers: the scale it divides by, whether it centres, its gain and its bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

TOGETHER = 1 << 18  # numbers that are stacked at once
LARGE = 64.0  # how long a vector is made where eps shall hardly count
EPS_NAMES = ("eps", "variance_epsilon", "epsilon", "layer_norm_epsilon")


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm as numbers: out = gain * (x - mean, if it centres) / scale + bias, scale = sqrt(mean square + eps)."""

    module: nn.Module
    gain: Float[Tensor, " d"]
    bias: Float[Tensor, " d"]
    centres: bool
    eps: float

    def scale(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... 1"]:
        """What the norm divides each vector by, in float32 or better."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        square = x.var(-1, correction=0, keepdim=True) if self.centres else x.square().mean(-1, keepdim=True)
        return (square + self.eps).sqrt()

    def centred(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """The vectors less their mean where the norm takes it away, in float32 or better."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return x - x.mean(-1, keepdim=True) if self.centres else x

    def linear(self, x: Float[Tensor, "... d"], scale: Float[Tensor, "... 1"]) -> Float[Tensor, "... d"]:
        """What a part of the norm's input becomes with the scale held as it is; parts and `bias` sum to the output."""
        return self.centred(x) * self.gain.to(scale) / scale

    def pull(self, direction: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """What reads from the norm's input, times the scale, what `direction` reads from its output."""
        d = direction * self.gain.to(direction)
        return d - d.mean(-1, keepdim=True) if self.centres else d


@torch.no_grad()
def scales(norms: Sequence[Norm], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return every norm's scale of its input, small ones of one shape together: a model has two norms a block."""
    found: list[Tensor | None] = [None] * len(norms)
    alike: dict[Any, list[int]] = {}
    for i, (norm, x) in enumerate(zip(norms, inputs, strict=True)):
        alike.setdefault((norm.centres, norm.eps, x.shape, x.dtype, x.device), []).append(i)
    for group in alike.values():
        at_once = max(TOGETHER // max(inputs[group[0]].numel(), 1), 1)
        for first in range(0, len(group), at_once):
            some = group[first : first + at_once]
            x = inputs[some[0]] if len(some) == 1 else torch.stack([inputs[i] for i in some])
            made = norms[some[0]].scale(x)
            for i, scale in zip(some, [made] if len(some) == 1 else made, strict=True):
                found[i] = scale
    return [scale for scale in found if scale is not None]


@torch.no_grad()
def describe(module: nn.Module | None, d: int, like: Tensor) -> Norm | None:
    """Return the norm that a module is on vectors of `d` numbers, or None where it does something else."""
    if module is None:
        return None
    # every number far from zero, their mean zero: the norm divides it by its length alone
    exact = torch.promote_types(like.dtype, torch.float32)
    probe = torch.ones(d, device=like.device, dtype=exact)
    probe[::2] = -1.0
    if d % 2:
        probe[-3:] = torch.tensor([1.0, 1.0, -2.0])
    length = float(probe.square().mean().sqrt())
    try:
        gain = _odd(module, probe, like) * length / probe
        bias = (_run(module, probe, like) + _run(module, -probe, like)) / 2
        centres = torch.allclose(_odd(module, probe + 1, like) * length / probe, gain, rtol=1e-2, atol=1e-3)
        eps = next((float(getattr(module, n)) for n in EPS_NAMES if isinstance(getattr(module, n, None), float)), None)
        eps = _eps(module, probe, gain, like) if eps is None else eps
        gain = gain * (1 + eps / (LARGE * length) ** 2) ** 0.5
        norm = Norm(module, gain, bias, centres, eps)
        x = torch.linspace(-1, 1, d, device=like.device, dtype=exact).sin() * 0.05 + 0.01 + probe * 0.02
        close = _run(module, x, like)
        return norm if torch.allclose(norm.linear(x, norm.scale(x)) + bias, close, rtol=3e-2, atol=3e-3) else None
    except (RuntimeError, TypeError):  # not a function of one vector
        return None


def _run(module: nn.Module, x: Tensor, like: Tensor) -> Tensor:
    out: Any = module(x.to(like.dtype)[None, None])
    out = out[0, 0].to(x.device)  # which a module that brings its weights in may have left
    return out.float() if out.dtype != torch.float64 else out


def _odd(module: nn.Module, x: Tensor, like: Tensor) -> Tensor:
    """Half the difference of the outputs for x and -x, in which a bias cancels; x large, so that eps does not count."""
    return (_run(module, x * LARGE, like) - _run(module, -x * LARGE, like)) / 2


def _eps(module: nn.Module, probe: Tensor, gain: Tensor, like: Tensor) -> float:
    """The number under the root, from what a tiny vector becomes."""
    tiny = 1e-3
    out = (_run(module, probe * tiny, like) - _run(module, -probe * tiny, like)) / 2
    chosen = gain.abs() > 0.1 * gain.abs().max()
    return max(float(((gain * probe * tiny / out).square()[chosen]).mean() - (probe * tiny).square().mean()), 0.0)
