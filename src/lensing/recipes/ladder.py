"""Dictionaries of many widths, seeds and architectures for one model, from the same rows: what scale and chance do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lensing.data.live import live
from lensing.dictionary.configs import BatchTopK, JumpReLU, Matryoshka, ReLU
from lensing.model.run import Model
from lensing.training.job import Job
from lensing.training.loop import train_many

SITES = ("mlp_out.2", "resid_post.2", "resid_post.4")
K, WIDTHS, MIDDLE, SEEDS = 16, (256, 512, 1024, 2048, 4096), 1024, (1, 2)
BATCH, LR = 4096, 3e-3
# A threshold or a coefficient has to find its place: more and smaller steps over the same rows.
PENALISED_BATCH = 1024
PENALISED_LR = {JumpReLU: 1e-2, ReLU: 1e-3}
DTYPE = torch.int8  # a quarter of the room; statistics are measured on what is stored


@dataclass(frozen=True)
class Rung:
    """One dictionary of the ladder: how it is trained, in batches of how many rows."""

    job: Job
    batch: int = BATCH


def rungs(sites: Sequence[str] = SITES, layers: int = 6, *, width: int = MIDDLE, k: int = K) -> dict[str, Rung]:
    """Every dictionary of the ladder by its place below the model's name: `resid_post.2/w256`, `.../w1024/seed1`."""
    found: dict[str, Rung] = {}
    for site in sites:
        for w in WIDTHS:
            found[f"{site}/w{w}"] = Rung(Job(config=BatchTopK(width=w, k=k), site=site, lr=LR))
        middle = found[f"{site}/w{width}"].job
        for seed in SEEDS:
            found[f"{site}/w{width}/seed{seed}"] = Rung(replace(middle, seed=seed))
        found[f"{site}/matryoshka-w{width}"] = Rung(Job(config=Matryoshka(width=width, k=k), site=site, lr=LR))
        for name, config in (("jumprelu", JumpReLU(width=width, l0=k)), ("relu", ReLU(width=width, l0=k))):
            job = Job(config=config, site=site, lr=PENALISED_LR[type(config)])
            found[f"{site}/{name}-w{width}"] = Rung(job, PENALISED_BATCH)
    for layer in range(layers):
        site, target = f"mlp_in.{layer}", f"mlp_out.{layer}"
        job = Job(config=BatchTopK(width=width, k=k), site=site, target=target, lr=LR)
        found[f"{site}/transcoder-w{width}"] = Rung(job)
    return found


def make_ladder(
    model: Model, documents: Sequence[Sequence[int]], corpus: str, wanted: Mapping[str, Rung], *, tokens: int,
    work: Path, home: Path, dtype: torch.dtype = DTYPE, **options: Any,
) -> None:  # fmt: skip
    """Train the dictionaries of each site and batch from one reader, on `tokens` rows, where `home` lacks one."""
    groups: dict[tuple[str, int], dict[str, Job]] = {}
    for name, rung in wanted.items():
        groups.setdefault((str(rung.job.site), rung.batch), {})[name] = rung.job
    for (site, batch), jobs in groups.items():
        missing = [name for name in jobs if not (home / name / "config.json").exists()]
        if not missing:
            continue
        sites = dict.fromkeys(s for job in jobs.values() for s in (job.site, job.target) if s is not None)
        source = live(model, documents, sites=list(sites), corpus=corpus)
        # all of a group, so that a run that lost one of its copies finds the rest finished
        made = train_many(
            source, jobs, tokens=tokens, batch=batch, out=work / f"{site}-{batch}", dtype=dtype, **options
        )
        for name in missing:
            made[name].sample = None  # the same text for all of them: that of the site's other dictionaries
            made[name].save(home / name)
