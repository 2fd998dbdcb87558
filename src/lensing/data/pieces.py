"""Documents as the token ids that a model is fed: BOS in front where it has one, cut to the context."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from lensing.errors import PromptError, UsageError
from lensing.model.run import Model

AT_ONCE = 1024  # documents given to the tokenizer together


@dataclass(frozen=True, eq=False)
class Pieces(Sequence[np.ndarray]):
    """Pieces of documents: four bytes a token, and for each piece the number of its document and of its rows."""

    ids: np.ndarray  # int32 [token]
    offsets: np.ndarray  # int64 [piece + 1]
    parents: np.ndarray  # int64 [piece]
    rows: np.ndarray  # int64 [piece]

    def __len__(self) -> int:
        return len(self.parents)

    def __getitem__(self, piece: int) -> np.ndarray:  # type: ignore[override]
        return self.ids[self.offsets[piece] : self.offsets[piece + 1]]

    @property
    def documents(self) -> int:
        """How many documents have at least one token."""
        return int(self.parents[-1]) + 1 if len(self) else 0

    def digest(self) -> str:
        """Twelve hex digits that stand for every token id and every cut."""
        found = hashlib.sha256()
        for piece in self:
            found.update(len(piece).to_bytes(8, "little"))
            found.update(piece.astype("<i8").tobytes())
        return found.hexdigest()[:12]


def read_pieces(
    model: Model,
    documents: Iterable[str | Sequence[int]],
    *,
    context: int | None = None,
    rows: int | None = None,
    keep_special: bool = False,
) -> Pieces:
    """Tokenize documents (texts, or token ids), as many whole ones as give `rows` rows (None: all); BOS is no row.

    Documents are cut to `context` tokens, BOS included (None: the model's own); empty ones are left out. Texts are read
    a thousand at a time and not kept.

    Raises: UsageError: no document has a token, too few rows, or a context that the model does not have. PromptError:
    text without a tokenizer, or a number that is no token id.
    """
    if context is not None and not 2 <= context <= (model.context or context):
        raise UsageError(f"The context is {context}. Give 2 to {model.context or 'any number of'} tokens.")
    bos = [] if model.bos_id is None else [model.bos_id]
    room = (context or model.context or 1 << 30) - len(bos)
    ids, whole, lengths, parents, counts = [], [], [], [], []
    number = total = 0
    for document in _token_ids(model, documents):
        if bos and len(document) and document[0] == bos[0]:
            document = document[1:]
        if not len(document):
            continue
        for i in range(0, len(document), room):
            piece = np.concatenate([np.array(bos, dtype=np.int32), document[i : i + room]])
            ids.append(piece)
            lengths.append(len(piece))
            parents.append(number)
            counts.append(int((piece != bos[0]).sum()) if bos and not keep_special else len(piece))
            total += counts[-1]
        number += 1
        if len(ids) > 16 * AT_ONCE:  # many small arrays weigh more than what is in them
            whole.append(np.concatenate(ids))
            ids = []
        if rows is not None and total >= rows:
            break
    if not number:
        raise UsageError("All documents are empty. Give texts or lists of token ids.")
    if rows is not None and total < rows:
        raise UsageError(
            f"The text gives {total:,} rows, fewer than the {rows:,} asked for. Ask for {total} or for all, "
            "or give more text."
        )
    return Pieces(
        np.concatenate([*whole, *ids]), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array(parents, dtype=np.int64), np.array(counts, dtype=np.int64),
    )  # fmt: skip


def _token_ids(model: Model, documents: Iterable[str | Sequence[int]]) -> Iterator[np.ndarray]:
    waiting = iter(documents)
    while some := list(islice(waiting, AT_ONCE)):
        texts = [document for document in some if isinstance(document, str)]
        if texts and model.tokenizer is None:
            raise PromptError("This model came without a tokenizer. Give token ids instead of text.")
        read = iter(model.tokenizer(texts, add_special_tokens=False)["input_ids"]) if texts else iter(())
        for document in some:
            ids = np.asarray(next(read) if isinstance(document, str) else document, dtype=np.int64)
            for wrong in ids[(ids < 0) | (ids >= model.d_vocab)][:1]:
                raise PromptError(f"{wrong} is not a token id. Give whole numbers from 0 to {model.d_vocab - 1}.")
            yield ids.astype(np.int32)
