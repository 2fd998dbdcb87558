"""Where the numbers of a training go besides metrics.jsonl: Weights & Biases, trackio, TensorBoard.

A sink that fails while training goes on is left alone from then on, with one warning: metrics.jsonl has every number.
"""

from __future__ import annotations

import abc
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, final

from lensing.errors import LensingError, UsageError
from lensing.registry import Registry

PROJECT = "lensing"


@dataclass(frozen=True)
class Sitting:
    """What a sink is told when a training begins or continues: its folder, dictionaries, settings and step."""

    folder: Path | None
    names: tuple[str, ...]
    setting: Mapping[str, Any]
    step: int

    def title(self, name: str) -> str:
        """A run's name: the folder's, and the dictionary's where there are several."""
        return "/".join(part for part in (self.folder.resolve().name if self.folder else "training", name) if part)

    def mark(self, name: str) -> str:
        """A run's id, the same when a training is continued in its folder."""
        text = json.dumps([str(self.folder.resolve()) if self.folder else os.getpid(), name, self.setting])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def config(self, name: str) -> dict[str, Any]:
        """The settings of one dictionary, without those of the others."""
        shared = {key: value for key, value in self.setting.items() if key != "jobs"}
        return {**shared, **self.setting["jobs"][name]}


class Sink(abc.ABC):
    """One place that takes the numbers of each dictionary as they come."""

    @abc.abstractmethod
    def write(self, name: str, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of one dictionary at a step."""

    @abc.abstractmethod
    def close(self) -> None:
        """Be told that there will be no more."""


# name: what opens it for a sitting
SINKS: Registry[Callable[[Sitting], Sink]] = Registry("sink")
_NEEDS = {
    "wandb": ("wandb", "wandb"), "trackio": ("trackio", "trackio"),
    "tensorboard": ("torch.utils.tensorboard", "tensorboard"),
}  # fmt: skip


def check_sinks(names: Iterable[str]) -> None:
    """Raise UsageError for a sink that nobody knows, or whose library is not installed, with the line that installs."""
    for name in names:
        SINKS[name]
        if name in _NEEDS:
            _library(name)


def _library(name: str) -> ModuleType:
    module, package = _NEEDS[name]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"The sink {name!r} needs {package}, which is not installed. Install it with: pip install {package}"
        ) from error


@SINKS.register("wandb")
@final
class Wandb(Sink):
    """Weights & Biases: one run for each dictionary, those of a sweep in one group."""

    def __init__(self, sitting: Sitting) -> None:
        library = _library("wandb")
        self.runs = {
            name: library.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT), name=sitting.title(name), id=sitting.mark(name),
                group=sitting.title("") if len(sitting.names) > 1 else None, config=sitting.config(name),
                resume="allow", reinit="create_new",
            )
            for name in sitting.names
        }  # fmt: skip

    def write(self, name: str, step: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers."""
        self.runs[name].log(dict(numbers), step=step)

    def close(self) -> None:
        """Finish the runs."""
        for run in self.runs.values():
            run.finish()


@SINKS.register("trackio")
@final
class Trackio(Sink):
    """trackio: one run for each dictionary, those of a sweep in one group."""

    def __init__(self, sitting: Sitting) -> None:
        library = _library("trackio")
        self.runs = {
            name: library.init(
                project=PROJECT, name=f"{sitting.title(name)} {sitting.mark(name)[:6]}",
                group=sitting.title("") if len(sitting.names) > 1 else None, config=sitting.config(name),
                resume="allow", embed=False,
            )
            for name in sitting.names
        }  # fmt: skip

    def write(self, name: str, step: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers; `step` among them is a name that trackio keeps for itself."""
        self.runs[name].log({key: value for key, value in numbers.items() if key != "step"}, step=step)

    def close(self) -> None:
        """Finish the runs."""
        for run in self.runs.values():
            run.finish()


@SINKS.register("tensorboard")
@final
class TensorBoard(Sink):
    """TensorBoard: event files in `tensorboard/`<dictionary> of the training's folder, or of the current one."""

    def __init__(self, sitting: Sitting) -> None:
        library = _library("tensorboard")
        folder = (sitting.folder or Path()) / "tensorboard"
        # what an earlier sitting wrote after its last checkpoint is written again, and hidden
        purge = sitting.step + 1 if sitting.step else None
        self.writers = {
            name: library.SummaryWriter(str(folder / name) if name else str(folder), purge_step=purge)
            for name in sitting.names
        }

    def write(self, name: str, step: int, numbers: Mapping[str, float]) -> None:
        """Add each number as a scalar."""
        for key, value in numbers.items():
            self.writers[name].add_scalar(key, value, step)

    def close(self) -> None:
        """Close the files."""
        for writer in self.writers.values():
            writer.close()


@final
class Sinks:
    """All sinks of a training; one that fails is dropped with a warning, and never stops it."""

    def __init__(self, names: Iterable[str], sitting: Sitting) -> None:
        self.open: dict[str, Sink] = {}
        for name in dict.fromkeys(names):
            try:
                self.open[name] = SINKS[name](sitting)
            except LensingError:
                raise
            except Exception as error:  # whatever a library and its network raise
                raise LensingError(
                    f"The sink {name!r} cannot begin: {_first_line(error)}. See its documentation, or leave "
                    f"--log {name} out."
                ) from error

    def write(self, name: str, point: Mapping[str, float]) -> None:
        """Give every sink a point of a dictionary's history."""
        numbers = {key: value for key, value in point.items() if key != "step"}
        self._each(lambda sink: sink.write(name, int(point["step"]), numbers), f"at step {point['step']}")

    def close(self) -> None:
        """Close all sinks."""
        self._each(lambda sink: sink.close(), "at its end")
        self.open = {}

    def _each(self, call: Callable[[Sink], None], when: str) -> None:
        for name, sink in list(self.open.items()):
            try:
                call(sink)
            except Exception as error:
                del self.open[name]
                print(
                    f"lensing: the sink {name!r} failed {when} ({_first_line(error)}) and gets nothing more. The "
                    "training goes on; metrics.jsonl has every number.",
                    file=sys.stderr, flush=True,
                )  # fmt: skip


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
