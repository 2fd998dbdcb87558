"""The files of an index: flat arrays that are never changed, and `index.json`, written last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from lensing.errors import FileFormatError, UsageError
from lensing.files import atomic_file, write_json

FORMAT, VERSION = "lensing-index", 1
NAME, PLAN, CHUNKS = "index.json", "plan.json", "chunks.part"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an index was made of, and its sizes; with these two indexes can be told apart."""

    model: dict[str, Any]
    """`name`, `weights` (digest), `tokenizer` (digest)."""
    dictionary: dict[str, Any]
    """`id`, `weights` (digest), `site`, `architecture`, `d_sae`."""
    text: dict[str, Any]
    """`name`, `digest` (of all token ids), `rows` (tokens that count), `pieces`."""
    context: int | None
    chunk_rows: int
    top: int
    quantiles: int
    each: int
    before: int
    after: int
    neighbours: int
    words: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Plain values, with format and version."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


def read_facts(folder: str | Path, name: str = NAME) -> Facts:
    """Read what an index was made of.

    Raises: UsageError: a folder that holds no index, or an unfinished one. FileFormatError: a broken or newer file.
    """
    path = Path(folder) / name
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        begun = (Path(folder) / PLAN).is_file()
        why = "an unfinished one: run the same lensing index again to continue" if begun else "none: run lensing index"
        raise UsageError(f"{folder} holds no finished index but {why}.") from error
    except ValueError as error:
        raise FileFormatError(f"{path} is not JSON: {error}. Build the index again.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise FileFormatError(f"{path} does not describe an index. Give a folder that lensing index made.")
    if record.get("version") != VERSION:
        raise FileFormatError(f"{path} has version {record.get('version')}, this lensing reads {VERSION}. Update it.")
    try:
        return Facts(**{field.name: record[field.name] for field in fields(Facts)})
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"{path} is not what lensing writes: {error!r}. Build the index again.") from error


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as .npy files, each whole or not at all."""
    for name, array in arrays.items():
        with atomic_file(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def read_array(folder: Path, name: str) -> np.ndarray:
    """Map an array of an index into memory; FileFormatError where it is missing or broken."""
    path = folder / f"{name}.npy"
    try:
        # a plain array over the same pages: slices of np.memmap cost several times as much
        return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path} is missing or broken: {error}. Build the index again.") from error


def write_facts(folder: Path, facts: Facts, name: str = NAME) -> None:
    """Write what an index was made of; under its final name it says that the index is whole."""
    write_json(folder / name, facts.to_json())
