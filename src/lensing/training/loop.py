"""Training dictionaries: one reader, one or several dictionaries and processes; can be stopped and continued."""

from __future__ import annotations

import functools
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.config import differences
from lensing.data.rows import Rows, TensorRows
from lensing.dictionary.base import Dictionary
from lensing.dist import OthersGone, World, join_world
from lensing.errors import FileFormatError, Interrupted, LensingError, TrainingError, UsageError
from lensing.memory import refuse_too_large
from lensing.model.run import Model
from lensing.progress import Meter
from lensing.training.behaviour import check_model
from lensing.training.checkpoint import Asked, remove_checkpoints
from lensing.training.device import find_device
from lensing.training.ending import Cost, end_training
from lensing.training.folder import Failure, SomeFailed, add_metrics, reload, write_failure, write_metrics
from lensing.training.job import Job
from lensing.training.sinks import Sinks, Sitting, check_sinks
from lensing.training.step import StepReport, Trainer
from lensing.training.together import (
    Saver,
    agreed,
    begin_folders,
    check_jobs,
    check_numbers,
    find_checkpoint,
    open_folder,
    write_last,
)

START_ROWS = 32_768
POINTS = 200  # points of the history, about
LOSS_TOKENS = 8192  # held-out tokens on which a splice's cost is measured

Products = Literal["auto", "bfloat16", "float32"]


def train(
    source: Rows | Float[Tensor, "rows d_in"],
    config: Any,
    *,
    site: str | None = None,
    target: str | None = None,
    skip: bool = False,
    tokens: int | None = None,
    batch: int = 4096,
    lr: float | None = None,
    warmup: int | None = None,
    ema: float | None = None,
    products: Products = "auto",
    device: str = "auto",
    seed: int = 0,
    out: str | Path | None = None,
    checkpoint_minutes: float = 5.0,
    resume: bool = True,
    quiet: bool = False,
    held_out_rows: int = 131_072,
    dtype: torch.dtype = torch.float32,
    log: Iterable[str] = (),
    model: Model | None = None,
    loss_tokens: int = LOSS_TOKENS,
    callback: Callable[[StepReport], None] | None = None,
    tp: int = 1,
) -> Dictionary:
    """Train one dictionary on a source of rows (`ln.live(...)`, or a tensor) and return it with `.report`.

    `tokens` rows are seen (None: one epoch), `batch` a step. `lr` None is the architecture's own (its config's recipe),
    with `warmup` steps (None: a twentieth of all, at most 1,000). A `site` that joins several with `+` makes a
    crosscoder, a `target` site a transcoder, `skip` gives it a linear map round the latents. `ema`: the dictionary is
    the running mean of its weights with this memory (0.999, say). `products`: active latents are looked for in bfloat16
    and decided in float32, by default where the processor multiplies it fast. `device`: cpu, cuda, or the GPU where
    there is one (auto); a checkpoint of one goes on on the other. With `out`, the folder gets run.json, metrics.jsonl,
    a checkpoint every `checkpoint_minutes` and the finished dictionary; a rerun of the same call continues, bit for bit
    as if it had never stopped. Statistics are measured on up to `held_out_rows` rows that training never saw, after
    rounding to `dtype`; what its splice costs the model (loss recovered), on `loss_tokens` held-out tokens (0: not at
    all), where there is a model: `model`, the one that is read, or that of the store, which is never downloaded for it.
    `log` names sinks that get the numbers too: wandb, trackio, tensorboard. Under torchrun each batch is dealt out over
    the processes, and with `tp` the latents over so many of them; every process returns the dictionary. Raises
    TrainingError when the loss is not finite or leaps, and Interrupted (with the checkpoint's path) on Ctrl-C, SIGTERM
    and SIGUSR1.
    """
    job = Job(config=config, site=site, target=target, skip=skip, lr=lr, seed=seed)
    found = train_many(
        source, {"": job}, tokens=tokens, batch=batch, warmup=warmup, ema=ema, products=products, device=device,
        out=out, checkpoint_minutes=checkpoint_minutes, resume=resume, quiet=quiet,
        held_out_rows=held_out_rows, dtype=dtype, log=log, model=model, loss_tokens=loss_tokens,
        callback=None if callback is None else lambda _, report: callback(report), tp=tp,
    )  # fmt: skip
    return found[""]


