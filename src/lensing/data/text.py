"""Documents of text: from a file, a folder of files or a dataset, or sampled from the model itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, final

from lensing.data.hub import dataset_rows, looks_like_dataset, saved_dataset
from lensing.data.readers import Row, ending, endings, find_reader, read_rows
from lensing.errors import FileFormatError, UsageError
from lensing.memory import refuse_too_large
from lensing.progress import Meter

if TYPE_CHECKING:
    from lensing.model.run import Model

ROWS = 128  # documents sampled at once, at most
LOOKED_AT = 100_000  # rows after a bad one in which more are counted
LONGEST = 1024  # tokens of a sampled document, for models whose context is longer


@final
class Text:
    """Documents of a file, of a folder of files, or of a dataset; read a little at a time, each time from the start.

    `source` is a file that ends in .txt (blank lines part the documents; without any it is one), .jsonl (one object a
    line, its `field`) or .parquet (its column `field`), the first two also in .gz or .zst; a folder of such files, read
    in the order of their names; a folder that `datasets` saved; or a dataset of the Hugging Face hub, `owner/name`
    (`owner/name:split` where the split is not `train`). Empty documents are left out. A row that cannot be used (no
    text there, not UTF-8, not JSON) is refused by file and line, or with `skip_bad` left out and counted in `skipped`.
    """

    def __init__(self, source: str | Path, *, field: str = "text", skip_bad: bool = False) -> None:
        self.source, self.field, self.skip_bad = str(source), field, skip_bad
        self.skipped = 0
        self._parts = _parts(self.source, field)

    @property
    def name(self) -> str:
        """What the text is called in records: the file's or folder's own name, or the dataset's id."""
        return Path(self.source).resolve().name if Path(self.source).exists() else self.source

    def __iter__(self) -> Iterator[str]:
        """Yield the documents.

        Raises: FileFormatError: a broken file, or a row that cannot be used. UsageError: there is no document at all,
        or no such column.
        """
        self.skipped = found = 0
        for where, open_rows in self._parts:
            rows = open_rows()
            for row in rows:
                if row.fault and not self.skip_bad:
                    raise _refusal(where, row, rows)
                self.skipped += bool(row.fault)
                if text := row.text.strip():
                    found += 1
                    yield text
        if not found:
            bad = f" ({self.skipped} rows that cannot be used were left out)" if self.skipped else ""
            raise UsageError(f"{self.source} holds no text{bad}. Give a file with at least one document.")


def read_documents(path: str | Path, *, field: str = "text", skip_bad: bool = False) -> list[str]:
    """Return the documents of a file of text, in its order; the other sources, `field` and `skip_bad` are as in `Text`.

    Raises: UsageError: no such file, another ending, no such column, or no document in it. FileFormatError: a broken
    file, or a row that cannot be used.
    """
    return list(Text(path, field=field, skip_bad=skip_bad))


def sample_documents(model: Model, n_tokens: int, *, seed: int = 0) -> list[list[int]]:
    """Return token ids of documents that `model` itself writes at temperature 1, at least `n_tokens` in all.

    Each starts at the beginning-of-text token (not counted) and runs to the model's end-of-text token to the end of its
    context, or to 1,024 tokens. The same seed gives the same documents.

    Raises: UsageError: `n_tokens` is not positive, or the model has no beginning-of-text token.
    """
    if n_tokens < 1:
        raise UsageError(f"{n_tokens} tokens cannot be sampled. Ask for at least 1.")
    refuse_too_large(f"A text of {n_tokens:,} tokens", 36 * n_tokens, "Ask for fewer.")
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


Part = tuple[str, Callable[[], Iterator[Row]]]  # a file's (or dataset's) name, and its rows from the start


def _parts(source: str, field: str) -> list[Part]:
    path = Path(source).expanduser()
    if path.is_dir() and saved_dataset(path):
        return [(source, partial(dataset_rows, source, field))]
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and ending(p) and not p.name.startswith("."))
        if not files:
            raise UsageError(f"{source} holds no file that is read: {endings()}. Give a file or another folder.")
        return [(str(file), partial(read_rows, file, field)) for file in files]
    if not path.exists() and looks_like_dataset(source):
        return [(source, partial(dataset_rows, source, field))]
    find_reader(path)  # a wrong path is said at once
    return [(source, partial(read_rows, path, field))]


def _refusal(where: str, first: Row, rows: Iterator[Row]) -> FileFormatError:
    """The first bad row, and how many there are of those that follow it."""
    after = [bool(row.fault) for row in islice(rows, LOOKED_AT)]
    of = f" So are {sum(after):,} of the next {len(after):,} rows." if any(after) else ""
    fault = first.fault if first.fault.endswith(("?", ".")) else f"{first.fault}."
    return FileFormatError(
        f"{where}, line {first.line} {fault}{of} Correct it, or leave such rows out with skip_bad=True (--skip-bad)."
    )
