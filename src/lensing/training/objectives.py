"""What each architecture adds to the reconstruction loss: a registry, open to architectures from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.kernels import Pattern
from lensing.registry import Registry
from lensing.training.losses import frequency_loss, gate_loss, l0_distance, l0_loss, l1_loss


@dataclass(frozen=True)
class Forward:
    """One batch on its way through a dictionary in training, on scaled vectors.

    `rest` is what is written beside the latents, `pre` and `value` stand at the pattern's places, `variance` is what
    squared errors are divided by, `coefficient` the penalty's weight at this step. Of several processes each has the
    `share` of the batch's rows: what is not linear in the rows needs `world.data.leave`.
    """

    dictionary: Any
    y: Float[Tensor, "rows d_out"]
    rest: Float[Tensor, "*rows d_out"]
    pattern: Pattern
    pre: Float[Tensor, " nnz"]
    value: Float[Tensor, " nnz"]
    variance: float
    coefficient: float
    share: float = 1.0


Penalty = Callable[[Forward], Tensor]

# architecture: what is added to the reconstruction loss; those that are not here add nothing
PENALTIES: Registry[Penalty] = Registry("penalty")


@PENALTIES.register("relu")
def relu(at: Forward) -> Float[Tensor, ""]:
    """L1 of the activations times the length of their decoder rows."""
    d = at.dictionary
    l1 = l1_loss(at.value, at.pattern.index, d.W_dec.norm(dim=1), at.pattern.rows)
    return at.coefficient * d.world.latents.leave(l1)


@PENALTIES.register("gated")
def gated(at: Forward) -> Float[Tensor, ""]:
    """L1 of the open gates' pre-activations, and their own reconstruction."""
    d = at.dictionary
    gate = at.pre.relu()
    latents = d.world.latents
    sparse = latents.leave(l1_loss(gate, at.pattern.index, d.W_dec.norm(dim=1), at.pattern.rows))
    return at.coefficient * sparse + gate_loss(at.y, gate, d.W_dec, at.rest, at.pattern, at.variance, latents)


@PENALTIES.register("jumprelu")
def jumprelu(at: Forward) -> Float[Tensor, ""]:
    """L0, or its squared distance from the target, and the excess of latents that are active often."""
    d, rows, world = at.dictionary, at.pattern.rows, at.dictionary.world
    fires = d.fires(at.pre, at.pattern)
    l0 = world.latents.leave(l0_loss(fires, rows))
    if d.config.penalty == "quadratic":
        total = at.coefficient * l0_distance(world.data.leave(l0, at.share), d.config.l0)
    else:
        total = at.coefficient * l0
    if d.config.frequency:
        often = frequency_loss(fires, at.pattern.index, rows, d.d_sae, world.data, at.share)
        total = total + d.config.frequency * world.latents.leave(often)
    return total
