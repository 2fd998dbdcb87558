"""Training dictionaries: one process, one reader, one or several dictionaries; can be stopped and continued."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lensing.config import to_mapping, write_run
from lensing.data.rows import Rows, TensorRows
from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import load_dictionary
from lensing.dictionary.statistics import Sample
from lensing.errors import FileFormatError, Interrupted, SiteError, UsageError
from lensing.files import atomic_file, explained
from lensing.progress import Meter
from lensing.training.finish import measure_statistics
from lensing.training.report import TrainReport
from lensing.training.step import StepReport, Trainer

CHECKPOINT = "checkpoint.safetensors"
START_ROWS = 32_768
SAMPLE_TOKENS = 20_000
POINTS = 200  # points of the history, about


@dataclass(frozen=True, kw_only=True)
class Job:
    """One dictionary of several that are trained from one source: its architecture and its site."""

    config: Any
    site: str | None = None
    lr: float | None = None
    seed: int = 0


def train(
    source: Rows | Float[Tensor, "rows d_in"],
    config: Any,
    *,
    site: str | None = None,
    tokens: int | None = None,
    batch: int = 4096,
    lr: float | None = None,
    warmup: int | None = None,
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

    `tokens` rows are seen (None: one epoch), `batch` a step. `lr` None is 2e-4 / sqrt(width / 2**14), with `warmup`
    steps (None: a twentieth of all, at most 1,000) and a linear decay over the last fifth. With `out`, the folder gets
    run.json, metrics.jsonl, a checkpoint every `checkpoint_minutes` and the finished dictionary; a rerun of the same
    call continues, bit for bit as if it had never stopped. Statistics are measured on up to `held_out_rows` rows that
    training never saw, after rounding to `dtype`. Raises TrainingError when the loss is not finite and Interrupted
    (with the checkpoint's path) on Ctrl-C.
    """
    found = train_many(
        source, {"": Job(config=config, site=site, lr=lr, seed=seed)}, tokens=tokens, batch=batch, warmup=warmup,
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
    jobs = {name: replace(job, site=_site(rows, job.site)) for name, job in jobs.items()}
    steps = math.ceil((tokens if tokens is not None else rows.rows) / batch)
    warmup = warmup if warmup is not None else min(1000, max(steps // 20, 1))
    setting = {
        "jobs": {
            name: {"architecture": job.config.architecture, "config": to_mapping(job.config), "site": job.site}
            | {"lr": job.lr, "seed": job.seed}
            for name, job in jobs.items()
        },
        "steps": steps, "batch": batch, "warmup": warmup, "dtype": str(dtype), "held_out_rows": held_out_rows,
        "source": rows.fingerprint(), "sites": list(rows.sites), "model": rows.model_name,
    }  # fmt: skip
    run = _Run(rows, jobs, setting, Path(out) if out is not None else None, steps, batch, warmup)
    done = run.begin(resume)
    if done is not None:
        return done
    run.loop(checkpoint_minutes, quiet, callback)
    return run.finish(held_out_rows, dtype)


class _Run:
    """The state of one call of train_many."""

    def __init__(
        self,
        source: Rows,
        jobs: Mapping[str, Job],
        setting: dict[str, Any],
        out: Path | None,
        steps: int,
        batch: int,
        warmup: int,
    ) -> None:
        # through JSON, so that what is compared with a file compares alike
        self.source, self.jobs, self.setting, self.out = source, jobs, json.loads(json.dumps(setting)), out
        self.steps, self.batch, self.warmup = steps, batch, warmup
        self.step, self.seconds, self.saved_step = 0, 0.0, -1
        self.history: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
        self.trainers: dict[str, Trainer] = {}

    # --- begin, continue ---

    def begin(self, resume: bool) -> dict[str, Dictionary] | None:
        """Prepare folder and trainers; return the dictionaries when this very run was finished before."""
        checkpoint = self.out / CHECKPOINT if self.out is not None else None
        if self.out is not None and resume and self._finished():
            return {name: self._reload(name) for name in self.jobs}
        if checkpoint is not None and checkpoint.exists() and not resume:
            checkpoint.unlink()
        if checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)
            return None
        first = next(self.source.batches(min(START_ROWS, max(self.source.rows, 1))))
        for name, job in self.jobs.items():
            self.trainers[name] = self._trainer(job, first[str(job.site)].shape[1])
            self.trainers[name].start(first[str(job.site)])
        if self.out is not None:
            for name in self.jobs:
                folder = self.out / name
                with explained(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / "config.json").unlink(missing_ok=True)
                    (folder / "metrics.jsonl").unlink(missing_ok=True)
            write_run(self.out, what="train", setting=self.setting)
        return None

    def _trainer(self, job: Job, d_in: int) -> Trainer:
        return Trainer(
            job.config, d_in, steps=self.steps, batch=self.batch, lr=job.lr, warmup=self.warmup, seed=job.seed
        )

    def _finished(self) -> bool:
        assert self.out is not None
        if not all((self.out / name / "config.json").exists() for name in self.jobs):
            return False
        try:
            record = json.loads((self.out / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(record, dict) and record.get("setting") == self.setting

    def _reload(self, name: str) -> Dictionary:
        assert self.out is not None
        dictionary = load_dictionary(self.out / name)
        record = json.loads((self.out / name / "config.json").read_text(encoding="utf-8"))
        lines = (self.out / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        dictionary.report = TrainReport(**record["training"], history=[json.loads(line) for line in lines])
        return dictionary

    def _load(self, path: Path) -> None:
        tensors, metadata = read_checkpoint(path)
        if metadata["setting"] != self.setting:
            different = [key for key in self.setting if metadata["setting"].get(key) != self.setting[key]]
            raise UsageError(
                f"{path} belongs to another run (other {', '.join(different)}). "
                "Give another folder with --out, or start anew without resuming."
            )
        for name, job in self.jobs.items():
            mine = {key.removeprefix(f"{name}|"): t for key, t in tensors.items() if key.startswith(f"{name}|")}
            trainer = self._trainer(job, mine["weight.b_dec"].shape[0])
            trainer.load_state(mine)
            self.trainers[name] = trainer
        self.step = self.saved_step = int(metadata["step"])
        self.seconds, self.history = float(metadata["seconds"]), metadata["history"]
        for name, points in self.history.items():  # lines written after the checkpoint will be written again
            self._write_metrics(name, points)

    def checkpoint(self) -> Path | None:
        """Save everything that the next step depends on, in one file; None without a folder."""
        if self.out is None:
            return None
        path = self.out / CHECKPOINT
        tensors = {
            f"{name}|{key}": tensor.contiguous()
            for name, trainer in self.trainers.items()
            for key, tensor in trainer.state().items()
        }
        metadata = {
            "setting": self.setting,
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }
        with atomic_file(path) as temporary:
            save_file(tensors, str(temporary), metadata={"lensing": json.dumps(metadata)})
        self.saved_step = self.step
        return path

    # --- the loop ---

    def loop(self, checkpoint_minutes: float, quiet: bool, callback: Callable[[str, StepReport], None] | None) -> None:
        """Take the steps that are left."""
        every = max(self.steps // POINTS, 1)
        began, before, saved = time.monotonic(), self.seconds, time.monotonic()
        total = self.steps * self.batch
        with _Signal() as stop, Meter("training", total=total, unit="rows", quiet=quiet) as meter:
            meter.advance(self.step * self.batch)
            try:
                batches = self.source.batches(self.batch, start=self.step * self.batch)
                while self.step < self.steps:
                    rows = next(batches)
                    reports = {name: t.step(rows[str(self.jobs[name].site)]) for name, t in self.trainers.items()}
                    self.step += 1
                    self.seconds = before + time.monotonic() - began
                    if self.step % every == 0 or self.step == self.steps:
                        self._note(reports)
                    worst = max(report.fvu for report in reports.values())
                    meter.advance(self.batch, f"fvu {worst:.3f}")
                    if callback is not None:
                        for name, report in reports.items():
                            callback(name, report)
                    if stop.pressed:
                        raise KeyboardInterrupt
                    if time.monotonic() - saved > 60 * checkpoint_minutes:
                        self.checkpoint()
                        saved = time.monotonic()
            except KeyboardInterrupt as error:
                raise self._interrupted() from error

    def _interrupted(self) -> Interrupted:
        # a second Ctrl-C may have cut a step in half: then the trainers disagree with the counter
        whole = all(trainer.step_number == self.step for trainer in self.trainers.values())
        path = self.checkpoint() if whole else (self.out / CHECKPOINT if self.saved_step >= 0 and self.out else None)
        if path is None:
            return Interrupted(
                f"Stopped at step {self.step} of {self.steps}; nothing was saved. Give --out to keep work."
            )
        return Interrupted(
            f"Stopped at step {self.step} of {self.steps}; the checkpoint is {path}. Run the same command to continue."
        )

    def _note(self, reports: dict[str, StepReport]) -> None:
        for name, r in reports.items():
            point = {
                "step": self.step, "rows": self.step * self.batch, "fvu": r.fvu, "aux": r.aux, "l0": r.l0,
                "dead": r.dead, "lr": r.lr, "seconds": round(self.seconds, 3),
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
            d.site, d.model_name = job.site, self.source.model_name
            d.statistics = measure_statistics(
                d, (part[str(job.site)] for part in held),
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
            (self.out / CHECKPOINT).unlink(missing_ok=True)
        return {name: trainer.dictionary for name, trainer in self.trainers.items()}


class _Signal:
    """Turn the first Ctrl-C into a flag that is read between steps; the second one interrupts at once."""

    def __init__(self) -> None:
        self.pressed = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint's tensors and facts; FileFormatError when it is truncated or corrupt."""
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["lensing"])
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise FileFormatError(f"{path} is truncated or corrupt: {error}. Remove it to start anew.") from error


def _site(rows: Rows, site: str | None) -> str:
    if site is None:
        if len(rows.sites) > 1:
            raise SiteError(f"The source gives {', '.join(rows.sites)}. Say which with site=.")
        return rows.sites[0]
    if site not in rows.sites:
        raise SiteError(f"The source does not give {site!r} but {', '.join(rows.sites)}. Name one of these.")
    return site
