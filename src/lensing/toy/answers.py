"""Small worlds for which it is known what a dictionary ought to learn, or cannot help learning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lensing.errors import UsageError


@dataclass(frozen=True, eq=False)
class Answers:
    """Rows of one or two sites, the true directions there, and which feature is on in which row, how strongly."""

    x: Float[Tensor, "rows d"]
    directions: Float[Tensor, "features d"]
    strength: Float[Tensor, "rows features"]
    second: Float[Tensor, "rows d"] | None = None
    second_directions: Float[Tensor, "features d"] | None = None

    @property
    def on(self) -> Bool[Tensor, "rows features"]:
        """Whether each feature is on."""
        return self.strength > 0

    @property
    def l0(self) -> float:
        """Mean number of features on in a row."""
        return float(self.on.double().sum(1).mean())


def _orthonormal(features: int, d: int, g: torch.Generator) -> Tensor:
    if features > d:
        raise UsageError(f"{features} features cannot be at right angles in {d} dimensions. Give d of at least that.")
    return torch.linalg.qr(torch.randn(d, features, generator=g)).Q.T.contiguous()


def _uniform(on: Tensor, g: torch.Generator) -> Tensor:
    # strengths from 1 to 2 where a feature is on
    return on * (1 + torch.rand(on.shape, generator=g))


def independent(rows: int, *, features: int = 16, p: float = 0.1, seed: int = 0) -> Answers:
    """Features at right angles, as many as dimensions, on independently: L1 shrinks each by half its coefficient.

    With decoder rows of length 1 the loss |x - x_hat|^2 + c |f|_1 is least at f = max(a - c / 2, 0), a the coordinate
    of x - b_dec along the feature.
    """
    g = torch.Generator().manual_seed(seed)
    directions = _orthonormal(features, features, g)
    strength = _uniform((torch.rand(rows, features, generator=g) < p).float(), g)
    return Answers(strength @ directions, directions, strength)


def hierarchy(
    rows: int, *, parents: int = 4, children: int = 4, d: int = 32, p: float = 0.15, alone: float = 0.2, seed: int = 0
) -> Answers:
    """Parents, each with children that are on only where it is, at most one at a time; parents stand first.

    A parent is on with probability `p`, in the share `alone` of these rows without a child. A dictionary that is paid
    for few active latents writes parent and child with one latent (Chanin et al. 2024: absorption).
    """
    g = torch.Generator().manual_seed(seed)
    directions = _orthonormal(parents * (1 + children), d, g)
    on = (torch.rand(rows, parents, generator=g) < p).float()
    which = torch.randint(children, (rows, parents), generator=g)
    with_child = on * (torch.rand(rows, parents, generator=g) >= alone)
    young = torch.nn.functional.one_hot(which, children) * with_child[..., None]
    strength = _uniform(torch.cat([on, young.flatten(1)], 1), g)
    return Answers(strength @ directions, directions, strength)


def correlated(
    rows: int, *, pairs: int = 8, d: int = 32, p: float = 0.25, together: float = 0.8, seed: int = 0
) -> Answers:
    """Pairs of features at right angles: 2 i is on with probability `p`, and 2 i + 1 with `together` where it is.

    Where 2 i is off, 2 i + 1 is on with probability p (1 - together) / (1 - p), so that both are equally frequent.
    """
    g = torch.Generator().manual_seed(seed)
    directions = _orthonormal(2 * pairs, d, g)
    first = torch.rand(rows, pairs, generator=g) < p
    chance = torch.where(first, together, p * (1 - together) / (1 - p))
    second = torch.rand(rows, pairs, generator=g) < chance
    strength = _uniform(torch.stack([first, second], 2).flatten(1).float(), g)
    return Answers(strength @ directions, directions, strength)


def copied(rows: int, *, both: int = 16, one: int = 8, d: int = 48, p: float = 0.08, seed: int = 0) -> Answers:
    """Two layers: the first `both` features are in both (each layer along a direction of its own), then `one` features
    only in the first layer, then `one` only in the second; directions of zeros where a feature is absent.
    """
    g = torch.Generator().manual_seed(seed)
    features = both + 2 * one
    first, second = _orthonormal(features, d, g), _orthonormal(features, d, g)
    first[both + one :] = 0
    second[both : both + one] = 0
    strength = _uniform((torch.rand(rows, features, generator=g) < p).float(), g)
    return Answers(strength @ first, first, strength, strength @ second, second)
