"""The end of a training: fold, round, measure, and say what it cost and what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from lensing.data.rows import Rows
from lensing.dictionary.base import Dictionary
from lensing.dictionary.statistics import Sample
from lensing.dist import ALONE, World
from lensing.model.run import Model
from lensing.training.behaviour import measure_behaviour
from lensing.training.cross import CrossMeter
from lensing.training.finish import StatisticsMeter
from lensing.training.job import Job
from lensing.training.report import TrainReport
from lensing.training.step import Trainer

SAMPLE_TOKENS = 20_000


@dataclass
class Cost:
    """Seconds of this and earlier sittings: all of them, waiting for rows, and in each dictionary's own steps."""

    seconds: float = 0.0
    reading: float = 0.0
    steps: dict[str, float] = field(default_factory=dict)


def end_training(
    source: Rows,
    jobs: Mapping[str, Job],
    trainers: Mapping[str, Trainer],
    cost: Cost,
    history: Mapping[str, list[dict[str, float]]],
    *,
    batch: int,
    held_out_rows: int,
    dtype: torch.dtype,
    model: Model | None,
    loss_tokens: int,
    world: World = ALONE,
) -> dict[str, Dictionary]:
    """Return the dictionaries of trainers that took their last step, with statistics, sample and report.

    Held-out rows are read once for all, a part at a time, by the first of the processes that hold the same
    dictionaries. Nothing is written.
    """
    for name, trainer in trainers.items():
        trainer.finish(dtype)
        job, d = jobs[name], trainer.dictionary
        d.site, d.target, d.model_name = job.site, job.target, source.model_name

    def measured() -> dict[str, tuple[Any, ...]]:
        found = _measured(
            source, jobs, trainers, cost, history, batch=batch, held_out_rows=held_out_rows, model=model,
            loss_tokens=loss_tokens,
        )  # fmt: skip
        return {name: (d.statistics, d.sample, d.report) for name, d in found.items()}

    made = {name: trainer.dictionary for name, trainer in trainers.items()}
    for name, found in world.team.share(measured).items():
        made[name].statistics, made[name].sample, made[name].report = found
    return made


def _measured(
    source: Rows,
    jobs: Mapping[str, Job],
    trainers: Mapping[str, Trainer],
    cost: Cost,
    history: Mapping[str, list[dict[str, float]]],
    *,
    batch: int,
    held_out_rows: int,
    model: Model | None,
    loss_tokens: int,
) -> dict[str, Dictionary]:
    if not trainers:  # every dictionary of this team failed
        return {}
    meters: dict[str, Any] = {}
    for name, trainer in trainers.items():
        job, d = jobs[name], trainer.dictionary
        # a cross-layer transcoder is several dictionaries, each with numbers of its own
        meters[name] = CrossMeter(d) if job.cross_layer else StatisticsMeter(d)
    for part in source.held_out(held_out_rows):
        for name, meter in meters.items():
            meter.add(*jobs[name].rows(part))
    sample = source.held_out_tokens(SAMPLE_TOKENS)
    made = {name: trainer.dictionary for name, trainer in trainers.items()}
    for name, d in made.items():
        d.statistics = meters[name].statistics(corpus=source.corpus, documents=source.held_out_documents)
        d.sample = Sample.of(sample) if sample else None
    behaviour = measure_behaviour(source, made, tokens=loss_tokens, model=model)
    for name, d in made.items():
        trainer, s = trainers[name], d.statistics
        assert s is not None
        d.report = TrainReport(
            steps=trainer.steps, tokens=trainer.steps * batch, batch=batch, lr=trainer.lr, seed=jobs[name].seed,
            seconds=cost.seconds, documents=source.documents, held_out_documents=source.held_out_documents,
            held_out_rows=s.n, fvu=s.fvu, l0=s.l0, dead_share=s.dead_share,
            silent_share=len(trainer.silence.dead()) / d.d_sae, step_seconds=cost.steps[name],
            reading_seconds=cost.reading, behaviour=behaviour[name][0], behaviour_note=behaviour[name][1],
            history=history[name],
        )  # fmt: skip
    return made
