"""Configs: frozen keyword-only dataclasses, TOML in, JSON out, unknown keys refused with the nearest name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import re
import sys
import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, final, get_args, get_origin

from lensing.errors import FileFormatError, UnknownNameError, UsageError, suggest
from lensing.files import write_json

T = TypeVar("T")
# the command that is running and its options, for the record of what it makes; what an earlier record said, if it is
# run again
_CALL: ContextVar[dict[str, Any] | None] = ContextVar("call", default=None)
_BEFORE: ContextVar[Mapping[str, Any] | None] = ContextVar("before", default=None)


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


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a config dataclass as plain values, ready for JSON."""
    return dataclasses.asdict(config)


# --- TOML ---


@final
class Toml:
    """A TOML file's values, and the line on which each stands."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.text = self.path.read_text(encoding="utf-8")
            self.values: dict[str, Any] = tomllib.loads(self.text)
        except FileNotFoundError as error:
            raise UsageError(f"There is no file {self.path}. Give the path of a TOML file.") from error
        except IsADirectoryError as error:
            raise UsageError(f"{self.path} is a folder. Give the path of a TOML file.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FileFormatError(f"{self.path} is not TOML: {error}. Correct that line.") from error

    def line(self, key: str, table: str = "", number: int = 0) -> int:
        """The line, from 1, on which a key of the top, or of the `number`-th table of a name, is set; 1 if not found.

        tomllib gives no positions. A line that only looks like a setting, inside a text of several lines, is passed
        over.
        """
        here, seen, quotes = "", -1, ""
        for place, line in enumerate(self.text.splitlines(), start=1):
            if quotes:
                quotes = "" if line.count(quotes) % 2 else quotes
                continue
            header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line)
            if header and header[1] not in self.values:
                header = None  # a list within a list
            if header:
                here = header[1]
                seen += here == table
            name = re.match(r"""\s*(?:"([^"]*)"|'([^']*)'|([\w-]+))\s*[=.]""", line)
            if here == table and (not table or seen == number) and name and key in name.groups():
                return place
            if not table and (header or name) and key == (header[1] if header else ""):
                return place
            quotes = next((mark for mark in ('"' * 3, "'" * 3) if line.count(mark) % 2), "")
        return 1

    def check(
        self, values: Mapping[str, Any], hints: Mapping[str, Any], kind: str, table: str = "", number: int = 0
    ) -> None:
        """Raise UsageError, with file and line, for a key that is not among `hints` or a value of another type."""
        for key, value in values.items():
            where = f"{self.path}, line {self.line(key, table, number)}"
            if key not in hints:
                raise UnknownNameError(kind, key, hints, f"{suggest(key, hints)} ({where})")
            if not fits(value, hints[key]):
                raise UsageError(
                    f"{where}: {key} is {json.dumps(value, default=str)}. Give {describe(hints[key])} there."
                )


def fits(value: Any, hint: Any) -> bool:
    """Whether a value read from TOML is of a type as annotations name it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in inner if part is not type(None))
    if origin is Literal:
        return value in inner and not isinstance(value, bool)
    if origin in (list, tuple):
        return isinstance(value, list) and all(fits(part, inner[0]) for part in value)
    if hint is Any:
        return True
    if hint in (str, Path):
        return isinstance(value, str)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, int) if hint is int else isinstance(value, int | float)


def describe(hint: Any) -> str:
    """A type as a person would say it."""
    origin, inner = get_origin(hint), [part for part in get_args(hint) if part is not type(None)]
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(describe, inner)))
    if origin is Literal:
        return " or ".join(json.dumps(part) for part in inner)
    if origin in (list, tuple):
        plural = {int: "whole numbers", float: "numbers", str: "texts"}
        return f"a list of {plural.get(inner[0], 'such')}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes"}
    return names.get(hint, "a path in quotes")


# --- the record of a run ---


def versions() -> dict[str, str]:
    """Versions of what computed a result: lensing, Python, the platform and the libraries that matter."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("lensing", "torch", "transformers", "tokenizers", "safetensors", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


@contextlib.contextmanager
def called(command: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Let every `run.json` written inside record a command and all of its options, by which it can be run again."""
    token = _CALL.set({"command": command, "options": json.loads(json.dumps(options, default=str))})
    try:
        yield
    finally:
        _CALL.reset(token)


@contextlib.contextmanager
def repeating(record: Mapping[str, Any]) -> Iterator[None]:
    """Let every `run.json` written inside be compared with an earlier one; what differs is said on standard error."""
    token = _BEFORE.set(record)
    try:
        yield
    finally:
        _BEFORE.reset(token)


def write_run(folder: str | Path, **record: Any) -> None:
    """Write `run.json`: what was run, with which versions and command line, so that it can be replayed."""
    whole = {**record, "call": _CALL.get(), "versions": versions(), "command": sys.argv}
    if (before := _BEFORE.get()) is not None:
        say_differences(before.get("setting"), record.get("setting"))
    write_json(Path(folder) / "run.json", whole)


def recorded_options(folder: str | Path) -> dict[str, Any]:
    """Return the options of the command that made a folder, by its `run.json`; nothing where that is not known."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        record = json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))
        return dict((record.get("call") or {}).get("options") or {})
    return {}


def say_differences(before: Any, now: Any, within: str = "") -> bool:
    """Print what differs from an earlier record on standard error, one line each; whether anything does."""
    changed = list(changes(before or {}, json.loads(json.dumps(now or {})), within))
    for change in changed:
        print(f"lensing: not as recorded: {change}", file=sys.stderr, flush=True)
    return bool(changed)


def changes(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> Iterable[str]:
    """What differs between two records, each as `name was a, is b`, nested names with dots."""
    for name in sorted({*before, *now}):
        a, b, path = before.get(name), now.get(name), f"{within}.{name}".strip(".")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from changes(a, b, path)
        elif a != b:
            yield f"{path} was {a}, is {b}"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two records, in one line."""
    return "; ".join(changes(before, now))
