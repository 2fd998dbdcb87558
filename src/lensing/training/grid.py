"""A grid of dictionaries: every combination of the values that its axes take."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from lensing.config import describe, fits
from lensing.dictionary.configs import ARCHITECTURES, JOIN
from lensing.errors import LensingError, UnknownNameError, UsageError
from lensing.training.job import Job

# what a dictionary is trained on and how, beside its architecture's own settings
AXES: dict[str, Any] = {
    "architecture": str, "site": str, "target": str, "skip": bool, "lr": float, "seed": int,
}  # fmt: skip
FIRST = ("architecture", "site", "target", "skip", "width", "k", "l0", "sparsity", "lr", "seed")  # in a member's name


def settings(architecture: str) -> dict[str, Any]:
    """The settings that an architecture has, by name, with their types."""
    hints = get_type_hints(ARCHITECTURES[architecture])
    return {field.name: hints[field.name] for field in fields(ARCHITECTURES[architecture])}


def axes() -> dict[str, Any]:
    """Every name that may stand in a grid, with the type of one value."""
    found = dict(AXES)
    for architecture in ARCHITECTURES:
        found |= settings(architecture)
    return found


def values_of(key: str, value: Any) -> list[Any]:
    """The values of an axis, given as one value or as a list of several; UsageError for another type or none."""
    hint = axes()[key]
    several = [value] if fits(value, hint) else value if isinstance(value, list) else [value]
    for one in several:
        if not fits(one, hint):
            raise UsageError(f"{key} is {one!r}. Give {describe(hint)}, or a list of such.")
    if not several:
        raise UsageError(f"{key} has no value. Give at least one, or leave it out.")
    return several


def expand(grids: Sequence[Mapping[str, Any]], shared: Mapping[str, Any] | None = None) -> dict[str, Job]:
    """Return the jobs of some grids by name; `shared` are axes of all of them.

    Each combination of values is a member. A setting goes to the architectures that have it: k to TopK, l0 to ReLU. A
    member is named by what tells it from the others. Raises: UnknownNameError: a name that is no axis, or that no
    architecture of its grid has. UsageError: a wrong value, a combination that cannot be, two members that are alike.
    """
    members: list[dict[str, Any]] = []
    used: set[str] = set()
    shared = dict(shared or {})
    for grid in grids:
        whole = {**shared, **grid}
        for key in whole:
            if key not in axes():
                raise UnknownNameError("axis of a sweep", key, axes())
        if "architecture" not in whole:
            raise UsageError(f"A sweep needs an architecture. Give one or several: {', '.join(ARCHITECTURES)}.")
        architectures = values_of("architecture", whole["architecture"])
        has = set().union(*(settings(name) for name in architectures)) | AXES.keys()
        for key in grid:
            if key not in has:
                raise UnknownNameError(f"setting of {' or '.join(architectures)}", key, has)
        for architecture in architectures:
            mine = {k: values_of(k, v) for k, v in whole.items() if k in AXES or k in settings(architecture)}
            used |= mine.keys()
            mine["architecture"] = [architecture]
            mine = {key: mine[key] for key in sorted(mine, key=_place)}
            members += [dict(zip(mine, choice, strict=True)) for choice in itertools.product(*mine.values())]
    for key in shared.keys() - used:
        raise UnknownNameError("setting of these architectures", key, used)
    names = name_members(members)
    return {name: _job(name, member) for name, member in zip(names, members, strict=True)}


def name_members(members: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each member that says in what it differs from the others, fit for a folder."""
    keys = sorted({key for member in members for key in member}, key=_place)
    telling = [key for key in keys if len({_word(member.get(key)) for member in members}) > 1]
    names = ["-".join(_part(key, member[key]) for key in telling if key in member) for member in members]
    names = [name or str(member["architecture"]) for name, member in zip(names, members, strict=True)]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"Two members of the sweep are alike: {name}. Give each combination once.")
    return names


def _place(key: str) -> tuple[int, str]:
    return (FIRST.index(key) if key in FIRST else len(FIRST), key)


def _part(key: str, value: Any) -> str:
    if key == "skip":
        return "skip" if value else "plain"
    plain = key.replace("_", "")
    own = {"architecture": "", "site": "", "target": "to-", "width": "w"}
    prefix = own.get(key, f"{plain}_" if plain[-1].isdigit() else plain)
    return prefix + re.sub(r"[^\w.+-]", "=", _word(value))


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ".".join(map(_word, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _job(name: str, member: Mapping[str, Any]) -> Job:
    job = {key: member[key] for key in AXES if key in member and key != "architecture"}
    config = {key: value for key, value in member.items() if key not in AXES}
    try:
        return Job(config=ARCHITECTURES[member["architecture"]](**config), **job)
    except TypeError as error:
        lacking = re.findall(r"'(\w+)'", str(error))
        raise UsageError(f"{name} lacks {' and '.join(lacking)}. Give every setting that has no default.") from error
    except LensingError as error:
        raise UsageError(f"{name} cannot be: {error}") from error


def sites_of(jobs: Iterable[Job]) -> list[str]:
    """Every site that some jobs read or write, each once; those that name none leave it to the source."""
    names = (name for job in jobs for joined in (job.site, job.target) if joined for name in joined.split(JOIN))
    return list(dict.fromkeys(names))
