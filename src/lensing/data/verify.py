"""Verify: is every file of a store, or of a dictionary, there and as it was written?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lensing.data.check import Checked, agree, check_shard, stats_record
from lensing.data.manifest import NAME, STATS, Manifest, differences, read_manifest, read_stats
from lensing.errors import FileFormatError, UsageError
from lensing.files import sha256
from lensing.progress import Meter
from lensing.shards import MEND

KINDS = ("lensing-dictionary", "lensing-cross-layer")


@dataclass(frozen=True)
class Finding:
    """One file and what is wrong with it."""

    file: str
    fault: str


@dataclass(frozen=True)
class VerifyReport:
    """What was checked and what was found; `advice` says what to do, and is empty where all is well."""

    folder: str
    kind: str
    files: int
    findings: tuple[Finding, ...]
    advice: str

    @property
    def whole(self) -> bool:
        """Whether nothing is amiss."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "whole": self.whole}


def verify_folder(folder: str | Path) -> VerifyReport:
    """Check a store or a dictionary's folder; UsageError where it is neither."""
    folder = Path(folder)
    if (folder / NAME).exists():
        return verify_store(folder)
    if (folder / "config.json").exists():
        return verify_dictionary(folder)
    raise UsageError(f"{folder} is neither a store nor a dictionary. Give a folder with {NAME} or config.json.")


def verify_store(folder: str | Path, *, quiet: bool = False) -> VerifyReport:
    """Read a store whole: each shard is there, has its size, its hash and finite numbers, and the statistics are right.

    Raises: UsageError: the folder is no store. FileFormatError: `store.json` itself is broken.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    findings = [*_compare_run(folder, manifest)]
    total = len(manifest.folders) * (len(manifest.shards) + 1)
    with Meter("verifying", total=total, unit="files", quiet=quiet) as meter:
        for what, name in manifest.folders.items():
            stats = read_stats(folder, manifest, what)
            checked: dict[tuple[str, int], Checked] = {}
            for number in range(len(manifest.shards)):
                found = check_shard(folder, manifest, what, number, stats)
                if found.fault:
                    findings.append(Finding(f"{name}/{manifest.path(folder, what, number).name}", found.fault))
                checked[what, number] = found
                meter.advance()
            if stats is None:
                findings.append(Finding(f"{name}/{STATS}", "missing or not JSON: this site was not finished"))
            elif not any(c.fault for c in checked.values()) and not agree(stats_record(manifest, what, checked), stats):
                findings.append(Finding(f"{name}/{STATS}", "not what the shards say"))
            meter.advance()
    return VerifyReport(str(folder), "store", total, tuple(findings), MEND if findings else "")


def _compare_run(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """`store.json` has no hash, but what it says stands in `run.json` once more."""
    try:
        setting = json.loads((folder / "run.json").read_text(encoding="utf-8"))["setting"]
        noted = Manifest(**{field.name: setting[field.name] for field in fields(Manifest)})
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield Finding("run.json", f"broken ({error!r})")
        return
    if changed := differences(noted, manifest):
        yield Finding(NAME, f"not what run.json says ({'; '.join(changed)})")


def verify_dictionary(folder: str | Path) -> VerifyReport:
    """Compare each file of a dictionary with the hash in its `config.json`.

    Raises FileFormatError where `config.json` is broken or describes something else.
    """
    folder = Path(folder)
    path = folder / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileFormatError(f"{path} is not JSON: {error}. Fetch or save the dictionary again.") from error
    if not isinstance(record, dict) or record.get("format") not in KINDS:
        raise FileFormatError(f"{path} does not describe a lensing dictionary. Give a folder that lensing saved.")
    hashes = record.get("sha256")
    if not isinstance(hashes, dict):
        raise FileFormatError(f"{path} lists no hashes. Save the dictionary again.")
    findings = tuple(_compare(folder, hashes))
    return VerifyReport(
        str(folder), "dictionary", len(hashes), findings, "Fetch or save the dictionary again." if findings else ""
    )


def _compare(folder: Path, hashes: dict[str, str]) -> Iterator[Finding]:
    for name, digest in hashes.items():
        path = folder / name
        if not path.is_file():
            yield Finding(name, "missing")
        elif sha256(path) != digest:
            yield Finding(name, "changed (its hash is not the recorded one)")
