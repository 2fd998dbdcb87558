"""Read a cross-layer transcoder: a folder of ours, of circuit-tracer or of Gemma Scope 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lensing.dictionary.configs import JOIN
from lensing.dictionary.crosslayer import FORMAT, FORMAT_VERSION, CrossLayer, CrossStatistics
from lensing.dictionary.formats import circuit_tracer_clt
from lensing.dictionary.formats.table import OURS, refuse_used
from lensing.dictionary.load import load_dictionary
from lensing.errors import DictionaryError, FileFormatError
from lensing.files import atomic_folder


def load_cross_layer(folder: str | Path) -> CrossLayer:
    """Load a cross-layer transcoder from a folder, frozen and in evaluation mode.

    Raises: DictionaryError: the folder holds none. FileFormatError: files are missing, truncated or corrupt.
    """
    folder = Path(folder).expanduser()
    if circuit_tracer_clt.detect(folder):
        return circuit_tracer_clt.read(folder)
    record = _config(folder)
    try:
        layers = [load_dictionary(folder / f"layer_{i}") for i in range(int(record["layers"]))]
        found = CrossLayer(layers)
        found.site, found.target = JOIN.join(record["reads"]) or None, JOIN.join(record["writes"]) or None
        found.model_name, found.id, found.sample = record["model"], record["id"], layers[0].sample
        found.stored_dtype = getattr(torch, record["dtype"])
        if record["statistics"] is not None:
            facts: dict[str, Any] = {
                name: tuple(v) if isinstance(v, list) else v for name, v in record["statistics"].items()
            }
            found.statistics = CrossStatistics(**facts)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise FileFormatError(
            f"{folder / 'config.json'} is not what lensing writes: {error!r}. Save the transcoder again."
        ) from error
    return found.requires_grad_(False).eval()


def write_cross_layer(clt: CrossLayer, folder: str | Path, name: str = OURS) -> Path:
    """Write a cross-layer transcoder to `folder` in the format `name` (lensing or circuit-tracer), all or nothing.

    UsageError where the folder is in use, DictionaryError where the format cannot express it.
    """
    if name not in (OURS, "circuit-tracer"):
        raise DictionaryError(f"{name} has no cross-layer transcoders. Write it as lensing or circuit-tracer.")
    folder = Path(folder)
    refuse_used(folder)
    with atomic_folder(folder) as temporary:
        if name == OURS:
            clt.save(temporary)
        else:
            circuit_tracer_clt.write(clt, temporary)
    return folder


def is_cross_layer(folder: str | Path) -> bool:
    """Whether a folder holds a cross-layer transcoder, judged by its files' names and config.json alone."""
    folder = Path(folder).expanduser()
    if circuit_tracer_clt.detect(folder):
        return True
    try:
        return _config(folder)["format"] == FORMAT
    except (DictionaryError, FileFormatError):
        return False


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DictionaryError(f"{folder} holds no config.json. Give a cross-layer transcoder's folder.") from error
    except ValueError as error:
        raise FileFormatError(f"{path} is not JSON: {error}. Save the transcoder again.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DictionaryError(
            f"{folder} is not a cross-layer transcoder. Use ln.load_dictionary for a dictionary of one layer."
        )
    if record.get("version") != FORMAT_VERSION:
        raise FileFormatError(
            f"{path} has format version {record.get('version')}, this lensing reads {FORMAT_VERSION}. Update lensing."
        )
    return record
