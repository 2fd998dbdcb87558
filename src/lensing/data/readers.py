"""Readers of text files: one for each ending, each giving rows with what is wrong with them; the table is open."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from lensing.errors import FileFormatError, UnknownNameError, UsageError, suggest
from lensing.registry import Registry


@dataclass(frozen=True, slots=True)
class Row:
    """A document and the line (or row) where it begins, counted from 1; where it cannot be used, why."""

    line: int
    text: str = ""
    fault: str = ""


Reader = Callable[[BinaryIO, Path, str], Iterator[Row]]
READERS: Registry[Reader] = Registry("reader of text files")
COMPRESSED = ("gz", "zst")
_EXTRAS = {"zstandard": "text", "pyarrow.parquet": "text", "datasets": "hub"}


def ending(path: Path) -> str | None:
    """Return the name of the reader that a file's ending asks for, compression aside; None where there is none."""
    name, _, last = path.name.lower().rpartition(".")
    kind = name.rpartition(".")[2] if last in COMPRESSED else last
    return kind if kind in READERS and not (kind == "parquet" and last in COMPRESSED) else None


def endings() -> str:
    """Say which endings are read."""
    return f"{', '.join(f'.{kind}' for kind in READERS)} (the text ones also with .gz or .zst)"


def find_reader(path: Path) -> Reader:
    """Return the reader for a file; UsageError where no reader is for its ending, or there is no such file."""
    kind = ending(path)
    if kind is None:
        raise UsageError(f"{path} is no kind of file that is read: {endings()}. Convert it to one of these.")
    if not path.is_file():
        raise UsageError(f"There is no file {path}. Give the path of a .txt or .jsonl file.")
    return READERS[kind]


def read_rows(path: Path, field: str) -> Iterator[Row]:
    """Yield the rows of a text file, read a little at a time.

    Raises: UsageError: an ending without a reader, no such file, no such column. FileFormatError: a broken file.
    """
    read = find_reader(path)
    with ExitStack() as stack:
        file: Any = stack.enter_context(open(path, "rb"))
        if path.suffix.lower() == ".gz":
            file = stack.enter_context(gzip.open(file))
        elif path.suffix.lower() == ".zst":
            file = io.BufferedReader(_Zstd(file, optional("zstandard")))
        try:
            yield from read(file, path, field)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            what = "gzip" if path.suffix.lower() == ".gz" else "zstd"
            raise FileFormatError(f"{path} is not a whole {what} file: {error}. Fetch it again.") from error


def optional(module: str) -> ModuleType:
    """Import a library that is not always there; UsageError names the line that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"This needs {module.partition('.')[0]}, which is not installed. "
            f"Install it with: pip install 'lensing[{_EXTRAS[module]}]'"
        ) from error


def check_column(field: str, names: list[str], where: str) -> None:
    """Raise UnknownNameError, with the names that there are, unless `field` is one of a table's columns."""
    if field not in names:
        raise UnknownNameError("column", field, names, f"{where} has: {', '.join(names)}. Name one with --field.")


@READERS.register("txt")
def _txt(file: BinaryIO, path: Path, field: str) -> Iterator[Row]:
    """Blank lines part the documents; without any the whole file is one."""
    lines: list[str] = []
    begin, fault = 0, ""
    for number, (text, wrong) in enumerate(_lines(file), start=1):
        if not wrong and not text.strip():
            if lines or fault:
                yield Row(begin, "" if fault else "\n".join(lines), fault)
            lines, fault = [], ""
            continue
        if wrong and not fault:
            begin, fault = number, wrong
        elif not lines and not fault:
            begin = number
        lines.append(text)
    if lines or fault:
        yield Row(begin, "" if fault else "\n".join(lines), fault)


@READERS.register("jsonl")
def _jsonl(file: BinaryIO, path: Path, field: str) -> Iterator[Row]:
    """One object a line; the document is one of its fields."""
    for number, (text, wrong) in enumerate(_lines(file), start=1):
        if wrong:
            yield Row(number, fault=wrong)
        elif text.strip():
            try:
                record = json.loads(text)
            except ValueError as error:
                yield Row(number, fault=f"is not JSON: {getattr(error, 'msg', error)}")
                continue
            except RecursionError:
                yield Row(number, fault="is not JSON that can be read: it is nested too deeply")
                continue
            yield _field(number, record, field)


@READERS.register("parquet")
def _parquet(file: BinaryIO, path: Path, field: str) -> Iterator[Row]:
    """A table; the document is one of its columns."""
    parquet = optional("pyarrow.parquet")
    try:
        table = parquet.ParquetFile(file)
        check_column(field, list(table.schema_arrow.names), str(path))
        number = 0
        for batch in table.iter_batches(batch_size=1024, columns=[field]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield value_row(number, value, field)
    except importlib.import_module("pyarrow").ArrowException as error:
        raise FileFormatError(f"{path} is not a whole parquet file: {error}. Fetch it again.") from error


def value_row(number: int, value: Any, field: str) -> Row:
    """Return a row of a table's column."""
    if isinstance(value, str):
        return Row(number, value)
    return Row(number, fault=f"has no text in {field!r}: {'nothing' if value is None else type(value).__name__} there")


def _field(number: int, record: Any, field: str) -> Row:
    if isinstance(record, dict) and isinstance(record.get(field), str):
        return Row(number, record[field])
    names = [name for name in record if name != field] if isinstance(record, dict) else []
    return Row(number, fault=f"has no text field {field!r}. {suggest(field, names)}")


def _lines(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """Each line as text without its end, and what is wrong with it. Only \\n ends a line: JSON may hold U+2028."""
    for number, raw in enumerate(file):
        line = raw.removesuffix(b"\n")
        if not number:
            line = line.removeprefix(b"\xef\xbb\xbf")  # the mark that some editors put before UTF-8
        if b"\0" in line:
            yield "", "is binary: not UTF-8 text"
            continue
        try:
            yield line.decode("utf-8"), ""
        except UnicodeDecodeError as error:
            yield "", f"is not UTF-8 text: {error.reason} at byte {error.start}"


class _Zstd(io.RawIOBase):
    """A zstd file as a stream of its contents; EOFError where it ends in the middle, which zstandard's own forgives."""

    def __init__(self, file: BinaryIO, zstandard: Any) -> None:
        self._file, self._library = file, zstandard
        self._frame: Any = self._next_frame()
        self._begun, self._ready = False, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            raw = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._begun = self._next_frame(), False
            raw = raw or self._file.read(1 << 17)
            if not raw and self._begun:
                raise EOFError("it ends before its end mark")
            if not raw:
                return 0
            self._begun = True
            try:
                self._ready = memoryview(self._frame.decompress(raw))
            except self._library.ZstdError as error:
                raise EOFError(str(error)) from error
        n = min(len(buffer), len(self._ready))
        buffer[:n], self._ready = self._ready[:n], self._ready[n:]
        return n

    def _next_frame(self) -> Any:
        return self._library.ZstdDecompressor().decompressobj()
