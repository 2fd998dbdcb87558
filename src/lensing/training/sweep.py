"""A sweep: a grid of dictionaries trained from one reader, and the table of what came out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.data.rows import Rows, TensorRows
from lensing.dictionary.base import Dictionary
from lensing.dist import join_world
from lensing.files import check_writable, finite, write_json
from lensing.model.run import Model
from lensing.training.folder import Failure, SomeFailed
from lensing.training.grid import expand
from lensing.training.job import Job
from lensing.training.loop import LOSS_TOKENS, Products, train_many
from lensing.training.report import TrainReport

SWEEP = "sweep.json"


@dataclass(frozen=True)
class Member:
    """One dictionary of a sweep: its name (that of its folder), its job, and its report or why it failed."""

    name: str
    job: Job
    report: TrainReport | None
    failure: Failure | None

    def to_json(self) -> dict[str, Any]:
        """What it is and what came out, as plain values; `rows_per_second` are those of its own steps."""
        found: dict[str, Any] = {"name": self.name, **self.job.setting()}
        if self.failure is not None:
            return {**found, "failure": self.failure.to_json()}
        assert self.report is not None
        r, loss = self.report, self.report.behaviour or {}
        return {
            **found, "fvu": r.fvu, "l0": r.l0, "dead_share": r.dead_share, "silent_share": r.silent_share,
            "loss_recovered": loss.get("loss_recovered"), "loss_recovered_se": loss.get("loss_recovered_se"),
            "delta_loss": loss.get("delta_loss"), "delta_loss_se": loss.get("delta_loss_se"),
            "behaviour_note": r.behaviour_note, "rows": r.tokens, "step_seconds": r.step_seconds,
            "rows_per_second": r.tokens / max(r.step_seconds, 1e-9), "failure": None,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class SweepReport:
    """A sweep's members in the order of the grid, and their dictionaries by name."""

    members: tuple[Member, ...]
    dictionaries: dict[str, Dictionary]
    out: str | None = None

    @property
    def failures(self) -> dict[str, Failure]:
        """Why some members could not be trained to the end, by name."""
        return {member.name: member.failure for member in self.members if member.failure is not None}

    @property
    def seconds(self) -> float:
        """Seconds of the whole training, reading included."""
        return max((member.report.seconds for member in self.members if member.report), default=0.0)

    @property
    def reading_seconds(self) -> float:
        """Seconds of these in which it waited for rows."""
        return max((member.report.reading_seconds for member in self.members if member.report), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """The table, as it stands in sweep.json."""
        members = [finite(member.to_json()) for member in self.members]
        return {"seconds": self.seconds, "reading_seconds": self.reading_seconds, "out": self.out, "members": members}


def sweep(
    source: Rows | Float[Tensor, "rows d_in"],
    grid: Mapping[str, Any] | Sequence[Mapping[str, Any]] | Mapping[str, Job],
    *,
    out: str | Path | None = None,
    tokens: int | None = None,
    batch: int = 4096,
    warmup: int | None = None,
    ema: float | None = None,
    products: Products = "auto",
    device: str = "auto",
    checkpoint_minutes: float = 5.0,
    resume: bool = True,
    quiet: bool = False,
    held_out_rows: int = 131_072,
    dtype: torch.dtype = torch.float32,
    log: Iterable[str] = (),
    model: Model | None = None,
    loss_tokens: int = LOSS_TOKENS,
    tp: int = 1,
    teams: int = 1,
) -> SweepReport:
    """Train every combination of a grid from one reader, each exactly as if it were trained alone.

    A grid names axes, each with one value or a list: `{"architecture": "topk", "width": [1024, 2048], "k": [16, 32],
    "lr": [1e-3, 3e-4], "seed": [0, 1], "site": [...], "target": [...]}` and the settings of the architectures; several
    grids are put together, and jobs by name are taken as they are. With `out`, each member gets a folder of its own
    below it and the table goes to sweep.json; the same call again continues. The other arguments are those of
    `ln.train`.

    A member whose loss is not finite or leaps is stopped there, kept at its last good state and reported; the rest go
    on. It would fail again, so that a rerun does not try it again.

    Raises: TrainingError: every member failed. Interrupted: as `ln.train`. UsageError: a grid that cannot be.
    """
    if isinstance(grid, Mapping) and all(isinstance(job, Job) for job in grid.values()) and grid:
        jobs: dict[str, Job] = dict(grid)
    else:
        jobs = expand([grid] if isinstance(grid, Mapping) else list(grid))
    rows = source if isinstance(source, Rows) else TensorRows(source)
    jobs = {name: job.resolved(rows) for name, job in jobs.items()}
    if out is not None:
        check_writable(out)
    failures: dict[str, Failure] = {}
    failed: SomeFailed | None = None
    try:
        made = train_many(
            rows, jobs, tokens=tokens, batch=batch, warmup=warmup, ema=ema, products=products, device=device,
            out=out, checkpoint_minutes=checkpoint_minutes, resume=resume, quiet=quiet, held_out_rows=held_out_rows,
            dtype=dtype, log=log, model=model, loss_tokens=loss_tokens, tp=tp, teams=teams,
        )  # fmt: skip
    except SomeFailed as error:
        made, failures = error.dictionaries, error.failures
        failed = error
    everyone = join_world(tp=tp, teams=teams).everyone
    reports: dict[str, TrainReport] = {}
    for theirs, ends in everyone.collect(({name: d.report for name, d in made.items()}, failures)):
        reports.update(theirs)
        failures = {**failures, **ends}
    if failed is not None and not reports:
        raise failed
    members = tuple(Member(name, job, reports.get(name), failures.get(name)) for name, job in jobs.items())
    report = SweepReport(members, made, str(out) if out is not None else None)
    if out is not None:
        everyone.share(lambda: write_json(Path(out) / SWEEP, report.to_json()))
    return report
