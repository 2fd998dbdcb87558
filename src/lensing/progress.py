"""Progress of long work: a live bar on a terminal, one line each 30 seconds elsewhere; always rate and time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LOG_EVERY_S = 30.0
_LISTENER: ContextVar[Callable[[Meter], None] | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def listening(listener: Callable[[Meter], None]) -> Iterator[None]:
    """Call `listener` whenever a meter moves inside, in this thread; what it raises stops the work."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


class Meter:
    """Count finished units of one piece of work and show rate and time left on standard error.

    Use as a context manager: `with Meter("training", total=1000, unit="tokens") as meter: meter.advance(10)`.
    `note` is a few words shown beside the count (a loss, say).
    """

    def __init__(self, what: str, *, total: int | None, unit: str = "steps", quiet: bool = False) -> None:
        self.what, self.total, self.unit, self.quiet = what, total, unit, quiet
        self.done = self.before = 0  # `before`: units that an earlier run finished
        self._started = self._logged = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        self._started = self._logged = time.monotonic()
        if sys.stderr.isatty() and not self.quiet:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=24), TaskProgressColumn(),
                TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(self.what, total=self.total, rate="", note="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def rate(self) -> float:
        """Units finished per second since the start."""
        return (self.done - self.before) / max(time.monotonic() - self._started, 1e-9)

    def resume(self, done: int) -> None:
        """Begin at `done` units that an earlier run finished; they do not count towards the rate."""
        self.done = self.before = done

    def advance(self, n: int = 1, note: str = "") -> None:
        """Add `n` finished units and perhaps a note."""
        self.done += n
        listener = _LISTENER.get()
        if listener is not None:
            listener(self)
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=f"{self.rate:,.0f} {self.unit}/s", note=note)
        elif not self.quiet and now - self._logged >= LOG_EVERY_S:
            self._logged = now
            print(self.line(note), file=sys.stderr, flush=True)

    def line(self, note: str = "") -> str:
        """One line of text: what, how far, how fast, how long still."""
        text = f"{self.what}: {self.done:,}"
        if self.total:
            left = max(self.total - self.done, 0) / max(self.rate, 1e-9)
            text += f" of {self.total:,} {self.unit}, {self.rate:,.0f}/s, {left / 60:.1f} min left"
        else:
            text += f" {self.unit}, {self.rate:,.0f}/s"
        return f"{text}  {note}".rstrip()
