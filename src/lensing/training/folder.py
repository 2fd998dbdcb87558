"""The folder of a training: what stands in it besides checkpoints, and whether it is finished."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from lensing.config import differences
from lensing.dictionary.base import Dictionary
from lensing.dictionary.crossload import load_cross_layer
from lensing.dictionary.load import load_dictionary
from lensing.errors import FileFormatError, TrainingError, UsageError
from lensing.files import atomic_file, explained, write_json
from lensing.training.report import TrainReport

METRICS, FAILED = "metrics.jsonl", "failed.json"


@dataclass(frozen=True)
class Failure:
    """Why one dictionary of several was stopped: at which step, on which rows of the source, and its last good state.

    `step` and `rows` are those of the step that failed; `checkpoint` is what the steps before it left, if it was kept.
    """

    step: int
    rows: tuple[int, int]
    reason: str
    checkpoint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {**asdict(self), "rows": list(self.rows)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Failure:
        """What `to_json` gave."""
        first, last = record["rows"]
        return cls(record["step"], (first, last), record["reason"], record["checkpoint"])


@final
class SomeFailed(TrainingError):
    """Some of several dictionaries could not be trained to the end: `failures` by name; `dictionaries` are the rest."""

    def __init__(self, failures: Mapping[str, Failure], dictionaries: Mapping[str, Dictionary]) -> None:
        self.failures, self.dictionaries = dict(failures), dict(dictionaries)
        first, failure = next(iter(failures.items()))
        made = "The others are made." if dictionaries else "None is made."
        super().__init__(
            f"{len(failures)} of {len(failures) + len(dictionaries)} dictionaries failed, {first} at step "
            f"{failure.step}: {failure.reason} {made}"
        )


def prepare_folder(folder: Path) -> None:
    """Make a dictionary's folder, without what an earlier run left there."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", METRICS, FAILED):
            (folder / name).unlink(missing_ok=True)


def recorded_setting(out: Path) -> dict[str, Any] | None:
    """The setting in a folder's run.json, None where there is none that can be read."""
    try:
        setting = json.loads((out / "run.json").read_text(encoding="utf-8"))["setting"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return setting if isinstance(setting, dict) else None


def is_finished(out: Path, names: Iterable[str], setting: Mapping[str, Any]) -> bool:
    """Whether this very training ended in the folder, each of its dictionaries finished or failed."""
    if not all((out / name / "config.json").exists() or (out / name / FAILED).exists() for name in names):
        return False
    return recorded_setting(out) == setting


def refuse_finished(out: Path, names: Iterable[str], setting: Mapping[str, Any]) -> None:
    """Raise UsageError when a folder holds what another run finished: it is not written over."""
    for name in names:
        if (out / name / "config.json").exists():
            before = recorded_setting(out)
            why = differences(before, setting) if before is not None else "run.json does not say which"
            raise UsageError(
                f"{out / name} holds a dictionary of another run ({why}). "
                "Give another folder with --out, or remove this one."
            )


def reload(folder: Path, *, cross_layer: bool = False) -> Dictionary | Failure:
    """What a finished training left of one dictionary, with its report; FileFormatError when that is broken."""
    if (folder / FAILED).exists():
        path = folder / FAILED
        try:
            return Failure.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileFormatError(f"{path} is not what was written there: {error}. Remove it to try again.") from error
    dictionary: Any = (load_cross_layer if cross_layer else load_dictionary)(folder)
    record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    path = folder / METRICS
    try:
        history = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        dictionary.report = TrainReport(**record["training"], history=history)
    except (OSError, ValueError, TypeError) as error:
        raise FileFormatError(
            f"{path} is missing or not what was written beside the dictionary: {error}. "
            "The dictionary itself is whole: load it, or give another folder with --out."
        ) from error
    return dictionary


def add_metrics(folder: Path, point: Mapping[str, float]) -> None:
    """Add a line to a dictionary's metrics.jsonl."""
    with explained(folder), open(folder / METRICS, "a", encoding="utf-8") as file:
        file.write(json.dumps(point) + "\n")


def write_metrics(folder: Path, points: Iterable[Mapping[str, float]]) -> None:
    """Write all lines of a dictionary's metrics.jsonl anew."""
    with atomic_file(folder / METRICS) as temporary:
        temporary.write_text("".join(json.dumps(point) + "\n" for point in points), encoding="utf-8")


def write_failure(folder: Path, failure: Failure) -> None:
    """Write failed.json: the dictionary is not made, and this is why."""
    write_json(folder / FAILED, failure.to_json())
