"""Is a dictionary more than a table of words? Everything that could show that it is not, on one labelled text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lensing.dictionary.base import Dictionary
from lensing.dictionary.codes import Codes
from lensing.dictionary.load import check_fits
from lensing.errors import UsageError
from lensing.evaluation.contrast import gather
from lensing.evaluation.senses import Homonyms, Translations, homonyms, translations
from lensing.measure.cover import Labels
from lensing.measure.detectors import MIN_FIRES, WordDetectors, word_detectors
from lensing.measure.fvu import FVU
from lensing.measure.information import ConceptInformation, concept_information
from lensing.measure.superposition import Covers, Geometry, compare_covers, concept_directions, geometry
from lensing.measure.tables import bigram_table_fvu, token_table_fvu
from lensing.model.run import Model
from lensing.progress import Meter
from lensing.world.shipped import some_documents
from lensing.world.truth import Labelled

SENSE = "sense"  # the class whose values are `word:sense`
COVER_TOKENS = 50_000  # all neurons are held at once over this many
TRAIN = 0.8  # share of the documents that the tables are fitted on, without other text
CHUNK = 16_384


@dataclass(frozen=True, eq=False)
class TrivialityReport:
    """What one dictionary shows beyond the words of a labelled text of `rows` tokens (BOS left out).

    `fvu` has "dictionary", "token table" and "bigram table", all on the same `fvu_rows` rows, the tables fitted on
    `fit_rows` others. `covers` has neurons, random directions and latents, on `cover_rows` rows; `geometry` decoder
    rows and directions of concepts. `homonyms` and `translations` are None where the text or the caller gives none.
    """

    model: str
    dictionary: str
    site: str
    documents: int
    rows: int
    detectors: WordDetectors
    information: ConceptInformation
    fvu: dict[str, float]
    fvu_rows: int
    fit_rows: int
    covers: tuple[Covers, ...]
    cover_rows: int
    geometry: tuple[Geometry, ...]
    homonyms: Homonyms | None
    translations: Translations | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        plain = {n: getattr(self, n) for n in ("model", "dictionary", "site", "documents", "rows", "fvu", "fvu_rows")}
        parts = {n: getattr(self, n) for n in ("detectors", "information", "homonyms", "translations")}
        return plain | {
            "fit_rows": self.fit_rows,
            "cover_rows": self.cover_rows,
            **{name: None if part is None else part.to_json() for name, part in parts.items()},
            "covers": [c.to_json() for c in self.covers],
            "geometry": [g.to_json() for g in self.geometry],
        }


@torch.no_grad()
def triviality(
    model: Model,
    dictionary: Dictionary,
    labelled: Labelled,
    *,
    pairs: Mapping[str, str] | None = None,
    fit_on: Sequence[Sequence[int]] | None = None,
    cover_tokens: int = COVER_TOKENS,
    seed: int = 0,
    quiet: bool = True,
) -> TrivialityReport:
    """Measure how much of a dictionary the words alone explain, on a text whose concepts are known.

    `pairs` maps words of one language to those of another. `fit_on` are other documents (token ids) to fit the tables
    on, and then all rows of the text are scored; without them the tables learn from four fifths of the text and
    everything is scored on the last fifth, which flatters the dictionary where the text is short.

    Raises: UsageError: a text of fewer than two documents. DictionaryError: a dictionary that does not fit the model.
    """
    check_fits(dictionary, model)
    if len(labelled) < 2:
        raise UsageError(f"{len(labelled)} documents cannot be split. Give two or more.")
    site, words = str(dictionary.site), [w.strip() or w for w in model.tok_str(list(range(model.d_vocab)))]
    with Meter("triviality", total=6, unit="parts", quiet=quiet) as meter:
        h, document = gather(model, site, labelled.documents(), "all")
        seen = _seen(model, labelled)
        word, truth = _words(model, labelled.documents()), labelled.codes[seen]
        token = word[0]
        codes = dictionary.encode(h.to(dictionary.W_dec.device))
        meter.advance(note="word detectors")
        detectors = word_detectors(codes, token, document.numpy(), seed=seed)
        meter.advance(note="information")
        information = concept_information(codes, token, truth, labelled.classes, seed=seed)
        meter.advance(note="tables")
        fvu, scored, fitted = _fvus(model, dictionary, h, document, word, fit_on, seed)
        meter.advance(note="covers")
        some, places = some_documents(labelled, cover_tokens)
        chosen = np.zeros(len(seen), dtype=bool)
        chosen[places] = True
        covers = _covers(model, dictionary, h[chosen[seen]], some, _labels(labelled, chosen & seen, words), seed)
        alive = torch.bincount(codes.index[codes.value > 0], minlength=codes.d_sae).cpu() >= MIN_FIRES
        shapes = geometry("latents", dictionary.W_dec.cpu()[alive]), geometry("concepts", _concepts(labelled, seen, h))
        meter.advance(note="senses")
        told = _told(labelled, seen, codes, token, document.numpy(), words, pairs, seed)
        meter.advance()
    return TrivialityReport(
        model.name, dictionary.id or str(dictionary), site, len(labelled), len(h), detectors, information, fvu, scored,
        fitted, covers, int((chosen & seen).sum()), shapes, *told,
    )  # fmt: skip


@torch.no_grad()
def senses(
    model: Model, dictionary: Dictionary, labelled: Labelled, *, pairs: Mapping[str, str] | None = None, seed: int = 0
) -> tuple[Homonyms | None, Translations | None]:
    """Measure on a text of its own what `triviality` says of homonyms and of the words of a second language.

    Raises: DictionaryError: a dictionary that does not fit the model.
    """
    check_fits(dictionary, model)
    words = [w.strip() or w for w in model.tok_str(list(range(model.d_vocab)))]
    h, document = gather(model, str(dictionary.site), labelled.documents(), "all")
    token = _words(model, labelled.documents())[0]
    codes = dictionary.encode(h.to(dictionary.W_dec.device))
    return _told(labelled, _seen(model, labelled), codes, token, document.numpy(), words, pairs, seed)


def _seen(model: Model, labelled: Labelled) -> np.ndarray:
    """Which tokens count: all but BOS."""
    return labelled.ids != (-1 if model.bos_id is None else model.bos_id)


def _told(
    labelled: Labelled, seen: np.ndarray, codes: Codes, token: np.ndarray, document: np.ndarray, words: Sequence[str],
    pairs: Mapping[str, str] | None, seed: int,
) -> tuple[Homonyms | None, Translations | None]:  # fmt: skip
    """Homonyms where the text knows senses, translations where there are pairs."""
    found = None
    if SENSE in labelled.classes:
        found = homonyms(codes, token, _senses(labelled, seen, words), words, document, seed=seed)
    return found, translations(codes, token, pairs, words) if pairs else None


def _fvus(
    model: Model, dictionary: Dictionary, h: Tensor, document: Tensor, word: np.ndarray,
    fit_on: Sequence[Sequence[int]] | None, seed: int,
) -> tuple[dict[str, float], int, int]:  # fmt: skip
    """FVU of dictionary and tables on the same rows, and how many were scored and fitted on."""
    if fit_on is None:
        order = torch.randperm(int(document.max()) + 1, generator=torch.Generator().manual_seed(seed))
        train = (order < min(max(round(TRAIN * len(order)), 1), len(order) - 1))[document]
    else:
        more, _ = gather(model, str(dictionary.site), fit_on, "all")
        word = np.concatenate([word, _words(model, [model.encode(d).ids[0].tolist() for d in fit_on])], axis=1)
        train, h = torch.arange(len(h) + len(more)) >= len(h), torch.cat([h, more])
    meter = _reconstructed(dictionary, h, (~train).nonzero()[:, 0])
    token, previous = torch.from_numpy(word)
    found = {
        "dictionary": meter.value,
        "token table": token_table_fvu(h, token, train),
        "bigram table": bigram_table_fvu(h, token, previous, train),
    }
    return found, meter.n, int(train.sum())


@torch.no_grad()
def text_fvu(model: Model, dictionary: Dictionary, labelled: Labelled) -> float:
    """FVU of a dictionary on all rows of a text, BOS left out, as `TrivialityReport.fvu` has it.

    Raises: DictionaryError: a dictionary that does not fit the model.
    """
    check_fits(dictionary, model)
    h, _ = gather(model, str(dictionary.site), labelled.documents(), "all")
    return _reconstructed(dictionary, h, torch.arange(len(h))).value


def _reconstructed(dictionary: Dictionary, h: Tensor, rows: Tensor) -> FVU:
    meter = FVU()
    for part in rows.split(CHUNK):
        meter.add(h[part], dictionary.reconstruct(h[part].to(dictionary.W_dec.device)).cpu())
    return meter


def _words(model: Model, documents: Sequence[Sequence[int]]) -> np.ndarray:
    """Every counted token of some documents and the one before it (0: none, else its id + 1), [2, rows]."""
    parts = []
    for document in documents:
        row = np.asarray(document, dtype=np.int64)
        both = np.stack([row, np.append(0, row[:-1] + 1)])
        parts.append(both if model.bos_id is None else both[:, row != model.bos_id])
    return np.concatenate(parts, axis=1)


def _covers(
    model: Model, dictionary: Dictionary, h: Tensor, documents: list[list[int]], labels: Labels, seed: int
) -> tuple[Covers, ...]:
    """Concepts needed by neurons of the dictionary's layer, random directions, latents; () where none is given."""
    found = model.resolve(str(dictionary.site))
    layer = found.layer if found.layer is not None else 0 if found.kind == "embed" else model.n_layers - 1
    if f"mlp_post.{layer}" not in model.sites():
        return ()
    neurons, _ = gather(model, f"mlp_post.{layer}", documents, "all")
    codes = dictionary.encode(h.to(dictionary.W_dec.device))
    return compare_covers(neurons, h, codes, labels, seed=seed)


