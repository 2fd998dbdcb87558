"""Checkpoints of a run: the newest two, each whole; and the signals on which one is written."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lensing.dictionary.tensors import write_tensors
from lensing.errors import FileFormatError
from lensing.training.split import join_parts

CHECKPOINT, BEFORE = "checkpoint.safetensors", "checkpoint.before.safetensors"
ASK = ("SIGINT", "SIGTERM", "SIGUSR1")  # Ctrl-C, and what schedulers send before they take a machine away


def write_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, part: int = 0, parts: int = 1
) -> Path:
    """Write a checkpoint into `folder` and keep the one before it, so that one whole file is there at any moment.

    Or one of its `parts`: the facts have its `part`, `parts`, `step`, and under `cut` the names of what is put end to
    end when parts are joined.
    """
    (path, before), text = _paths(folder, part, parts), json.dumps(facts)
    write_tensors(path, tensors, {"lensing": text, "sha256": _digest(tensors, text)}, keep=before)
    return path


def checkpoint_path(folder: Path, *, part: int = 0, parts: int = 1) -> Path:
    """Where a checkpoint, or one of its parts, is."""
    return _paths(folder, part, parts)[0]


def latest_checkpoint(folder: Path) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint of a folder that can be read, by any number of processes; None where there is none.

    One of several parts counts when all of them are there, of one step; parts are joined, and the path is that of the
    first. A newest one that is truncated, corrupt or not whole is removed where the one before it is whole, or the next
    one to be written would drive that out. Raises: FileFormatError: there are checkpoints, and none is whole.
    """
    files = _files(folder)
    if not files:
        return None
    sets: dict[tuple[int, int], dict[int, Path]] = {}
    broken: FileFormatError | None = None
    for path in files:
        try:
            facts = _facts(path)
            of = (int(facts["step"]), int(facts.get("parts", 1)))
            sets.setdefault(of, {}).setdefault(int(facts.get("part", 0)), path)
        except FileFormatError as error:
            broken = error
    for (_, parts), found in sorted(sets.items(), reverse=True):
        if len(found) < parts:
            continue
        try:
            read = [read_checkpoint(found[part]) for part in range(parts)]
        except FileFormatError as error:
            broken = error
            continue
        for part, path in found.items():
            newest, before = _paths(folder, part, parts)
            if path == before:
                newest.unlink(missing_ok=True)
        return found[0], *_joined(read)
    raise broken or FileFormatError(
        f"{folder} has parts of checkpoints and no whole one ({', '.join(path.name for path in files)}). "
        "Put the missing parts back, or remove these to start anew."
    )


def _joined(
    read: Sequence[tuple[dict[str, Tensor], dict[str, Any]]],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, facts = read[0]
    if len(read) == 1:
        return tensors, facts
    facts = {**facts, "cost": {**facts["cost"], "steps": {}}, "history": {}, "failures": {}}
    for _, part in read:  # each has what it knows of its own dictionaries
        facts["cost"]["steps"] |= part["cost"]["steps"]
        facts["history"] |= part["history"]
        facts["failures"] |= part["failures"]
    return join_parts([tensors for tensors, _ in read], [part["cut"] for _, part in read]), facts


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint, whole or not."""
    return bool(_files(folder))


def _paths(folder: Path, part: int, parts: int) -> tuple[Path, Path]:
    if parts == 1:
        return folder / CHECKPOINT, folder / BEFORE
    of = f"{part}of{parts}.safetensors"
    return folder / f"checkpoint.{of}", folder / f"checkpoint.before.{of}"


def _files(folder: Path) -> list[Path]:
    found = [path for path in (folder / CHECKPOINT, folder / BEFORE) if path.exists()]
    for name in ("checkpoint.[0-9]*of*.safetensors", "checkpoint.before.[0-9]*of*.safetensors"):
        found += sorted(folder.glob(name))
    return found


def _facts(path: Path) -> dict[str, Any]:
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {})["lensing"])
        return {**facts, "step": int(facts["step"])}
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> FileFormatError:
    return FileFormatError(f"{path} is truncated or corrupt: {error}. Remove it to start anew.")


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint's tensors and facts; FileFormatError when it is truncated or corrupt."""
    try:
        with safe_open(str(path), framework="pt") as file:
            noted = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if _digest(tensors, noted["lensing"]) != noted["sha256"]:
            raise ValueError("its bytes are not those that were written")
        return tensors, json.loads(noted["lensing"])
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise _broken(path, error) from error


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    # flipped bits are numbers like any other, and a resumed run would carry them on
    found = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"|{name} {tensor.dtype} {list(tensor.shape)}|".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def remove_checkpoints(folder: Path, *, except_parts: int = 0) -> None:
    """Remove a folder's checkpoints: the run is finished, or starts anew, or goes on in `except_parts` parts."""
    kept = {path for part in range(except_parts) for path in _paths(folder, part, except_parts)}
    for path in _files(folder):
        if path not in kept:
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
