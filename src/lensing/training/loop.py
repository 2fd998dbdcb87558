"""Training dictionaries: one process, one reader, one or several dictionaries; can be stopped and continued."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.config import write_run
from lensing.data.rows import Rows, TensorRows
from lensing.dictionary.base import Dictionary
from lensing.dictionary.crossload import load_cross_layer
from lensing.dictionary.load import load_dictionary
from lensing.dictionary.statistics import Sample
from lensing.errors import FileFormatError, Interrupted, LensingError, TrainingError, UsageError
from lensing.files import atomic_file, explained, sweep
from lensing.memory import refuse_too_large
from lensing.progress import Meter
from lensing.training.checkpoint import Asked, has_checkpoint, latest_checkpoint, remove_checkpoints, write_checkpoint
from lensing.training.cross import measure_cross_layer
from lensing.training.device import find_device
from lensing.training.finish import measure_statistics
from lensing.training.job import Job
from lensing.training.report import TrainReport
from lensing.training.step import StepReport, Trainer

START_ROWS = 32_768
SAMPLE_TOKENS = 20_000
POINTS = 200  # points of the history, about

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
    callback: Callable[[StepReport], None] | None = None,
) -> Dictionary:
    """Train one dictionary on a source of rows (`ln.live(...)`, or a tensor) and return it with `.report`.

    `tokens` rows are seen (None: one epoch), `batch` a step. `lr` None is the architecture's own (its config's recipe),
    with `warmup` steps (None: a twentieth of all, at most 1,000). A `site` that joins several with `+` makes a
    crosscoder, a `target` site a transcoder, `skip` gives it a linear map round the latents. `ema`: the dictionary is
    the running mean of its weights with this memory (0.999, say). `products`: active latents are looked for in
    bfloat16 and decided in float32, by default where the processor multiplies it fast. `device`: cpu, cuda, or the GPU
    where there is one (auto); a checkpoint of one goes on on the other. With `out`, the folder gets
    run.json, metrics.jsonl, a checkpoint every `checkpoint_minutes` and the finished dictionary; a rerun of the same
    call continues, bit for bit as if it had never stopped. Statistics are measured on up to `held_out_rows` rows that
    training never saw, after rounding to `dtype`. Raises TrainingError when the loss is not finite or leaps, and
    Interrupted (with the checkpoint's path) on Ctrl-C, SIGTERM and SIGUSR1.
    """
    job = Job(config=config, site=site, target=target, skip=skip, lr=lr, seed=seed)
    found = train_many(
        source, {"": job}, tokens=tokens, batch=batch, warmup=warmup, ema=ema, products=products, device=device,
        out=out, checkpoint_minutes=checkpoint_minutes, resume=resume, quiet=quiet,
        held_out_rows=held_out_rows, dtype=dtype,
        callback=None if callback is None else lambda _, report: callback(report),
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
    callback: Callable[[str, StepReport], None] | None = None,
) -> dict[str, Dictionary]:
    """Train several dictionaries from one reader, each in the folder `out`/<its name>; the rest as in `train`.

    Every dictionary comes out exactly as if it had been trained alone.
    """
    rows = source if isinstance(source, Rows) else TensorRows(source)
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
    jobs = {name: job.resolved(rows) for name, job in jobs.items()}
    steps = math.ceil((tokens if tokens is not None else rows.rows) / batch)
    setting = {
        "jobs": {name: job.setting() for name, job in jobs.items()},
        "steps": steps, "batch": batch, "dtype": str(dtype), "held_out_rows": held_out_rows,
        "warmup": warmup if warmup is not None else min(1000, max(steps // 20, 1)), "ema": ema,
        "products": "bfloat16" if products == "auto" and bfloat16_is_fast() else products.replace("auto", "float32"),
        "source": rows.fingerprint(), "sites": list(rows.sites), "model": rows.model_name,
    }  # fmt: skip
    run = _Run(rows, jobs, setting, Path(out) if out is not None else None, find_device(device))
    done = run.begin(resume)
    if done is not None:
        return done
    run.loop(checkpoint_minutes, quiet, callback)
    return run.finish(held_out_rows, dtype)


def bfloat16_is_fast() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class _Run:
    """The state of one call of train_many."""

    def __init__(
        self, source: Rows, jobs: Mapping[str, Job], setting: dict[str, Any], out: Path | None, device: torch.device
    ) -> None:  # fmt: skip
        self.device = device  # no part of the setting: a checkpoint may go on elsewhere
        # through JSON, so that what is compared with a file compares alike
        self.source, self.jobs, self.setting, self.out = source, jobs, json.loads(json.dumps(setting)), out
        self.steps, self.batch = int(setting["steps"]), int(setting["batch"])
        self.step, self.seconds = 0, 0.0
        self.saved: Path | None = None
        self.history: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
        self.trainers: dict[str, Trainer] = {}

    # --- begin, continue ---

    def begin(self, resume: bool) -> dict[str, Dictionary] | None:
        """Prepare folder and trainers; return the dictionaries when this very run was finished before."""
        if self.out is not None:
            if resume and self._finished():
                remove_checkpoints(self.out)
                return {name: self._reload(name) for name in self.jobs}
            if not resume:
                remove_checkpoints(self.out)
            elif not has_checkpoint(self.out):
                self._refuse_finished()
            for name in ("", *self.jobs):
                sweep(self.out / name)
        first = next(self.source.batches(min(START_ROWS, max(self.source.rows, 1))))
        width = sum(rows.shape[1] for rows in first.values())
        refuse_too_large(f"A batch of {self.batch:,} rows", 3 * 4 * width * self.batch, "Give a smaller --batch.")
        for name, job in self.jobs.items():
            x, y = job.rows(first)
            self.trainers[name] = Trainer(
                job.config, x.shape[1], d_out=None if y is None else y.shape[1], skip=job.skip, parts=job.parts(first),
                steps=self.steps, batch=self.batch, lr=job.lr, warmup=self.setting["warmup"], seed=job.seed,
                quick=self.setting["products"] == "bfloat16", ema=self.setting["ema"], writes=job.writes(first),
                device=self.device,
            )  # fmt: skip
        if self._continue():
            return None
        for name, job in self.jobs.items():
            self.trainers[name].start(*job.rows(first))
        if self.out is not None:
            for name in self.jobs:
                folder = self.out / name
                with explained(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / "config.json").unlink(missing_ok=True)
                    (folder / "metrics.jsonl").unlink(missing_ok=True)
            write_run(self.out, what="train", setting=self.setting)
        return None

    def _finished(self) -> bool:
        assert self.out is not None
        if not all((self.out / name / "config.json").exists() for name in self.jobs):
            return False
        return self._recorded() == self.setting

    def _recorded(self) -> dict[str, Any] | None:
        """The setting in the folder's run.json, None where there is none that can be read."""
        assert self.out is not None
        try:
            setting = json.loads((self.out / "run.json").read_text(encoding="utf-8"))["setting"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return setting if isinstance(setting, dict) else None

    def _refuse_finished(self) -> None:
        """What another run finished is not written over."""
        assert self.out is not None
        for name in self.jobs:
            if (self.out / name / "config.json").exists():
                before = self._recorded()
                why = differences(before, self.setting) if before is not None else "run.json does not say which"
                raise UsageError(
                    f"{self.out / name} holds a dictionary of another run ({why}). "
                    "Give another folder with --out, or remove this one."
                )

    def _reload(self, name: str) -> Dictionary:
        assert self.out is not None
        load = load_cross_layer if self.jobs[name].cross_layer else load_dictionary
        dictionary: Any = load(self.out / name)
        record = json.loads((self.out / name / "config.json").read_text(encoding="utf-8"))
        path = self.out / name / "metrics.jsonl"
        try:
            history = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            dictionary.report = TrainReport(**record["training"], history=history)
        except (OSError, ValueError, TypeError) as error:
            raise FileFormatError(
                f"{path} is missing or not what was written beside the dictionary: {error}. "
                "The dictionary itself is whole: load it, or give another folder with --out."
            ) from error
        return dictionary

    def _continue(self) -> bool:
        found = latest_checkpoint(self.out) if self.out is not None else None
        if found is None:
            return False
        path, tensors, facts = found
        if facts["setting"] != self.setting:
            raise UsageError(
                f"{path} belongs to another run ({differences(facts['setting'], self.setting)}). "
                "Give another folder with --out, or start anew without resuming."
            )
        for name, trainer in self.trainers.items():
            trainer.load_state(
                {key.removeprefix(f"{name}|"): t for key, t in tensors.items() if key.startswith(f"{name}|")}
            )
        self.step, self.saved = int(facts["step"]), path
        self.seconds, self.history = float(facts["seconds"]), facts["history"]
        for name, points in self.history.items():  # lines written after the checkpoint will be written again
            self._write_metrics(name, points)
        return True

    def checkpoint(self) -> Path | None:
        """Save everything that the next step depends on, in one file; None without a folder."""
        if self.out is None:
            return None
        tensors = {f"{name}|{key}": t for name, trainer in self.trainers.items() for key, t in trainer.state().items()}
        facts = {"setting": self.setting, "step": self.step, "seconds": self.seconds, "history": self.history}
        self.saved = write_checkpoint(self.out, tensors, facts)
        return self.saved

    # --- the loop ---

    def loop(self, checkpoint_minutes: float, quiet: bool, callback: Callable[[str, StepReport], None] | None) -> None:
        """Take the steps that are left."""
        every = max(self.steps // POINTS, 1)
        began, before, saved = time.monotonic(), self.seconds, time.monotonic()
        total = self.steps * self.batch
        with Asked() as asked, Meter("training", total=total, unit="rows", quiet=quiet) as meter:
            meter.resume(self.step * self.batch)
            try:
                batches = self.source.batches(self.batch, start=self.step * self.batch)
                while self.step < self.steps:
                    rows = next(batches)
                    reports = {name: t.step(*self.jobs[name].rows(rows)) for name, t in self.trainers.items()}
                    self.step += 1
                    self.seconds = before + time.monotonic() - began
                    if self.step % every == 0 or self.step == self.steps:
                        self._note(reports)
                    worst = max(report.fvu for report in reports.values())
                    meter.advance(self.batch, f"fvu {worst:.3f}")
                    if callback is not None:
                        for name, report in reports.items():
                            callback(name, report)
                    if asked.by is not None:
                        raise self._stopped(asked.by)
                    if time.monotonic() - saved > 60 * checkpoint_minutes:
                        self.checkpoint()
                        saved = time.monotonic()
            except KeyboardInterrupt as error:
                raise self._stopped("SIGINT") from error
            except Interrupted:
                raise
            except TrainingError as error:
                first = self.step * self.batch
                raise TrainingError(
                    f"Rows {first:,} to {first + self.batch - 1:,} of the source stopped the training. {error} "
                    f"{self._where()}"
                ) from error
            except LensingError as error:  # a shard that is gone, a disk that is full
                error.args = (f"{error} {self._where()}",)
                raise

    def _where(self) -> str:
        try:
            kept = self._kept()
        except LensingError:  # the disk is full
            kept = self.saved
        return f"The last good state is {kept}." if kept else "Nothing was saved. Give --out to keep work."

    def _kept(self) -> Path | None:
        # a step that was cut in half leaves trainers that disagree with the counter: then only the last file is good
        whole = all(trainer.step_number == self.step for trainer in self.trainers.values())
        return self.checkpoint() if whole else self.saved

    def _stopped(self, by: str) -> Interrupted:
        path = self._kept()
        if path is None:
            return Interrupted(
                f"Stopped by {by} at step {self.step} of {self.steps}; nothing was saved. Give --out to keep work."
            )
        return Interrupted(
            f"Stopped by {by} at step {self.step} of {self.steps}; the checkpoint is {path}. "
            "Run the same command to continue."
        )

    def _note(self, reports: dict[str, StepReport]) -> None:
        for name, r in reports.items():
            point = {
                "step": self.step, "rows": self.step * self.batch, "fvu": r.fvu, "aux": r.aux, "l0": r.l0,
                "dead": r.dead, "lr": r.lr, "seconds": round(self.seconds, 3), "penalty": r.penalty,
                "coefficient": r.coefficient,
            }  # fmt: skip
            self.history[name].append(point)
            if self.out is not None:
                with explained(self.out), open(self.out / name / "metrics.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps(point) + "\n")

    def _write_metrics(self, name: str, points: list[dict[str, float]]) -> None:
        assert self.out is not None
        with atomic_file(self.out / name / "metrics.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(point) + "\n" for point in points), encoding="utf-8")

    # --- the end ---

    def finish(self, held_out_rows: int, dtype: torch.dtype) -> dict[str, Dictionary]:
        """Fold, round, measure and save every dictionary."""
        self.checkpoint()  # measuring takes a while: a stop during it costs no training
        sample = self.source.held_out_tokens(SAMPLE_TOKENS)
        for trainer in self.trainers.values():
            trainer.finish(dtype)
        held = list(self.source.held_out(held_out_rows))
        for name, trainer in self.trainers.items():
            d, job = trainer.dictionary, self.jobs[name]
            d.site, d.target, d.model_name = job.site, job.target, self.source.model_name
            measure = measure_cross_layer if job.cross_layer else measure_statistics
            d.statistics = measure(
                d, (job.rows(part) for part in held),
                corpus=self.source.corpus, documents=self.source.held_out_documents,
            )  # fmt: skip
            d.sample = Sample.of(sample) if sample else None
            silent = len(trainer.silence.dead()) / d.d_sae
            s = d.statistics
            d.report = TrainReport(
                steps=self.steps, tokens=self.steps * self.batch, batch=self.batch, lr=trainer.lr, seed=job.seed,
                seconds=self.seconds, documents=self.source.documents,
                held_out_documents=self.source.held_out_documents, held_out_rows=s.n, fvu=s.fvu, l0=s.l0,
                dead_share=s.dead_share, silent_share=silent, history=self.history[name],
            )  # fmt: skip
            if self.out is not None:
                d.save(self.out / name)
        if self.out is not None:
            remove_checkpoints(self.out)
        return {name: trainer.dictionary for name, trainer in self.trainers.items()}


def differences(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> str:
    """What differs between two settings, as `name was a, is b`, nested names with dots."""
    found = []
    for name in sorted({*before, *now}):
        a, b, path = before.get(name), now.get(name), f"{within}.{name}".strip(".")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found.append(differences(a, b, path))
        elif a != b:
            found.append(f"{path} was {a}, is {b}")
    return "; ".join(part for part in found if part)
