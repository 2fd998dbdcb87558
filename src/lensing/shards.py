"""The bytes of activation shards: safetensors files that are written whole, carry their own hash, and are not mapped.

Reading never maps a file into memory: on a shared disk a mapped file comes in pages of 4 KB, one `readinto` at the full
speed of the disk.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lensing.errors import FileFormatError, UsageError
from lensing.files import atomic_file, explained

ROW_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_CODES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "I32": torch.int32, "I64": torch.int64}
_NAMES = {dtype: code for code, dtype in _CODES.items()}
_LONGEST_HEADER = 1 << 20
_LINE = 64  # bytes that a processor moves at a time
MEND = "Run the same harvest again: it makes exactly the shards anew that are missing or broken."


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in a shard: its numbers' format, its shape, and its first byte in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Shard:
    """A whole shard in memory: its tensors, the SHA-256 of the file, and whether every byte is as it was written."""

    tensors: dict[str, Tensor]
    sha256: str
    intact: bool


def row_dtype(name: str) -> torch.dtype:
    """Return the number format called `name`; UsageError unless it is bfloat16, float16 or float32."""
    if name not in ROW_DTYPES:
        raise UsageError(f"Rows cannot be stored as {name!r}. Choose one of {', '.join(ROW_DTYPES)}.")
    return ROW_DTYPES[name]


def round_rows(rows: Float[Tensor, "row width"], dtype: torch.dtype) -> Float[Tensor, "row width"]:
    """Return rows in another number format, each number as the nearest one there, ties to the even one."""
    return rows.to(dtype)


def write_shard(path: str | Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors on the CPU as one safetensors file, whole or not at all, and return the file's hex SHA-256.

    The same tensors give the same bytes. Raises LensingError when the disk refuses.
    """
    path = Path(path)
    views = [_bytes(tensors[name].contiguous()) for name in _in_order(tensors)]
    header = _header(tensors, views)
    whole = hashlib.sha256(header)
    with atomic_file(path) as temporary, explained(path), open(temporary, "wb") as file:
        file.write(header)
        for view in views:
            file.write(view)
            whole.update(view)
    return whole.hexdigest()


def read_entries(path: str | Path) -> dict[str, Entry]:
    """Return what a shard holds, by name, without reading it; FileFormatError when it is cut off or foreign."""
    with _open(path) as file:
        return _entries(file, Path(path))[0]


def room(shape: tuple[int, ...], dtype: torch.dtype) -> Shaped[Tensor, ...]:
    """Return an empty tensor to read into.

    numpy asks the system for pages of 2 MB, torch for pages of 4 KB: two to three times the time of the whole reading.
    It begins at a multiple of 64 bytes, as the numbers in a shard do: a copy from elsewhere takes up to twice as long.
    """
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    size = math.prod(shape) * dtype.itemsize
    whole = np.empty(size + _LINE, np.uint8)
    begin = -whole.ctypes.data % _LINE
    return torch.from_numpy(whole[begin : begin + size]).view(dtype).view(shape)


def read_tensor(path: str | Path, name: str, *, out: Tensor | None = None) -> Shaped[Tensor, ...]:
    """Return one whole tensor of a shard, read at once, into `out` where a contiguous one of its shape is given.

    Raises: FileFormatError: the file is missing, cut off or foreign, or holds another shape or number format than
    `out`.
    """
    with _open(path) as file:
        entry = _entry(file, Path(path), name)
        if out is None:
            out = room(entry.shape, entry.dtype)
        elif (tuple(out.shape), out.dtype) != (entry.shape, entry.dtype):
            raise FileFormatError(
                f"{path} holds {name} as {list(entry.shape)} {entry.dtype}, not {list(out.shape)} {out.dtype}. {MEND}"
            )
        _fill(file, Path(path), entry.start, out)
    return out


def read_rows(path: str | Path, name: str, start: int, stop: int) -> Shaped[Tensor, "row ..."]:
    """Return rows `start` to `stop` (not included) of a tensor, reading only their bytes.

    Raises: FileFormatError: as read_tensor. UsageError: there are no such rows.
    """
    with _open(path) as file:
        entry = _entry(file, Path(path), name)
        if not 0 <= start <= stop <= entry.shape[0]:
            raise UsageError(f"{path} has rows 0 to {entry.shape[0]}, not {start} to {stop}. Give rows that it has.")
        out = room((stop - start, *entry.shape[1:]), entry.dtype)
        width = math.prod(entry.shape[1:]) * entry.dtype.itemsize
        _fill(file, Path(path), entry.start + start * width, out)
    return out


