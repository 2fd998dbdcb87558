"""The folder of a training: what stands in it besides checkpoints, and whether it is finished."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import load_dictionary
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


def prepare_folder(folder: Path) -> None:
    """Make a dictionary's folder, without what an earlier run left there."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", METRICS, FAILED):
            (folder / name).unlink(missing_ok=True)


def is_finished(out: Path, names: Iterable[str], setting: Mapping[str, Any]) -> bool:
    """Whether this very training ended in the folder, each of its dictionaries finished or failed."""
    if not all((out / name / "config.json").exists() or (out / name / FAILED).exists() for name in names):
        return False
    try:
        record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("setting") == setting


def reload(folder: Path) -> Dictionary | Failure:
    """What a finished training left of one dictionary, with its report."""
    if (folder / FAILED).exists():
        return Failure.from_json(json.loads((folder / FAILED).read_text(encoding="utf-8")))
    dictionary = load_dictionary(folder)
    record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
    dictionary.report = TrainReport(**record["training"], history=[json.loads(line) for line in lines])
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
