"""Checkpoints of a run: the newest two, each whole; and the signals on which one is written."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lensing.errors import FileFormatError
from lensing.files import atomic_file
from lensing.training.split import join_parts

CHECKPOINT, BEFORE = "checkpoint.safetensors", "checkpoint.before.safetensors"
PARTS = "checkpoint*.safetensors"
ASK = ("SIGINT", "SIGTERM", "SIGUSR1")  # Ctrl-C, and what schedulers send before they take a machine away


def write_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, part: int = 0, parts: int = 1
) -> Path:
    """Write a checkpoint, or one of its `parts`, into `folder` and keep the one before it, so that one whole checkpoint
    is there at any moment. Every part's facts have its `step`, and under `cut` what is put end to end when joined."""
    path, before = (folder / name for name in _names(part, parts))
    with atomic_file(path) as temporary:
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(whole, str(temporary), metadata={"lensing": json.dumps({**facts, "part": part, "parts": parts})})
        if path.exists():
            path.replace(before)
    return path


def checkpoint_path(folder: Path, *, part: int = 0, parts: int = 1) -> Path:
    """Where a checkpoint, or one of its parts, is."""
    return folder / _names(part, parts)[0]


def latest_checkpoint(folder: Path) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint of a folder that can be read, by any number of processes; None where there is none.

    One of several parts counts when all of them are there, of one step. The facts are those of the first part, their
    `history` that of all parts. Raises: FileFormatError: there are checkpoints, and none is whole.
    """
    files = sorted(folder.glob(PARTS), key=lambda path: ("before" in path.name, path.name))
    if not files:
        return None
    sets: dict[tuple[int, int], dict[int, Path]] = {}
    broken: FileFormatError | None = None
    for path in files:
        try:
            facts = _facts(path)
            of = (int(facts["step"]), int(facts.get("parts", 1)))
            sets.setdefault(of, {}).setdefault(int(facts.get("part", 0)), path)
        except (FileFormatError, KeyError) as error:
            broken = error if isinstance(error, FileFormatError) else FileFormatError(f"{path} names no {error}.")
    for (_, parts), found in sorted(sets.items(), reverse=True):
        if len(found) < parts:
            continue
        try:
            read = [read_checkpoint(found[part]) for part in range(parts)]
        except FileFormatError as error:
            broken = error
            continue
        facts = read[0][1] | {"history": {k: v for _, part in read for k, v in part.get("history", {}).items()}}
        return found[0], join_parts([t for t, _ in read], [f.get("cut", ()) for _, f in read]), facts
    raise broken or FileFormatError(
        f"{folder} has parts of checkpoints and no whole one ({', '.join(path.name for path in files)}). "
        "Put the missing parts back, or remove these to start anew."
    )


def _names(part: int, parts: int) -> tuple[str, str]:
    if parts == 1:
        return CHECKPOINT, BEFORE
    return f"checkpoint.{part}of{parts}.safetensors", f"checkpoint.before.{part}of{parts}.safetensors"


def _facts(path: Path) -> dict[str, Any]:
    try:
        with safe_open(str(path), framework="pt") as file:
            return json.loads((file.metadata() or {})["lensing"])
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise FileFormatError(f"{path} is truncated or corrupt: {error}. Remove it to start anew.") from error


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint's tensors and facts; FileFormatError when it is truncated or corrupt."""
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {})["lensing"])
            return {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise FileFormatError(f"{path} is truncated or corrupt: {error}. Remove it to start anew.") from error


def remove_checkpoints(folder: Path, *, except_parts: int = 0) -> None:
    """Remove a folder's checkpoints: the run is finished, or starts anew, or goes on with another number of parts."""
    kept = {name for part in range(except_parts) for name in _names(part, except_parts)}
    for path in folder.glob(PARTS):
        if path.name not in kept:
            path.unlink(missing_ok=True)


class Asked:
    """Turn the first Ctrl-C, SIGTERM or SIGUSR1 into a name that is read between steps; a second Ctrl-C interrupts."""

    def __init__(self) -> None:
        self.by: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in ASK:
                if (number := getattr(signal, name, None)) is not None:
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.by is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.by = signal.Signals(number).name
