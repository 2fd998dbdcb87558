"""Training a cross-layer transcoder: the loop's job of that form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lensing.data.rows import Rows
from lensing.dictionary.configs import JOIN
from lensing.dictionary.crosslayer import CrossLayer
from lensing.training.job import Job
from lensing.training.loop import train_many
from lensing.training.step import StepReport


def train_cross_layer(
    source: Rows,
    config: Any,
    *,
    reads: Sequence[str],
    writes: Sequence[str],
    skip: bool = False,
    lr: float | None = None,
    seed: int = 0,
    callback: Callable[[StepReport], None] | None = None,
    **setting: Any,
) -> CrossLayer:
    """Train a cross-layer transcoder, whose latents read one layer's site and write that layer's and all after it.

    `reads` and `writes` name as many sites, in the order of the layers; numbers in `config` (width, k, l0) are of each
    layer. `skip` gives each layer a linear map to its own site. Any other `setting` is one of `train`'s. Source:
    Ameisen et al. 2025 ("Circuit Tracing"), whose penalty is `JumpReLU(penalty="tanh", ramp=1.0)`.
    """
    job = Job(
        config=config, site=JOIN.join(reads), target=JOIN.join(writes), skip=skip, cross_layer=True, lr=lr, seed=seed
    )
    told = None if callback is None else lambda _, report: callback(report)
    found: Any = train_many(source, {"": job}, callback=told, **setting)[""]
    return found
