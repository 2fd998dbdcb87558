"""Datasets of text: saved in a folder by `datasets`, or fetched from the Hugging Face hub row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from lensing.data.readers import Row, check_column, optional, value_row
from lensing.errors import UnknownNameError, UsageError


def saved_dataset(folder: Path) -> bool:
    """Whether `datasets` saved the folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def looks_like_dataset(name: str) -> bool:
    """Whether a name that is no path here could be `owner/name` or `owner/name:split` of the hub."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", name)) and not re.search(
        r"\.(txt|jsonl|parquet|csv|json|gz|zst)$", name, re.IGNORECASE
    )


def dataset_rows(name: str, field: str) -> Iterator[Row]:
    """Yield the rows of a saved dataset or of one of the hub: the column `field`, row numbers counted from 1.

    Raises: UsageError: `datasets` is missing, there is no such dataset, split or column.
    """
    datasets = optional("datasets")
    try:
        if Path(name).expanduser().is_dir():
            table, split = datasets.load_from_disk(str(Path(name).expanduser())), "train"
        else:
            name, _, split = name.partition(":")
            table = datasets.load_dataset(name, streaming=True)
    except Exception as error:  # whatever the library and its network raise
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"The dataset {name} cannot be opened: {reason}. Give a file, or check its name and the network."
        ) from error
    if isinstance(table, dict):
        split = split or "train"
        if split not in table:
            raise UnknownNameError("split", split, table, f"{name} has: {', '.join(table)}. Write {name}:SPLIT.")
        table = table[split]
    rows = iter(table)
    first = next(rows, None)
    if first is None:
        return
    # a stream of the hub may not know its columns before its first row
    columns: Any = table.column_names or list(first)
    check_column(field, list(columns), name)
    for number, row in enumerate(chain([first], rows), start=1):
        yield value_row(number, row[field], field)
