"""Hub ids of dictionaries: a table of known releases, and which files of a repository one dictionary needs."""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lensing.errors import UnknownNameError, nearest
from lensing.model.load import fetch_files

RELEASES = Path(__file__).with_name("releases.toml")
# the files of one dictionary, in any format that is read
WANTED = {
    "config.json", "weights.safetensors", "statistics.safetensors", "sample.safetensors", "cfg.json",
    "sae_weights.safetensors", "activation_scaler.json", "sae.safetensors", "params.npz", "params.safetensors",
    "hyperparams.json", "checkpoints/final.safetensors", "ae.pt", "config.yaml",
}  # fmt: skip
BESIDE = ("config.json", "config.yaml")  # what says more about a folder, one level up
_L0 = re.compile(r"average_l0_(\d+)")


@dataclass(frozen=True)
class Place:
    """Where a dictionary lies: a repository and a path in it; with `canonical`, of several the L0 nearest to that."""

    repo: str
    path: str
    canonical: int | None = None


@functools.cache
def releases() -> dict[str, dict[str, str | int]]:
    """The table of known releases, by name."""
    return tomllib.loads(RELEASES.read_text(encoding="utf-8"))


def find_place(name: str, shipped: Iterable[str] = ()) -> Place:
    """The place that an id stands for: `release/id`, or `owner/repository[/folder]`; UnknownNameError offers others."""
    shipped, table = list(shipped), releases()
    examples = [*shipped, *(f"{release}/{entry['id']}" for release, entry in table.items())]
    release = max((r for r in table if name == r or name.startswith(f"{r}/")), key=len, default=None)
    if release is not None:
        entry, rest = table[release], name[len(release) + 1 :]
        pattern = re.fullmatch(str(entry.get("pattern", "(.+)")), rest)
        if pattern is None:
            hint = f"Ids of {release} look like {release}/{entry['id']}."
            raise UnknownNameError("dictionary", name, examples, hint)
        canonical = entry.get("canonical")
        path = str(entry.get("path", "{0}")).format(*pattern.groups())
        return Place(str(entry["repo"]), path, int(canonical) if canonical is not None else None)
    first = name.partition("/")[0]
    ours = {id.partition("/")[0] for id in shipped}
    looks_like_path = name.startswith((".", "/", "~")) or "\\" in name or "//" in name
    # a misspelt release would otherwise pass for somebody's repository
    misspelt = difflib.get_close_matches(first, table, 1, 0.85)
    if looks_like_path or misspelt or first in ours or not re.fullmatch(r"[\w.-]+/[\w.-]+(/.+)?", name):
        near = nearest(name, [*examples, *table])
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else _what_to_give(shipped)
        raise UnknownNameError("dictionary", name, examples, hint)
    owner, repo, *rest = name.split("/")
    return Place(f"{owner}/{repo}", "/".join(rest))


def choose_files(place: Place, files: list[str]) -> tuple[str, list[str]]:
    """The path of the dictionary in its repository, and the files to fetch, of all that the repository has.

    UnknownNameError, with the nearest folders, where it has none of them.
    """
    path = place.path
    if place.canonical is not None:
        stem = path.removesuffix("canonical")
        ranked = [(abs(int(m[1]) - place.canonical), int(m[1]), f) for f in files
                  if f.startswith(stem) and (m := _L0.fullmatch(f[len(stem) :].partition("/")[0]))]  # fmt: skip
        path = str(PurePosixPath(min(ranked)[2]).parent) if ranked and path != stem else path
    head = f"{path}/" if path else ""
    found = [f for f in files if f == path or (f.startswith(head) and f[len(head) :] in WANTED)]
    if not any(f.endswith((".safetensors", ".npz", ".pt")) for f in found):
        folders = sorted({f.rpartition("/")[0].removesuffix("/checkpoints") for f in files if "/" in f})
        raise UnknownNameError(f"dictionary in {place.repo}", path, folders)
    parent = path.rpartition("/")[0]
    beside = [f"{parent}/{name}" if parent else name for name in BESIDE] if path else []
    return path, found + [f for f in beside if f in files and f not in found]


def fetch_dictionary(name: str, shipped: Iterable[str] = ()) -> Path:
    """Fetch the dictionary of an id from the hub, or from what was fetched before, and return its folder or file.

    UnknownNameError for what nobody knows; one sentence where the hub cannot be reached.
    """
    place = find_place(name, shipped)
    path = place.path

    def choose(files: list[str]) -> list[str]:
        nonlocal path
        path, chosen = choose_files(place, files)
        return chosen

    root = fetch_files(place.repo, choose)
    return root / path


def _what_to_give(shipped: list[str]) -> str:
    shown = f" There are: {', '.join(shipped)}." if shipped else ""
    return f"Give a folder, a known release's id, or owner/repository/folder on the hub.{shown}"