def read_shard(path: str | Path) -> Shard:
    """Read a shard whole and hash it; FileFormatError when it is missing, cut off or foreign."""
    path = Path(path)
    with _open(path) as file:
        entries, header = _entries(file, path)
        tensors = {name: room(entry.shape, entry.dtype) for name, entry in entries.items()}
        for name, entry in entries.items():
            _fill(file, path, entry.start, tensors[name])
    views = [_bytes(tensors[name]) for name in _in_order(tensors)]
    whole = hashlib.sha256(header)
    for view in views:
        whole.update(view)
    # a header has one spelling, and the hash in it is of everything else
    return Shard(tensors, whole.hexdigest(), _header(tensors, views) == header)


def whole_hash(path: str | Path, tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 that a shard's file has if these, as they were read, are all its tensors; reads its header alone."""
    with _open(path) as file:
        found = hashlib.sha256(_entries(file, Path(path))[1])
    for name in _in_order(tensors):
        found.update(_bytes(tensors[name]))
    return found.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def _in_order(tensors: Mapping[str, Tensor]) -> list[str]:
    # wide numbers first, so that every tensor begins at a multiple of its own width
    return sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))


def _header(tensors: Mapping[str, Tensor], views: list[memoryview]) -> bytes:
    """The one header of these tensors; `views` are their bytes in the order of the file."""
    table: dict[str, Any] = {}
    place = 0
    for name, view in zip(_in_order(tensors), views, strict=True):
        shape = list(tensors[name].shape)
        table[name] = {"dtype": _NAMES[tensors[name].dtype], "shape": shape, "data_offsets": [place, place + len(view)]}
        place += len(view)
    found = hashlib.sha256(json.dumps(table).encode())
    for view in views:
        found.update(view)
    text = json.dumps({"__metadata__": {"sha256": found.hexdigest()}, **table}, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _LINE)
    return len(text).to_bytes(8, "little") + text


def _open(path: str | Path) -> BinaryIO:
    try:
        return open(path, "rb", buffering=0)
    except FileNotFoundError as error:
        raise FileFormatError(f"{path} is missing. {MEND}") from error
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be read: {error.strerror}. Check the disk and the file's rights."
        ) from error


def _entries(file: BinaryIO, path: Path) -> tuple[dict[str, Entry], bytes]:
    """What the header says, and its bytes; the file must end where the header says."""
    size = path.stat().st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _LONGEST_HEADER):
        raise FileFormatError(f"{path} is truncated or no safetensors file ({size} bytes). {MEND}")
    text = file.read(length)
    try:
        table = json.loads(text)
        table.pop("__metadata__", None)
        entries = {
            name: Entry(
                _CODES[item["dtype"]], tuple(map(int, item["shape"])), 8 + length + int(item["data_offsets"][0])
            )
            for name, item in table.items()
        }
        lengths = [int(item["data_offsets"][1]) - int(item["data_offsets"][0]) for item in table.values()]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise FileFormatError(f"{path} has a broken header ({error!r}). {MEND}") from error
    if any(min(e.shape, default=0) < 0 or e.size != n for e, n in zip(entries.values(), lengths, strict=True)):
        raise FileFormatError(f"{path} has a header whose sizes disagree. {MEND}")
    end = max((entry.start + entry.size for entry in entries.values()), default=8 + length)
    if end != size or 8 + length + sum(lengths) != size:
        raise FileFormatError(f"{path} is truncated: {size:,} bytes, its header speaks of {end:,}. {MEND}")
    return entries, len(text).to_bytes(8, "little") + text


def _entry(file: BinaryIO, path: Path, name: str) -> Entry:
    entries = _entries(file, path)[0]
    if name not in entries:
        raise FileFormatError(f"{path} holds no {name!r} but {', '.join(entries) or 'nothing'}. {MEND}")
    return entries[name]


def _fill(file: BinaryIO, path: Path, start: int, out: Tensor) -> None:
    file.seek(start)
    view, done = _bytes(out), 0
    while done < len(view):
        try:
            # one call may give less than was asked for: Linux stops at 2 GiB
            n = file.readinto(view[done:])  # type: ignore[attr-defined]
        except OSError as error:
            raise FileFormatError(f"{path} cannot be read: {error.strerror}. Check the disk.") from error
        if not n:
            raise FileFormatError(f"{path} ends {len(view) - done:,} bytes early. {MEND}")
        done += n
