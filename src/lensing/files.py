"""Files that are either whole or absent: write to a temporary name, then rename."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lensing.errors import LensingError

PART = ".part"  # ends the name of what is not whole yet
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a disk says that takes no more


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the final name, on failure it goes.

    A disk that is full while it is written is a LensingError.
    """
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        try:
            yield temporary
        except OSError as error:
            if error.errno not in FULL:
                raise
            with explained(path):
                raise
        with explained(path):
            # Some writers replace the file and lose its mode; a finished file reads like any other.
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it replaces `path`, on failure it goes."""
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent))
        os.chmod(temporary, 0o755)
    try:
        yield temporary
        with explained(path):
            if path.exists():
                old = temporary.with_suffix(".old")
                os.replace(path, old)
                try:
                    os.replace(temporary, path)
                except BaseException:
                    os.replace(old, path)
                    raise
                shutil.rmtree(old)
            else:
                os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: str | Path) -> None:
    """Remove what writers that were killed left half-written in `folder`, not in folders below it."""
    folder = Path(folder)
    # safetensors writes to a name of its own beside ours before it renames
    for path in [*folder.glob(f".*{PART}"), *(p for p in folder.glob(".tmp??????") if p.is_file())]:
        with explained(path):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def check_writable(folder: str | Path) -> None:
    """Raise LensingError unless `folder` can be made, or is there, and takes a file; what was not there stays away."""
    folder = Path(folder)
    with explained(folder):
        # what is above it is tried: a folder that is made for a moment may be another process's the next
        there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        with tempfile.TemporaryFile(dir=there):
            pass


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(path: str | Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into one sentence and what to do."""
    try:
        yield
    except PermissionError as error:
        raise LensingError(f"No permission to write {path}. Choose another folder with --out.") from error
    except (NotADirectoryError, FileExistsError) as error:
        raise LensingError(f"{path} cannot be written: {error.strerror}. Choose another folder with --out.") from error
    except OSError as error:
        what = f"{path} cannot be written: {error.strerror}."
        raise LensingError(f"{what} Free some space or choose another folder.") from error


def finite(value: Any) -> Any:
    """Return `value` with every number that JSON cannot hold (nan, infinity) as None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value
