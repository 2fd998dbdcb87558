"""An index in a few numbers: how often latents fire, and how many never do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np

from lensing.index.index import Index

RARE = 10  # active places below which a latent is called ultra-rare


@final
@dataclass(frozen=True)
class Summary:
    """What an index holds. Latents that fire on fewer than 10 tokens, but on one at least, are `rare`.

    `densities` are the 5th, 25th, 50th, 75th and 95th percentile over latents that fire, `missed` the mean of
    |x - x_hat|^2 over the mean of |x|^2 on this text.
    """

    folder: str
    model: str
    dictionary: str
    site: str
    text: str
    tokens: int
    pieces: int
    latents: int
    dead: int
    rare: int
    l0: float
    densities: tuple[float, ...]
    missed: float
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def summary(index: Index) -> Summary:
    """Return an index in a few numbers."""
    count, facts = index.array("count"), index.facts
    alive = count > 0
    density = index.array("density")[alive]
    error, norm = (np.square(index.array(name), dtype=np.float64).sum() for name in ("row_error", "row_norm"))
    return Summary(
        folder=str(index.folder), model=facts.model["name"], dictionary=str(facts.dictionary["id"] or "no id"),
        site=facts.dictionary["site"], text=facts.text["name"], tokens=index.rows, pieces=facts.text["pieces"],
        latents=index.d_sae, dead=int((~alive).sum()), rare=int((alive & (count < RARE)).sum()),
        l0=float(count.sum() / index.rows),
        densities=tuple(np.percentile(density, (5, 25, 50, 75, 95)).tolist()) if alive.any() else (),
        missed=float(error / norm) if norm else 0.0,
        bytes=sum(path.stat().st_size for path in index.folder.iterdir() if path.is_file()),
    )  # fmt: skip
