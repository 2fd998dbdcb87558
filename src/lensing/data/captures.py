"""Captures over a corpus: a batch at a time, of documents of like length, so that memory depends on the batch alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import final

import torch

from lensing.data.forward import group_by_length
from lensing.data.pieces import read_pieces
from lensing.errors import PromptError, UsageError
from lensing.model.cache import Cache
from lensing.model.parts import Positions
from lensing.model.run import Model, Sites
from lensing.model.tokens import Tokens
from lensing.progress import Meter

AT_ONCE = 1024  # documents whose tokens are held at once, and among which like lengths are sought


@final
@dataclass(frozen=True, eq=False)
class Captured:
    """One batch: what was captured, the tokens, and the number of each row's document in the order they came."""

    cache: Cache
    tokens: Tokens
    documents: tuple[int, ...]


def captures(
    model: Model,
    documents: Iterable[str | Sequence[int]],
    *,
    sites: Sites,
    batch_tokens: int = 4096,
    context: int | None = None,
    positions: Positions = None,
    device: torch.device | str | None = None,
    quiet: bool = True,
) -> Iterator[Captured]:
    """Run a corpus (texts, or token ids, of any length, read as they come) and yield what it captures, batch by batch.

    Each batch is at most `batch_tokens` tokens when padded (or one document), and each pass ends after the deepest
    site. Longer documents than `context` (None: the model's own) are cut into rows of their own; empty ones are left
    out. Batches come by length within every 1,024 documents, not in the order of the corpus: see `documents`.

    Raises: UsageError: no site, or no document with a token. PromptError: text without a tokenizer.
    """
    if not model.resolve_all(sites):
        raise UsageError("There is no site to capture. Give sites='resid_post.*', say.")
    source, first, found = iter(documents), 0, False
    with Meter("reading the corpus", total=None, unit="tokens", quiet=quiet) as meter:
        while some := list(islice(source, AT_ONCE)):
            rows = [_ids(model, document) for document in some]
            kept = [i for i, row in enumerate(rows) if len(row) > (row[:1] == [model.bos_id])]  # a BOS alone is nothing
            if kept:
                found = True
                pieces = read_pieces(model, [rows[i] for i in kept], context=context)
                for group in group_by_length([len(piece) for piece in pieces], batch_tokens):
                    tokens = model.encode([pieces[i].tolist() for i in group], bos=False)
                    _, cache = model.run_with_cache(
                        tokens, sites=sites, stop=True, positions=positions, device=device
                    )  # fmt: skip
                    yield Captured(cache, tokens, tuple(first + kept[int(pieces.parents[i])] for i in group))
                    meter.advance(int(tokens.lengths.sum()))
            first += len(some)
    if not found:
        raise UsageError(f"None of {first} documents has a token. Give at least one with a word.")


def _ids(model: Model, document: str | Sequence[int]) -> list[int]:
    if not isinstance(document, str):
        return list(document)
    if model.tokenizer is None:
        raise PromptError("This model came without a tokenizer. Give token ids instead of text.")
    return list(model.tokenizer(document, add_special_tokens=False)["input_ids"])
