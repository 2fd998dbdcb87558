"""How much of a planted truth a dictionary found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lensing.dictionary.codes import Codes


@dataclass(frozen=True)
class Recovery:
    """`found` of `features` true directions have a latent with cosine above `threshold`; `mmcs` is the mean best."""

    features: int
    found: int
    mmcs: float
    threshold: float

    @property
    def share(self) -> float:
        """Share of the true directions that were found."""
        return self.found / self.features

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {"share": self.share}


def best_cosines(
    directions: Float[Tensor, "d_sae d_in"], truth: Float[Tensor, "features d_in"]
) -> Float[Tensor, " features"]:
    """Every true direction's largest cosine with any latent's direction (signed: a latent points one way)."""
    return best_latents(directions, truth)[0]


def recovery(
    directions: Float[Tensor, "d_sae d_in"], truth: Float[Tensor, "features d_in"], threshold: float = 0.9
) -> Recovery:
    """Count the true directions that some latent has a cosine above `threshold` with."""
    best = best_cosines(directions, truth)
    return Recovery(len(truth), int((best > threshold).sum()), float(best.mean()), threshold)


def best_latents(
    directions: Float[Tensor, "d_sae d_in"], truth: Float[Tensor, "features d_in"]
) -> tuple[Float[Tensor, " features"], Tensor]:
    """Every true direction's largest cosine with any latent's direction, and that latent."""
    with torch.no_grad():
        a = torch.nn.functional.normalize(directions.double(), dim=1)
        b = torch.nn.functional.normalize(truth.double(), dim=1)
        found = (b @ a.T).max(1)
        return found.values, found.indices


def absorbed_share(codes: Codes, latent: int, parent: Bool[Tensor, " rows"], child: Bool[Tensor, " rows"]) -> float:
    """Of the rows where a feature and another that implies it are on, the share where the feature's latent is silent.

    0 is no absorption, 1 is that the other's latent has taken the feature over. NaN where the two are never on.
    """
    fires = torch.zeros(codes.rows, dtype=torch.bool)
    rows, value = codes.column(latent)
    fires[rows[value > 0]] = True
    both = parent & child
    return float((~fires[both]).double().mean()) if bool(both.any()) else float("nan")
