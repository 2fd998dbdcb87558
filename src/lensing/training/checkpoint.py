"""Checkpoints of a run: the newest two, each whole; and the signals on which one is written."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lensing.dictionary.tensors import write_tensors
from lensing.errors import FileFormatError

CHECKPOINT, BEFORE = "checkpoint.safetensors", "checkpoint.before.safetensors"
ASK = ("SIGINT", "SIGTERM", "SIGUSR1")  # Ctrl-C, and what schedulers send before they take a machine away


def write_checkpoint(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write a checkpoint into `folder` and keep the one before it, so that one whole file is there at any moment."""
    path, text = folder / CHECKPOINT, json.dumps(facts)
    write_tensors(path, tensors, {"lensing": text, "sha256": _digest(tensors, text)}, keep=folder / BEFORE)
    return path


def latest_checkpoint(folder: Path) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint of a folder that can be read, None where there is none.

    A newest one that is truncated or corrupt is removed where the one before it is whole, or the next one to be written
    would drive that out. Raises: FileFormatError: there are checkpoints, and all of them are truncated or corrupt.
    """
    found = [folder / name for name in (CHECKPOINT, BEFORE) if (folder / name).exists()]
    for path in found:
        try:
            tensors, facts = read_checkpoint(path)
        except FileFormatError:
            if path == found[-1]:
                raise
            continue
        if path.name == BEFORE:
            (folder / CHECKPOINT).unlink(missing_ok=True)
        return path, tensors, facts
    return None


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint, whole or not."""
    return any((folder / name).exists() for name in (CHECKPOINT, BEFORE))


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
        raise FileFormatError(f"{path} is truncated or corrupt: {error}. Remove it to start anew.") from error


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    # flipped bits are numbers like any other, and a resumed run would carry them on
    found = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"|{name} {tensor.dtype} {list(tensor.shape)}|".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def remove_checkpoints(folder: Path) -> None:
    """Remove a folder's checkpoints: the run is finished, or starts anew."""
    for name in (CHECKPOINT, BEFORE):
        (folder / name).unlink(missing_ok=True)


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
