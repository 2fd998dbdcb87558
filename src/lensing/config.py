"""Configs: frozen keyword-only dataclasses, TOML in, JSON out, unknown keys refused with the nearest name."""

from __future__ import annotations

import dataclasses
import platform
import sys
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from lensing.errors import FileFormatError, UnknownNameError, UsageError
from lensing.files import write_json

T = TypeVar("T")


def from_mapping(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build the config dataclass `cls` from a mapping; an unknown key is refused with the nearest name."""
    fields = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise UnknownNameError(f"setting of {cls.__name__}", key, fields)
    try:
        return cls(**values)
    except TypeError as error:
        raise UsageError(f"{cls.__name__}: {error}. Give every setting that has no default.") from error


def from_toml(cls: type[T], path: str | Path) -> T:
    """Build the config dataclass `cls` from a TOML file."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path}. Give the path of a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is not TOML: {error}. Correct that line.") from error
    return from_mapping(cls, values)


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a config dataclass as plain values, ready for JSON."""
    return dataclasses.asdict(config)


def versions() -> dict[str, str]:
    """Versions of what computed a result: lensing, Python, the platform and the libraries that matter."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("lensing", "torch", "transformers", "tokenizers", "safetensors", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def write_run(folder: str | Path, **record: Any) -> None:
    """Write `run.json`: what was run, with which versions and command line, so that it can be replayed."""
    write_json(Path(folder) / "run.json", {**record, "versions": versions(), "command": sys.argv})
