"""Routes of long work: jobs and their progress, and the curves of trainings under the runs folder."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from lensing.errors import UnknownNameError
from lensing.server.answer import answer
from lensing.server.rooms import Served
from lensing.training.folder import METRICS

router = APIRouter(tags=["work"])
POINTS = 600  # of a curve, at most
WAIT_S = 15.0


@router.get("/jobs")
def jobs(served: Served) -> Response:
    """All jobs, the newest first."""
    return answer({"jobs": [job.to_json() for job in served.jobs.all()]})


@router.post("/jobs/{number}/cancel")
def cancel(served: Served, number: str) -> Response:
    """Ask a job to stop."""
    return answer(served.jobs.cancel(number))


@router.get("/jobs/{number}/events")
async def events(served: Served, number: str) -> StreamingResponse:
    """A job's progress as server-sent events, until it ends."""
    job = served.jobs.get(number)

    async def progress() -> AsyncIterator[bytes]:
        version = -1
        while True:
            version = await asyncio.to_thread(served.jobs.wait, job, version, WAIT_S)
            yield b"data: " + orjson.dumps(job.to_json()) + b"\n\n"
            if job.state != "running":
                return
            await asyncio.sleep(0.2)

    return StreamingResponse(progress(), media_type="text/event-stream", headers={"cache-control": "no-store"})


@router.get("/runs")
def runs(served: Served) -> Response:
    """Trainings under the runs folder, the one that moved last first."""
    found = _found(served.runs)
    rows = [
        {"name": name, "changed": path.stat().st_mtime, "state": _state(path.parent)} for name, path in found.items()
    ]
    return answer({"folder": str(served.runs), "runs": sorted(rows, key=lambda r: -float(r["changed"]))})


@router.get("/runs/metrics")
def metrics(served: Served, name: Annotated[str, Query(max_length=1024)]) -> Response:
    """The curves of one training: columns of equal length, thinned to at most 600 points."""
    found = _found(served.runs)
    if name not in found:
        raise UnknownNameError("run", name, found)
    rows = []
    for line in found[name].read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # a line that is being written
    step = max(math.ceil(len(rows) / POINTS), 1)
    rows = [*rows[::step], *([rows[-1]] if rows and (len(rows) - 1) % step else [])]
    names = [k for k in dict.fromkeys(k for row in rows for k in row) if any(_number(row.get(k)) for row in rows)]
    return answer(
        {"name": name, "columns": {k: [row.get(k) if _number(row.get(k)) else None for row in rows] for k in names}}
    )


def _found(folder: Path) -> dict[str, Path]:
    return (
        {p.parent.relative_to(folder).as_posix(): p for p in sorted(folder.rglob(METRICS))} if folder.is_dir() else {}
    )


def _state(folder: Path) -> str:
    if (folder / "failed.json").is_file():
        return "failed"
    return "done" if (folder / "config.json").is_file() else "running or stopped"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
