"""`store.json`: everything that decides the bytes of a store, written before its first shard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lensing.data.order import Order
from lensing.errors import FileFormatError, UsageError
from lensing.files import write_json
from lensing.shards import ROW_DTYPES

FORMAT, FORMAT_VERSION = "lensing-store", 1
NAME = "store.json"
TOKENS, STATS = "tokens", "stats.json"
TOKEN_BYTES = 16  # a row of tokens/: id, document and position


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a store holds and what it was made from; with a shard's number it decides that shard's bytes."""

    model: dict[str, Any]
    """`name`, `revision` (a commit, for a model of the hub), `weights` (digest), `dtype`."""
    tokenizer: str | None
    """Digest of the tokenizer; None where the model came without."""
    text: dict[str, Any]
    """`source`, `digest` (of all token ids), `documents`, `held_out_documents`, `skipped` (unusable rows left out)."""
    seed: int
    context: int | None
    """Tokens of the longest piece, BOS included."""
    batch_tokens: int
    special: dict[str, Any]
    """`included`: whether special tokens have rows; `ids`: which these tokens are."""
    sites: dict[str, dict[str, Any]]
    """For each site its `width` and the `dtype` of its rows."""
    mixed: int
    """How many shards are mixed at a time."""
    train_shards: tuple[int, ...]
    """Rows of each shard that training reads."""
    held_out_shards: tuple[int, ...]
    """Rows of each shard after these, which training never reads."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "train_shards", tuple(map(int, self.train_shards)))
        object.__setattr__(self, "held_out_shards", tuple(map(int, self.held_out_shards)))

    @property
    def shards(self) -> tuple[int, ...]:
        """Rows of every shard."""
        return self.train_shards + self.held_out_shards

    @property
    def order(self) -> Order:
        """The order in which training reads the rows."""
        return Order(self.train_shards, self.mixed, self.seed)

    @property
    def folders(self) -> dict[str, str]:
        """Site (and `tokens`) to the name of its folder."""
        # a colon cannot stand in a name on Windows
        return {TOKENS: TOKENS} | {site: site.replace(":", "=") for site in self.sites}

    def row_bytes(self, what: str) -> int:
        """Bytes of one row of a site, or of `tokens`."""
        if what == TOKENS:
            return TOKEN_BYTES
        site = self.sites[what]
        return int(site["width"]) * ROW_DTYPES[site["dtype"]].itemsize

    def path(self, folder: Path, what: str, number: int) -> Path:
        """Where a shard of a site, or of `tokens`, lies."""
        return folder / self.folders[what] / f"{number:05d}.safetensors"

    def to_json(self) -> dict[str, Any]:
        """Return plain values, with format and version."""
        return {"format": FORMAT, "version": FORMAT_VERSION, **asdict(self)}

    def write(self, folder: Path) -> None:
        """Write `store.json`."""
        write_json(folder / NAME, self.to_json())


def read_manifest(folder: str | Path) -> Manifest:
    """Read `store.json`; UsageError where the folder is no store, FileFormatError where the file is broken or newer."""
    path = Path(folder) / NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{folder} is no store: it has no {NAME}. Give a folder that lensing harvest made.") from error
    except ValueError as error:
        raise FileFormatError(f"{path} is not JSON: {error}. Harvest into a new folder.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise FileFormatError(f"{path} does not describe a store. Give a folder that lensing harvest made.")
    if record.get("version") != FORMAT_VERSION:
        raise FileFormatError(f"{path} has version {record.get('version')}, this lensing reads 1. Update lensing.")
    try:
        found = Manifest(**{field.name: record[field.name] for field in fields(Manifest)})
        found.order, found.folders, [found.row_bytes(site) for site in found.sites]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileFormatError(f"{path} is not what lensing writes: {error!r}. Harvest into a new folder.") from error
    return found


def read_stats(folder: Path, manifest: Manifest, what: str) -> dict[str, Any] | None:
    """Read the `stats.json` of a site or of `tokens`; None where it is missing or broken: then it is to be made."""
    try:
        record = json.loads((folder / manifest.folders[what] / STATS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("sha256"), dict) else None


def differences(old: Manifest, new: Manifest) -> list[str]:
    """Say for each setting that differs what it was and what it is now."""
    before, after = dict(_flat(old.to_json())), dict(_flat(new.to_json()))
    return [
        f"{key}: {_short(before.get(key))}, now {_short(after.get(key))}"
        for key in [*before, *(key for key in after if key not in before)]
        if before.get(key) != after.get(key)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and key != "sites":
            yield from _flat(value, f"{prefix}{key} ")
        elif key == "sites":
            yield from ((f"site {name}", f"{site['width']} x {site['dtype']}") for name, site in value.items())
        else:
            yield prefix + key, list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} of {sum(value):,} rows"
    return "none" if value is None else str(value)
