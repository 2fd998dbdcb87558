"""The table of formats: which there are, which one a folder is in, and reading and writing by name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from lensing.dictionary.base import Dictionary
from lensing.errors import DictionaryError, UnknownNameError, UsageError
from lensing.files import atomic_folder

# name: module; detection asks in this order
FORMATS = {
    "saelens": "lensing.dictionary.formats.saelens",
    "sparsify": "lensing.dictionary.formats.sparsify",
    "gemma-scope": "lensing.dictionary.formats.gemma_scope",
    "gemma-scope-2": "lensing.dictionary.formats.gemma_scope_2",
    "llama-scope": "lensing.dictionary.formats.llama_scope",
    "circuit-tracer": "lensing.dictionary.formats.circuit_tracer",
    "dictionary_learning": "lensing.dictionary.formats.dictionary_learning",
    "openai": "lensing.dictionary.formats.openai",
}
OURS = "lensing"
WRITTEN = (OURS, "saelens", "sparsify")


def find_format(path: Path) -> str | None:
    """Name of the foreign format that a folder or file is in, judged by names of files alone; None if in none."""
    return next((name for name in FORMATS if _module(name).detect(path)), None)


def read_foreign(path: Path, name: str, *, allow_pickle: bool = False) -> Dictionary:
    """Read a dictionary of the format `name`, folded to this package's conventions, frozen and in evaluation mode.

    UnknownNameError for an unknown format; what the file lacks or what cannot be expressed is a FileFormatError or a
    DictionaryError that names it, a pickle without `allow_pickle` an UnsafeFileError.
    """
    if name not in FORMATS:
        raise UnknownNameError("format", name, [*FORMATS, OURS])
    return _module(name).read(path, allow_pickle=allow_pickle)


def write_dictionary(dictionary: Dictionary, folder: str | Path, name: str = OURS) -> Path:
    """Write a dictionary to `folder` in the format `name` (lensing, saelens or sparsify), all of it or nothing.

    UsageError where the folder is in use, DictionaryError where the format cannot express the dictionary.
    """
    if name not in WRITTEN:
        only = f"It is read only; there are: {', '.join(WRITTEN)}." if name in FORMATS else ""
        raise UnknownNameError("format to write", name, WRITTEN, only)
    folder = Path(folder)
    refuse_used(folder)
    with atomic_folder(folder) as temporary:
        if name == OURS:
            dictionary.save(temporary)
        else:
            _module(name).write(dictionary, temporary)
    return folder


def refuse_used(folder: Path) -> None:
    """Raise UsageError unless `folder` is new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} holds something already. Give a new folder.")


def _module(name: str) -> Any:
    return importlib.import_module(FORMATS[name])


def refuse_many(path: Path, choices: list[str]) -> None:
    """Raise DictionaryError for a folder that holds several dictionaries, naming some of them."""
    shown = ", ".join(choices[:4]) + (", ..." if len(choices) > 4 else "")
    raise DictionaryError(f"{path} holds {len(choices)} dictionaries ({shown}). Give one of them.")
