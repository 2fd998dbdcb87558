"""Long work beside the page: each job in a thread of its own, with progress, and stopped when somebody says so."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, final

from lensing.errors import Interrupted, LensingError, UnknownNameError
from lensing.progress import Meter, listening

KEPT = 50  # finished jobs that are remembered


@final
@dataclass
class Job:
    """One piece of work: `state` is running, done, failed or cancelled; `done` of `total` units."""

    id: str
    what: str
    state: str = "running"
    step: str = ""
    done: int = 0
    total: int | None = None
    unit: str = ""
    rate: float = 0.0
    error: str | None = None
    result: Any = None
    began: float = field(default_factory=time.time)
    version: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@final
class Jobs:
    """All jobs of this server."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._stop: dict[str, threading.Event] = {}
        self._number = itertools.count(1)
        self._changed = threading.Condition()

    def start(self, what: str, work: Callable[[], Any]) -> Job:
        """Begin a job; the same work that is already running is not begun twice."""
        with self._changed:
            for job in self._jobs.values():
                if job.what == what and job.state == "running":
                    return job
            job = Job(str(next(self._number)), what)
            self._jobs[job.id], self._stop[job.id] = job, threading.Event()
            for old in [j.id for j in self._jobs.values() if j.state != "running"][:-KEPT]:
                del self._jobs[old], self._stop[old]
        threading.Thread(target=self._run, args=(job, work), name=f"job {job.id}", daemon=True).start()
        return job

    def _run(self, job: Job, work: Callable[[], Any]) -> None:
        stop = self._stop[job.id]

        def moved(meter: Meter) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            self._set(job, step=meter.what, done=meter.done, total=meter.total, unit=meter.unit, rate=meter.rate)

        try:
            with listening(moved):
                self._set(job, result=work(), state="done")
        except (KeyboardInterrupt, Interrupted):
            self._set(job, state="cancelled")
        except LensingError as error:
            self._set(job, state="failed", error=str(error))
        except Exception as error:  # a job must not vanish without a word
            self._set(job, state="failed", error=f"{type(error).__name__}: {error}")
            raise

    def _set(self, job: Job, **values: Any) -> None:
        with self._changed:
            for name, value in values.items():
                setattr(job, name, value)
            job.version += 1
            self._changed.notify_all()

    def all(self) -> list[Job]:
        """All jobs, the newest first."""
        return sorted(self._jobs.values(), key=lambda job: -int(job.id))

    def get(self, number: str) -> Job:
        """One job."""
        if number not in self._jobs:
            raise UnknownNameError("job", number, self._jobs)
        return self._jobs[number]

    def cancel(self, number: str) -> Job:
        """Ask a job to stop; it does at its next step."""
        job = self.get(number)
        self._stop[number].set()
        return job

    def wait(self, job: Job, version: int, timeout: float) -> int:
        """Wait until a job has changed since `version`, or for a while; return its version."""
        with self._changed:
            self._changed.wait_for(lambda: job.version != version, timeout)
            return job.version