def train_many(
    source: Rows | Float[Tensor, "rows d_in"],
    jobs: Mapping[str, Job],
    *,
    tokens: int | None = None,
    batch: int = 4096,
    warmup: int | None = None,
    ema: float | None = None,
    products: Products = "auto",
    device: str = "auto",
    out: str | Path | None = None,
    checkpoint_minutes: float = 5.0,
    resume: bool = True,
    quiet: bool = False,
    held_out_rows: int = 131_072,
    dtype: torch.dtype = torch.float32,
    log: Iterable[str] = (),
    model: Model | None = None,
    loss_tokens: int = LOSS_TOKENS,
    callback: Callable[[str, StepReport], None] | None = None,
    tp: int = 1,
    teams: int = 1,
) -> dict[str, Dictionary]:
    """Train several dictionaries from one reader, each in the folder `out`/<its name>; the rest as in `train`.

    Every dictionary comes out exactly as if it had been trained alone. One whose loss is not finite or leaps is stopped
    there and its last good state kept (its folder says why in failed.json); the others go on to their end, then
    SomeFailed is raised, which has what failed and what was made. Several processes form `teams`, each of which trains
    some of the dictionaries; each process returns those of its team.
    """
    rows = source if isinstance(source, Rows) else TensorRows(source)
    check_numbers(jobs, tokens, batch, checkpoint_minutes, warmup, ema)
    jobs, log = {name: job.resolved(rows) for name, job in jobs.items()}, list(log)
    check_sinks(log)
    if model is not None:
        check_model(rows, model)
    steps = math.ceil((tokens if tokens is not None else rows.rows) / batch)
    setting = {
        "jobs": {name: job.setting() for name, job in jobs.items()},
        "steps": steps, "batch": batch, "dtype": str(dtype), "held_out_rows": held_out_rows,
        "warmup": warmup if warmup is not None else min(1000, max(steps // 20, 1)), "ema": ema,
        "products": "bfloat16" if products == "auto" and bfloat16_is_fast() else products.replace("auto", "float32"),
        "source": rows.fingerprint(), "sites": list(rows.sites), "model": rows.model_name,
    }  # fmt: skip
    world = join_world(tp=tp, teams=teams)
    check_jobs(jobs, world)
    run = _Run(rows, jobs, setting, Path(out) if out is not None else None, find_device(device), world)
    if (made := run.begin(resume)) is None:
        run.loop(checkpoint_minutes, quiet, callback, log)
        made = run.finish(held_out_rows, dtype, model, loss_tokens)
    if run.failures:
        raise SomeFailed(run.failures, made)
    return made


def bfloat16_is_fast() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class _Run:
    """The state of one call of train_many."""

    def __init__(
        self, source: Rows, jobs: Mapping[str, Job], setting: dict[str, Any], out: Path | None, device: torch.device,
        world: World,
    ) -> None:  # fmt: skip
        self.device, self.world = device, world  # no part of the setting: a checkpoint may go on elsewhere
        self.names, self.saver = list(jobs), None if out is None else Saver(out, world)
        jobs = {name: job for i, (name, job) in enumerate(jobs.items()) if i % world.teams == world.number}
        # through JSON, so that what is compared with a file compares alike
        self.source, self.jobs, self.setting, self.out = source, jobs, json.loads(json.dumps(setting)), out
        self.steps, self.batch = int(setting["steps"]), int(setting["batch"])
        self.step, self.cost = 0, Cost(steps=dict.fromkeys(jobs, 0.0))
        self.saved: Path | None = None
        self.history: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
        self.trainers: dict[str, Trainer] = {}
        self.failures: dict[str, Failure] = {}

    # --- begin, continue ---

    def begin(self, resume: bool) -> dict[str, Dictionary] | None:
        """Prepare folder and trainers; return the dictionaries when this very run was finished before."""
        everyone, out = self.world.everyone, self.out
        if out is not None and everyone.share(lambda: open_folder(out, self.names, self.setting, resume=resume)):
            found = {name: reload(out / name, cross_layer=job.cross_layer) for name, job in self.jobs.items()}
            self.failures = {name: end for name, end in found.items() if isinstance(end, Failure)}
            return {name: end for name, end in found.items() if not isinstance(end, Failure)}
        first = next(self.source.batches(min(START_ROWS, max(self.source.rows, 1))))
        width = sum(rows.shape[1] for rows in first.values())
        refuse_too_large(f"A batch of {self.batch:,} rows", 3 * 4 * width * self.batch, "Give a smaller --batch.")
        for name, job in self.jobs.items():
            x, y = job.rows(first)
            self.trainers[name] = Trainer(
                job.config, x.shape[1], d_out=None if y is None else y.shape[1], skip=job.skip, parts=job.parts(first),
                steps=self.steps, batch=self.batch, lr=job.lr, warmup=self.setting["warmup"], seed=job.seed,
                quick=self.setting["products"] == "bfloat16", ema=self.setting["ema"], writes=job.writes(first),
                device=self.device, world=self.world,
            )  # fmt: skip
        if self._continue():
            return None
        failed: dict[str, TrainingError] = {}
        for name, job in self.jobs.items():
            try:
                self.trainers[name].start(*job.rows(first))
            except TrainingError as error:
                failed[name] = error
                if len(self.names) == 1:
                    raise
        if out is not None:
            everyone.share(lambda: begin_folders(out, self.names, self.setting))
        for name, error in failed.items():
            self._fail(name, error, rows=len(first[self.source.sites[0]]))
        return None

    def _continue(self) -> bool:
        found = find_checkpoint(self.out, self.world)
        if found is None:
            return False
        path, tensors, facts = found
        if facts["setting"] != self.setting:
            raise UsageError(
                f"{path} belongs to another run ({differences(facts['setting'], self.setting)}). "
                "Give another folder with --out, or start anew without resuming."
            )
        if "cost" not in facts:
            raise FileFormatError(f"{path} was written by an older version. Remove it to start anew.")
        self.failures = {n: Failure.from_json(end) for n, end in facts["failures"].items() if n in self.jobs}
        self.trainers = {name: trainer for name, trainer in self.trainers.items() if name not in self.failures}
        for name, trainer in self.trainers.items():
            trainer.load_state(
                {key.removeprefix(f"{name}|"): t for key, t in tensors.items() if key.startswith(f"{name}|")}
            )
        self.step, self.saved, self.cost = int(facts["step"]), path, Cost(**facts["cost"])
        self.history = {name: facts["history"][name] for name in self.jobs}
        for name, points in self.history.items():  # lines written after the checkpoint will be written again
            if self.world.team.rank == 0:
                write_metrics(path.parent / name, points)
        return True

    def checkpoint(self) -> Path | None:
        """Save everything that the next step depends on, and say where; None without a folder."""
        if self.saver is None:
            return None
        facts = {
            "setting": self.setting, "step": self.step, "cost": asdict(self.cost), "history": self.history,
            "failures": {name: failure.to_json() for name, failure in self.failures.items()},
        }  # fmt: skip
        self.saved = self.saver.write(self.trainers, facts)
        return self.saved

    # --- the loop ---

    def loop(
        self, checkpoint_minutes: float, quiet: bool, callback: Callable[[str, StepReport], None] | None,
        log: Iterable[str] = (),
    ) -> None:  # fmt: skip
        """Take the steps that are left."""
        every = max(self.steps // POINTS, 1)
        began, before, saved = time.monotonic(), self.cost.seconds, time.monotonic()
        log, quiet = log if self.world.team.rank == 0 else (), quiet or not self.world.is_main
        sinks = Sinks(log, Sitting(self.out, tuple(self.trainers), self.setting, self.step))
        with Asked() as asked, Meter("training", total=self.steps * self.batch, unit="rows", quiet=quiet) as meter:
            meter.resume(self.step * self.batch)
            try:
                batches = self.source.batches(self.batch, start=self.step * self.batch)
                while self.step < self.steps:
                    asking = time.monotonic()
                    rows = next(batches) if self.trainers else {}  # all may have failed that were this team's
                    self.cost.reading += time.monotonic() - asking
                    reports = self._step(rows)
                    self.step += 1
                    self.cost.seconds = before + time.monotonic() - began
                    if self.step % every == 0 or self.step == self.steps:
                        self._note(reports, sinks)
                    worst = max((report.fvu for report in reports.values()), default=math.nan)
                    meter.advance(self.batch, f"fvu {worst:.3f}")
                    if callback is not None:
                        for name, report in reports.items():
                            callback(name, report)
                    late = time.monotonic() - saved > 60 * checkpoint_minutes
                    by, late, left = agreed(asked.by, late, len(self.trainers), self.world)
                    if by is not None:
                        raise self._stopped(by)
                    if not left:
                        self._end_failed()
                    if late:
                        self.checkpoint()
                        saved = time.monotonic()
            except KeyboardInterrupt as error:
                raise self._stopped("SIGINT", together=self.world.everyone.size == 1) from error
            except (Interrupted, TrainingError, OthersGone):
                raise
            except LensingError as error:  # a shard that is gone, a disk that is full
                error.args = (f"{error} {self._where()}",)
                raise
            finally:
                sinks.close()

    def _step(self, rows: Mapping[str, Tensor]) -> dict[str, StepReport]:
        reports = {}
        for name, trainer in list(self.trainers.items()):
            began = time.monotonic()
            try:
                reports[name] = trainer.step(*self.jobs[name].rows(rows))
            except TrainingError as error:
                self._fail(name, error)
            self.cost.steps[name] += time.monotonic() - began
        return reports

    def _fail(self, name: str, error: TrainingError, rows: int | None = None) -> None:
        """Stop one dictionary and keep its last good state; TrainingError when none is left."""
        first = self.step * self.batch
        last = first + (rows or self.batch) - 1
        what = f"Rows {first:,} to {last:,} of the source stopped the training. {error}"
        if len(self.names) == 1:
            raise TrainingError(f"{what} {self._where(together=True)}") from error
        kept: Path | None = None
        if self.out is not None:
            facts = {"setting": {**self.setting, "jobs": {name: self.setting["jobs"][name]}}, "step": self.step}
            kept = write_last(self.out / name, self.trainers[name], facts, self.world)
        failure = Failure(self.step, (first, last), str(error), str(kept) if kept else None)
        if self.out is not None and self.world.team.rank == 0:
            write_failure(self.out / name, failure)
        del self.trainers[name]
        self.failures[name] = failure
        if not self.trainers and self.world.teams == 1:
            self._end_failed(error)
        if self.world.team.rank == 0:
            print(f"lensing: {name} is stopped, the others go on. {what}", file=sys.stderr, flush=True)

    def _end_failed(self, error: TrainingError | None = None) -> NoReturn:
        all_of = "; ".join(f"{name}: {end.reason}" for name, end in self.failures.items())
        raise TrainingError(f"All {len(self.names)} dictionaries failed. {all_of}") from error

    def _where(self, *, together: bool = False) -> str:
        try:
            kept = self._kept()
        except LensingError:  # the disk is full
            kept = self.saved
        if together:
            self.world.team.wait()  # as in _stopped
        return f"The last good state is {kept}." if kept else "Nothing was saved. Give --out to keep work."

    def _kept(self) -> Path | None:
        # a step that was cut in half leaves trainers that disagree with the counter: then only the last file is good
        whole = all(trainer.step_number == self.step for trainer in self.trainers.values())
        return self.checkpoint() if whole else self.saved

    def _stopped(self, by: str, *, together: bool = True) -> Interrupted:
        path = self._kept() if together else self.saved
        if together:
            self.world.everyone.wait()  # the first to end has the others ended: none before all parts are written
        if path is None:
            return Interrupted(
                f"Stopped by {by} at step {self.step} of {self.steps}; nothing was saved. Give --out to keep work."
            )
        return Interrupted(
            f"Stopped by {by} at step {self.step} of {self.steps}; the checkpoint is {path}. "
            "Run the same command to continue."
        )

    def _note(self, reports: dict[str, StepReport], sinks: Sinks) -> None:
        for name, r in reports.items():
            point = {
                "step": self.step, "rows": self.step * self.batch, "fvu": r.fvu, "aux": r.aux, "l0": r.l0,
                "dead": r.dead, "lr": r.lr, "seconds": round(self.cost.seconds, 3), "penalty": r.penalty,
                "coefficient": r.coefficient,
            }  # fmt: skip
            self.history[name].append(point)
            if self.out is not None and self.world.team.rank == 0:
                add_metrics(self.out / name, point)
            sinks.write(name, point)

    # --- the end ---

    def finish(
        self, held_out_rows: int, dtype: torch.dtype, model: Model | None, loss_tokens: int
    ) -> dict[str, Dictionary]:
        """Fold, round, measure and save every dictionary."""
        self.checkpoint()  # measuring takes a while: a stop during it costs no training
        made = end_training(
            self.source, self.jobs, self.trainers, self.cost, self.history, batch=self.batch,
            held_out_rows=held_out_rows, dtype=dtype, model=model, loss_tokens=loss_tokens, world=self.world,
        )  # fmt: skip
        if (out := self.out) is not None:
            for name, dictionary in made.items():
                self.world.team.share(functools.partial(dictionary.save, out / name))
            self.world.everyone.share(lambda: remove_checkpoints(out))
        return made
