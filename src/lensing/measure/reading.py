"""The text in which contexts are looked for, and what is known of each of its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lensing.data.pieces import read_pieces
from lensing.dictionary.base import Dictionary
from lensing.measure.contexts import Passages
from lensing.measure.cover import Labels
from lensing.model.run import Model
from lensing.world.shipped import shipped_text, ships, some_documents


@dataclass(frozen=True, eq=False)
class Reading:
    """A text, and for each counted token its word and, where the text is `labelled`, the concepts that are on."""

    text: Passages
    labels: Labels
    labelled: bool


def reading(model: Model, dictionary: Dictionary, given: Sequence[str] | None = None, *, tokens: int) -> Reading:
    """Return about `tokens` tokens of the text given, of the one that ships with the model, or of the dictionary's own.

    Only a shipped text is labelled; of any other the words alone are known.
    """
    columns: list[tuple[np.ndarray, dict[int, str]]] = []
    shipped = shipped_text(model.name) if given is None and ships(model) else None
    if shipped is not None:
        documents, places = some_documents(shipped, tokens)
        text = Passages.of(model, documents, f"the labelled text of {model.name}")
        codes = shipped.codes[places[text.counted.numpy()]]
        for c, cls in enumerate(shipped.classes):
            sure = {k: v[0] for k, v in enumerate(shipped.possible[cls]) if len(v) == 1 and v[0] is not None}
            columns.append((codes[:, c].astype(np.int64), {k: f"{cls}.{v}" for k, v in sure.items()}))
    elif given is not None:
        pieces = (piece.tolist() for piece in read_pieces(model, given))
        text = Passages.of(model, _first(pieces, tokens), "the text given")
    else:
        documents = [] if dictionary.sample is None else dictionary.sample.documents()
        text = Passages.of(model, _first(documents, tokens), "the dictionary's held-out sample")
    ids = text.ids[text.counted].numpy()
    seen = np.unique(ids).tolist()
    columns.append((ids, {i: f"word.{w.strip() or w}" for i, w in zip(seen, model.tok_str(seen), strict=True)}))
    return Reading(text, Labels(tuple(columns)), shipped is not None)


def _first(documents: Iterable[Sequence[int]], tokens: int) -> list[list[int]]:
    kept, left = [], tokens
    for document in documents:
        if left <= 0:
            break
        kept.append(list(document[:left]))
        left -= len(document)
    return kept