def _sure(labelled: Labelled, c: int) -> dict[int, str]:
    """The codes of a class that settle a concept, with its name."""
    cls = labelled.classes[c]
    values = enumerate(labelled.possible[cls])
    return {k: f"{cls}.{v[0]}" for k, v in values if len(v) == 1 and v[0] is not None}


def _labels(labelled: Labelled, rows: np.ndarray, words: Sequence[str]) -> Labels:
    """Concepts and words that are on in some tokens of the text."""
    codes, ids = labelled.codes[rows].astype(np.int64), labelled.ids[rows].astype(np.int64)
    columns = [(codes[:, c], _sure(labelled, c)) for c in range(len(labelled.classes))]
    return Labels((*columns, (ids, {int(i): f"word.{words[i]}" for i in np.unique(ids)})))


def _concepts(labelled: Labelled, seen: np.ndarray, h: Tensor) -> Tensor:
    """Directions of all concepts that are on, and off, in enough rows."""
    positives, unsettled = [], []
    for c, cls in enumerate(labelled.classes):
        possible, codes = labelled.possible[cls], labelled.codes[seen, c]
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes, minlength=len(possible)))
        rows = [order[a:b] for a, b in zip(np.append(0, ends[:-1]), ends, strict=True)]
        for k in _sure(labelled, c):
            value = possible[k][0]
            maybe = [rows[j] for j, v in enumerate(possible) if len(v) > 1 and value in v]
            neither = np.concatenate(maybe) if maybe else order[:0]
            if len(rows[k]) >= MIN_FIRES and len(order) - len(rows[k]) - len(neither) >= MIN_FIRES:
                positives.append(rows[k])
                unsettled.append(neither)
    return concept_directions(h, positives, unsettled)


def _senses(labelled: Labelled, seen: np.ndarray, words: Sequence[str]) -> list[str]:
    """The sense of each token that is the word the sense is of, '' elsewhere and while it is not settled."""
    c = labelled.classes.index(SENSE)
    parts = {k: name.removeprefix(f"{SENSE}.").partition(":") for k, name in _sure(labelled, c).items()}
    rows = zip(labelled.codes[seen, c].tolist(), labelled.ids[seen].tolist(), strict=True)
    return [parts[k][2] if k in parts and parts[k][0] == words[i] else "" for k, i in rows]
