"""Is a shard what the manifest says and what was written? One check for harvests that continue and for verify."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lensing.data.manifest import TOKENS, Manifest
from lensing.data.moments import Moments
from lensing.errors import FileFormatError
from lensing.shards import ROW_DTYPES, read_shard

TOKEN_COLUMNS = {"ids": torch.int32, "doc": torch.int64, "pos": torch.int32}


@dataclass(frozen=True, eq=False)
class Checked:
    """What is wrong with a shard (empty: nothing), its hash, and the moments of its rows (None for `tokens`)."""

    fault: str
    sha256: str = ""
    moments: Moments | None = None


def check_shard(folder: Path, manifest: Manifest, what: str, number: int, stats: Mapping[str, Any] | None) -> Checked:
    """Read one shard of a site (or of `tokens`) and compare it with the manifest, its own hash and `stats.json`."""
    path = manifest.path(folder, what, number)
    if not path.exists():
        return Checked("missing")
    try:
        shard = read_shard(path)
    except FileFormatError as error:
        return Checked(f"unreadable ({str(error).removeprefix(f'{path} ').partition('. ')[0]})")
    if (recorded := (stats or {}).get("sha256", {}).get(path.name, shard.sha256)) != shard.sha256 or not shard.intact:
        why = "its bytes are not those that were written" if not shard.intact else "stats.json lists another hash"
        return Checked(f"changed ({why})", recorded)
    if not _fits(manifest, what, manifest.shards[number], shard.tensors):
        return Checked("of another shape or number format than store.json says")
    if what == TOKENS:
        return Checked("", shard.sha256)
    if row := first_not_finite(shard.tensors["x"]):
        return Checked(f"not finite in row {row - 1}")
    return Checked("", shard.sha256, Moments.none(shard.tensors["x"].shape[1]).update(shard.tensors["x"]))


def first_not_finite(rows: Tensor) -> int:
    """Return the number, counted from 1, of the first row with a number that is not finite; 0 where there is none."""
    bad = ~rows.isfinite().all(1)
    return int(bad.nonzero()[0]) + 1 if bool(bad.any()) else 0


def stats_record(manifest: Manifest, what: str, checked: Mapping[tuple[str, int], Checked]) -> dict[str, Any]:
    """Return what `stats.json` of a site (or of `tokens`) says: rows, moments over all of them, hash of each shard."""
    shards = [checked[what, number] for number in range(len(manifest.shards))]
    record: dict[str, Any] = {"n": sum(manifest.shards)}
    if what != TOKENS:
        total = Moments.none(int(manifest.sites[what]["width"]))
        for shard in shards:  # in the order of the numbers, so that every run ends with the same digits
            assert shard.moments is not None
            total = total.merge(shard.moments)
        record = total.to_json()
    names = (manifest.path(Path(), what, number).name for number in range(len(shards)))
    return {**record, "sha256": {name: shard.sha256 for name, shard in zip(names, shards, strict=True)}}


def agree(a: Any, b: Any) -> bool:
    """Whether two records say the same, numbers up to the rounding of another machine's sums."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(agree(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(agree, a, b))
    if isinstance(a, float) and isinstance(b, float | int):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    return type(a) is type(b) and a == b


def _fits(manifest: Manifest, what: str, rows: int, tensors: Mapping[str, Tensor]) -> bool:
    expected = {name: ((rows,), dtype) for name, dtype in TOKEN_COLUMNS.items()}
    if what != TOKENS:
        site = manifest.sites[what]
        expected = {"x": ((rows, int(site["width"])), ROW_DTYPES[site["dtype"]])}  # type: ignore[dict-item]
    return {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()} == expected
