"""Documents of text: read from a file, or sampled from the model itself."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from lensing.errors import FileFormatError, UsageError, suggest
from lensing.progress import Meter

if TYPE_CHECKING:
    from lensing.model.run import Model

ROWS = 128  # documents sampled at once, at most
LONGEST = 1024  # tokens of a sampled document, for models whose context is longer


def read_documents(path: str | Path, *, field: str = "text") -> list[str]:
    """Return the documents of a text file, in its order, empty ones left out.

    `.txt`: blank lines part the documents; without any the whole file is one. `.jsonl`: one object a line, its `field`.
    Either may be gzipped (`.gz`).

    Raises: UsageError: no such file, another ending, or no document in it. FileFormatError: not UTF-8, a broken gzip,
    or a line that is not an object with that field.
    """
    path = Path(path)
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind not in ("txt", "jsonl"):
        raise UsageError(f"{path} is neither .txt nor .jsonl (nor one of them with .gz). Convert it to one of these.")
    if not path.is_file():
        raise UsageError(f"There is no file {path}. Give the path of a .txt or .jsonl file.")
    text = _read(path)
    found = _lines(text, path, field) if kind == "jsonl" else re.split(r"\n(?:[^\S\n]*\n)+", text)
    documents = [stripped for document in found if (stripped := document.strip())]
    if not documents:
        raise UsageError(f"{path} holds no text. Give a file with at least one document.")
    return documents


def sample_documents(model: Model, n_tokens: int, *, seed: int = 0) -> list[list[int]]:
    """Return token ids of documents that `model` itself writes at temperature 1, at least `n_tokens` in all.

    Each starts at the beginning-of-text token (not counted) and runs to the model's end-of-text token to the end of its
    context, or to 1,024 tokens. The same seed gives the same documents.

    Raises: UsageError: `n_tokens` is not positive, or the model has no beginning-of-text token.
    """
    if n_tokens < 1:
        raise UsageError(f"{n_tokens} tokens cannot be sampled. Ask for at least 1.")
    if model.bos_id is None:
        raise UsageError(f"{model.name} has no beginning-of-text token to start from. Give a file of text instead.")
    # Some models end a document by starting the next one, so the beginning-of-text token also ends it.
    ends = {model.bos_id, *model.eos_ids}
    length = min(model.context or LONGEST, LONGEST)
    at_once = min(ROWS, -(-n_tokens // length))
    documents: list[list[int]] = []
    total = batch = 0
    with Meter(f"sampling text from {model.name}", total=n_tokens, unit="tokens") as meter:
        while total < n_tokens:
            rows = model.generate(
                [[model.bos_id]] * at_once, max_new_tokens=length - 1, temperature=1.0, seed=seed + batch,
                stop_ids=sorted(ends),
            ).ids.tolist()  # fmt: skip
            batch += 1
            for row in rows:
                end = next((i for i, token in enumerate(row) if token in ends), len(row))
                if end and total < n_tokens:
                    documents.append([model.bos_id, *row[:end]])
                    total += end
                    meter.advance(end)
            if not total:
                raise UsageError(f"{model.name} ends every text at once. Give a file of text instead.")
    return documents


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix.lower() == ".gz" else raw).decode("utf-8")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FileFormatError(f"{path} is not a whole gzip file: {error}. Fetch it again.") from error
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}. Convert it.") from error


def _lines(text: str, path: Path, field: str) -> list[str]:
    found = []
    # Not splitlines(): JSON strings may hold U+2028 and other characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise FileFormatError(f"{path}, line {number} is not JSON: {error.msg}. Correct that line.") from error
        if not isinstance(record, dict) or not isinstance(record.get(field), str):
            names = list(record) if isinstance(record, dict) else []
            raise FileFormatError(f"{path}, line {number} has no text field {field!r}. {suggest(field, names)}")
        found.append(record[field])
    return found
