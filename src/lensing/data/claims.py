"""Who makes which shard of a harvest: files in the store's folder, so that nobody waits for a process that was killed.

A process shows that it lives by touching a file of its own; a claim is a file with its owner's name, and a note says
what was made. A claim counts for as long as its owner lives. Two may make one shard in the worst case: it has the same
bytes, and takes its name whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lensing.files import explained, write_json

FOLDER = ".claims.part"
BEAT_S, LOST_S, WAIT_S = 5.0, 60.0, 0.2  # between two touches; after which an owner is lost; between two looks


class Claims:
    """The claims of one process in a store's folder; a context, in which the process shows that it lives."""

    def __init__(self, store: Path) -> None:
        self.folder = store / FOLDER
        self.host, self.name = platform.node(), uuid.uuid4().hex[:12]
        self._over, self._last = threading.Event(), 0.0
        self._beat = threading.Thread(target=self._live, daemon=True)

    @property
    def _own(self) -> Path:
        return self.folder / f"{self.name}.lives"

    def __enter__(self) -> Self:
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._own.write_text(json.dumps({"host": self.host, "pid": os.getpid()}))
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._beat.join()
        self._last = self._now()
        self._own.unlink(missing_ok=True)

    def take(self, numbers: Iterable[int]) -> Iterator[int | None]:
        """Yield numbers that this process is to make, until notes say of all of them that they are made.

        Where the rest is in the hands of living processes, yield None now and then: they finish, or they end.
        """
        left = list(numbers)
        while left := [number for number in left if not self._note(number).exists()]:
            mine = next((number for number in left if self._claim(number)), None)
            if mine is None:
                self._over.wait(WAIT_S)
            yield mine

    def made(self, number: int, record: Any) -> None:
        """Note that a number is made, and what is to be known of it."""
        write_json(self._note(number), record)

    def record(self, number: int) -> Any:
        """What was noted of a number."""
        return json.loads(self._note(number).read_text(encoding="utf-8"))

    def clear(self) -> bool:
        """Remove all claims and notes, unless another process still looks at them: the last one to leave does it.

        Returns whether this process is that one.
        """
        if any(self._lives(path.stem) for path in self.folder.glob("*.lives")):
            return False
        shutil.rmtree(self.folder, ignore_errors=True)
        return True

    def _note(self, number: int) -> Path:
        return self.folder / f"{number:05d}.json"

    def _claim(self, number: int) -> bool:
        path = self.folder / f"{number:05d}.claim"
        with explained(path):
            try:
                owner = path.read_text()
            except FileNotFoundError:
                owner = ""
            # an empty claim is one whose owner is about to write its name: its age is then all there is to go by
            if path.exists() and (self._lives(owner) if owner else self._is_fresh(path)):
                return False
            if owner:
                with contextlib.suppress(FileNotFoundError):  # of several that find it orphaned one removes it
                    path.replace(self.folder / f"{self.name}.orphan")
            try:
                with open(path, "x", encoding="utf-8") as file:
                    file.write(self.name)
            except FileExistsError:
                return False
        return True

    def _lives(self, owner: str) -> bool:
        path = self.folder / f"{owner}.lives"
        try:
            about = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            return False
        if about["host"] == self.host and os.name == "posix":
            try:
                os.kill(int(about["pid"]), 0)
            except ProcessLookupError:
                return False
            except PermissionError:
                pass
        return self._is_fresh(path)

    def _is_fresh(self, path: Path) -> bool:
        # by the disk's clock, which is one for all
        with contextlib.suppress(FileNotFoundError):
            return self._now() - path.stat().st_mtime < LOST_S
        return False

    def _now(self) -> float:
        return self._own.stat().st_mtime if self._own.exists() else self._last

    def _live(self) -> None:
        while not self._over.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self._own)
