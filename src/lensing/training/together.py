"""What processes that train together agree on: the folder, when to stop and to save, and one checkpoint of all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lensing.config import write_run
from lensing.dist import World
from lensing.errors import UsageError
from lensing.files import sweep
from lensing.training.checkpoint import (
    ASK,
    checkpoint_path,
    has_checkpoint,
    latest_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from lensing.training.folder import is_finished, prepare_folder, refuse_finished
from lensing.training.job import Job
from lensing.training.split import cut_keys, gather_state
from lensing.training.step import Trainer


def check_numbers(
    jobs: Mapping[str, Job], tokens: int | None, batch: int, checkpoint_minutes: float, warmup: int | None,
    ema: float | None,
) -> None:  # fmt: skip
    """Raise UsageError where a number that was asked for cannot be."""
    if batch < 1 or (tokens is not None and tokens < 1):
        raise UsageError(f"Cannot train on {tokens} rows in batches of {batch}. Give positive numbers.")
    for job in jobs.values():
        if job.lr is not None and not 0 < job.lr < math.inf:
            raise UsageError(f"lr is {job.lr}. Give a positive number, or none for the architecture's own.")
        if not 0 <= job.seed < 1 << 63:
            raise UsageError(f"seed is {job.seed}. Give a number from 0 to 2**63 - 1.")
    if not checkpoint_minutes >= 0:
        raise UsageError(f"checkpoint_minutes is {checkpoint_minutes}. Give zero or more.")
    if warmup is not None and warmup < 0:
        raise UsageError(f"warmup is {warmup} steps. Give zero or more.")
    if ema is not None and not 0 < ema < 1:
        raise UsageError(f"ema is {ema}. Give a number between 0 and 1, such as 0.999.")


def check_jobs(jobs: Mapping[str, Job], world: World) -> None:
    """Raise UsageError where these dictionaries cannot be trained by these processes together."""
    if len(jobs) < world.teams:
        raise UsageError(f"{len(jobs)} dictionaries do not go round {world.teams} teams. Start fewer teams.")
    if world.everyone.size > 1 and any(job.cross_layer for job in jobs.values()):
        raise UsageError("Cross-layer transcoders are trained in one process so far. Start it without torchrun.")


def open_folder(out: Path, names: Iterable[str], setting: Mapping[str, Any], *, resume: bool) -> bool:
    """Make a folder ready for a run or its continuation; True when this very run is finished there."""
    names = list(names)
    folders = [out, *(out / name for name in names if name)]
    if resume and is_finished(out, names, setting):
        remove_checkpoints(out)
        return True
    if not resume:
        for folder in folders:
            remove_checkpoints(folder)
    elif not has_checkpoint(out):
        refuse_finished(out, names, setting)
    for folder in folders:
        sweep(folder)
    return False


def begin_folders(out: Path, names: Iterable[str], setting: dict[str, Any]) -> None:
    """Make the dictionaries' folders and write run.json: a run begins at its first step."""
    for name in names:
        prepare_folder(out / name)
    write_run(out, what="train", setting=setting)


def find_checkpoint(out: Path | None, world: World) -> tuple[Path, dict[str, Any], dict[str, Any]] | None:
    """The checkpoint to continue from, if any; UsageError where the processes see different ones."""
    found = latest_checkpoint(out) if out is not None else None
    at = -1 if found is None else int(found[2]["step"])
    if world.everyone.largest([at, -at]) != [at, -at]:
        raise UsageError(
            f"The processes see different checkpoints in {out} (this one's is of step {at}). "
            "Give a folder that all of them share with --out."
        )
    return found


def agreed(by: str | None, late: bool, left: int, world: World) -> tuple[str | None, bool, bool]:
    """The signal that stops all after the same step, whoever got it; whether the first process wants to save; and
    whether any of them has a dictionary `left` to train."""
    everyone = world.everyone
    if everyone.size == 1:
        return by, late, left > 0
    number = 0 if by is None else ASK.index(by) + 1
    number, save, left = map(int, everyone.largest([number, late and world.is_main, left]))
    return ASK[number - 1] if number else None, bool(save), left > 0


class Saver:
    """Writes a run's checkpoints: one file, or as many parts as processes hold something that no other holds."""

    def __init__(self, out: Path, world: World) -> None:
        self.out, self.world = out, world
        self._last = -1  # the step of the last one of this sitting

    def write(self, trainers: Mapping[str, Trainer], facts: dict[str, Any]) -> Path:
        """Write this process's part, whose path is returned. Nobody waits: parts of one step are one checkpoint."""
        world, parts = self.world, self.world.parts
        states = {name: trainer.state() for name, trainer in trainers.items()}
        tensors = {f"{name}|{key}": t for name, state in states.items() for key, t in state.items()}
        if parts > 1:
            held = {name: trainer.dictionary.d_sae for name, trainer in trainers.items()}
            cut = [f"{name}|{key}" for name, state in states.items() for key in cut_keys(state, held[name])]
            facts = {**facts, "part": world.part, "parts": parts, "cut": cut}
        if world.data.rank == 0:
            write_checkpoint(self.out, tensors, facts, part=world.part, parts=parts)
        # of another number of parts: gone when all processes have taken a step since, or one has written for all
        if world.is_main and (parts == 1 or 0 <= self._last < int(facts["step"])):
            remove_checkpoints(self.out, except_parts=parts)
        self._last = int(facts["step"])
        return checkpoint_path(self.out, part=world.part, parts=parts)


def write_last(folder: Path, trainer: Trainer, facts: dict[str, Any], world: World) -> Path:
    """Write the whole state of one trainer that is stopped; all processes of its team must call."""
    state = gather_state(trainer.state(), trainer.config.width, world.latents)
    if world.team.rank == 0:
        write_checkpoint(folder, state, facts)
    return checkpoint_path(folder)
