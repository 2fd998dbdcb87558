"""Names to things: one registry class, and the ids of what the package ships."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from lensing.errors import UnknownNameError, UsageError

T = TypeVar("T")
ASSETS = Path(__file__).parent / "assets"
HOME = "LENSING_HOME"  # the environment variable that names the folder of what a person keeps


class Registry(Generic[T]):
    """An open table of named things; asking for an unknown name offers the nearest ones."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files what it decorates under `name`."""

        def file(item: T) -> T:
            if name in self._items:
                raise UsageError(f"A {self.kind} named {name!r} is registered already. Choose another name.")
            self._items[name] = item
            return item

        return file

    def __getitem__(self, name: str) -> T:
        if name not in self._items:
            raise UnknownNameError(self.kind, name, self._items)
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __contains__(self, name: str) -> bool:
        return name in self._items


def shipped_models() -> dict[str, Path]:
    """Model id to folder, for every model inside the package."""
    return {p.parent.parent.name: p.parent for p in sorted(ASSETS.glob("*/model/config.json"))}


def shipped_dictionaries() -> dict[str, Path]:
    """Dictionary id (`almanac/<site>/w<width>[/seed<k>]`) to folder, for every dictionary inside the package."""
    found = {}
    for home in sorted(ASSETS.glob("*/dictionaries")):
        for config in sorted(home.rglob("config.json")):
            found[f"{home.parent.name}/{config.parent.relative_to(home).as_posix()}"] = config.parent
    return found


def shipped_lenses() -> dict[str, Path]:
    """Model id to the folder of its tuned lens, for every lens inside the package."""
    return {p.parent.parent.name: p.parent for p in sorted(ASSETS.glob("*/lens/config.json"))}


def shipped_indexes() -> dict[str, Path]:
    """Dictionary id to the folder of its index, for every index inside the package."""
    found = {}
    for home in sorted(ASSETS.glob("*/indexes")):
        for facts in sorted(home.rglob("index.json")):
            found[f"{home.parent.name}/{facts.parent.relative_to(home).as_posix()}"] = facts.parent
    return found


def home() -> Path:
    """The folder of what a person keeps: notes, and indexes that the page built. `LENSING_HOME` names it."""
    return Path(os.environ.get(HOME) or Path.home() / ".lensing")


def revisions(model: str) -> dict[str, Path]:
    """Snapshots and other seeds of a shipped model that `make world` left under `runs/`, by name, in order of training.

    A snapshot is named by the tokens it had read (`00500000`), another seed `seed1`; `random` needs no folder.
    """
    runs = Path("runs") / model
    snapshots = {p.parent.name: p.parent for p in sorted(runs.glob("seed0/revisions/*/config.json"))}
    return snapshots | {p.parent.parent.name: p.parent for p in sorted(runs.glob("seed*/model/config.json"))}
