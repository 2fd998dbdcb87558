"""Dashboards that another tool made, as an index: Neuronpedia's export (v1) and SAEDashboard's batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lensing.config import write_run
from lensing.data.identity import dictionary_digest, tokenizer_digest, weights_digest
from lensing.dictionary.base import Dictionary
from lensing.dictionary.load import check_fits
from lensing.errors import FileFormatError, UsageError
from lensing.files import atomic_folder, write_json
from lensing.index.exchange import records
from lensing.index.index import NEAR, Index, open_index
from lensing.index.layout import Facts, write_arrays, write_facts
from lensing.index.words import BINS
from lensing.model.run import Model

MISSING = -10_000  # what Neuronpedia writes where there is no number


@dataclass
class _One:
    """A latent as another tool has it; `examples` are (bin, low, high, contains, tokens, values, peak)."""

    record: dict[str, Any]
    examples: list[tuple[tuple[float, float, float], list[str], list[float], int]] = field(default_factory=list)


def import_index(model: Model, dictionary: Dictionary, path: str | Path, *, out: str | Path) -> Index:
    """Make an index of dashboards that Neuronpedia (v1 export) or SAEDashboard (`batch-N.json`) wrote.

    What they do not hold stays empty: the words that a latent fires on, how many contexts a bin has beyond those kept,
    what is not reconstructed. The text is that of the kept contexts alone.

    Raises: UsageError: a folder that holds neither. FileFormatError: a broken file. DictionaryError: another width.
    """
    check_fits(dictionary, model)
    path, out = Path(path), Path(out)
    made_by, found = ("SAEDashboard", _dashboard(path)) if _batches(path) else ("Neuronpedia", _neuronpedia(path))
    latents = {i: one for i, one in found if i < dictionary.d_sae}
    if not latents:
        raise UsageError(f"{path} holds no latent of {dictionary}. Give the dashboards of this dictionary.")
    columns, strings, tokens = _columns(latents, dictionary.d_sae)
    digest = dictionary_digest(dictionary.weights() | dictionary.extra_tensors())
    facts = Facts(
        model={"name": model.name, "weights": weights_digest(model), "tokenizer": tokenizer_digest(model)},
        dictionary={
            "id": dictionary.id, "weights": digest, "site": str(dictionary.site),
            "architecture": dictionary.architecture, "d_sae": dictionary.d_sae,
        },
        text={"name": f"{made_by}'s dashboards of {len(latents):,} latents", "digest": "", "rows": tokens,
              "pieces": len(columns["starts"]) - 1},
        context=None, chunk_rows=0, top=20, quantiles=columns["group_n"].shape[1] - 1, each=5, before=1 << 20,
        after=1 << 20, neighbours=columns["near_decoder"].shape[1], words=columns["word"].shape[1], seed=0,
    )  # fmt: skip
    with atomic_folder(out) as temporary:
        write_arrays(temporary, columns)
        write_json(temporary / "strings.json", strings)
        write_run(temporary, what="imported index", setting={"from": str(path), "made_by": made_by})
        write_facts(temporary, facts)
    return open_index(out)


def _batches(path: Path) -> list[Path]:
    return sorted(path.glob("batch-*.json"), key=lambda p: int("".join(c for c in p.name if c.isdigit()) or 0))


def _dashboard(path: Path) -> Iterator[tuple[int, _One]]:
    for file in _batches(path):
        try:
            for feature in json.loads(file.read_text(encoding="utf-8"))["features"]:
                one = _One(feature)
                for a in feature["activations"]:
                    bins = (float(a["bin_min"]), float(a["bin_max"]), float(a["bin_contains"]))
                    one.examples.append((bins, a["tokens"], a["values"], _peak(a, "qualifying_token_index")))
                yield int(feature["feature_index"]), one
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"{file} is no batch of SAEDashboard: {error!r}. Make it again.") from error


def _neuronpedia(path: Path) -> Iterator[tuple[int, _One]]:
    found: dict[int, _One] = {}
    try:
        for feature in records(path, "features"):
            found[int(feature["index"])] = _One(feature)
        for a in records(path, "activations"):
            one = found.get(int(a["index"]))
            if one is None:
                continue
            bins = (float(a.get("binMin") or 0), float(a.get("binMax") or 0), float(a.get("binContains") or 0))
            one.examples.append((bins, a["tokens"], a["values"], _peak(a, "qualifyingTokenIndex")))
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path} is no export of Neuronpedia: {error!r}. Fetch it again.") from error
    yield from found.items()


def _peak(record: dict[str, Any], key: str) -> int:
    """The place that a context is about; the strongest where it is not said, or lies outside (SAEDashboard's -1)."""
    if len(record["values"]) != len(record["tokens"]) or not record["values"]:
        raise ValueError("a context with another number of values than tokens")
    peak = record.get(key)
    inside = peak is not None and 0 <= int(peak) < len(record["values"])
    return int(peak) if inside else int(np.argmax(record["values"]))


class _Corpus:
    """The kept contexts as one text: each distinct one stands once, its strings as numbers."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}
        self.place: dict[tuple[str, ...], int] = {}
        self.ids: list[int] = []
        self.starts = [0]

    def add(self, tokens: list[str]) -> int:
        """The first row of a context."""
        key = tuple(map(str, tokens))
        if key not in self.place:
            self.place[key] = len(self.ids)
            self.ids += [self.id(token) for token in key]
            self.starts.append(len(self.ids))
        return self.place[key]

    def id(self, token: str) -> int:
        """A string's number."""
        return self.number.setdefault(token, len(self.number))


def _columns(latents: dict[int, _One], d_sae: int) -> tuple[dict[str, np.ndarray], list[str], int]:
    corpus = _Corpus()
    groups = max((len(_grouped(one)) for one in latents.values()), default=1)
    n_words = max((len(_some(one.record, "pos_str")) for one in latents.values()), default=0)
    k = max((len(_some(one.record, "topkCosSimIndices")) for one in latents.values()), default=0)
    k = max(k, max((len(_some(one.record, "correlated_features_indices")) for one in latents.values()), default=0), 1)
    speaks = any(_some(one.record, "pos_str") for one in latents.values())
    out: dict[str, Any] = {
        "count": np.zeros(d_sae, np.int64), "density": np.zeros(d_sae), "mean": np.full(d_sae, np.nan, np.float32),
        "max": np.zeros(d_sae, np.float32), "total": np.full(d_sae, np.nan), "square": np.full(d_sae, np.nan),
        "histogram": np.zeros((d_sae, BINS), np.int32), "histogram_edges": np.zeros((d_sae, 2), np.float32),
        "group_edges": np.full((d_sae, groups, 2), np.nan, np.float32), "group_n": np.zeros((d_sae, groups), np.int64),
        "group_mass": np.full((d_sae, groups), np.nan, np.float32), "word": np.full((d_sae, 1), -1, np.int32),
        "word_n": np.zeros((d_sae, 1), np.int64), "word_precision": np.full((d_sae, 1), np.nan, np.float32),
        "word_recall": np.full((d_sae, 1), np.nan, np.float32),
    }  # fmt: skip
    for kind in NEAR:
        out[f"near_{kind}"] = np.full((d_sae, k), -1, np.int32)
        out[f"near_{kind}_value"] = np.full((d_sae, k), np.nan, np.float32)
    if speaks:
        for name in ("promoted", "suppressed"):
            out[name] = np.zeros((d_sae, n_words), np.int32)
            out[f"{name}_value"] = np.zeros((d_sae, n_words), np.float32)
        out["logit_histogram"] = np.zeros((d_sae, BINS), np.int32)
        out["logit_histogram_edges"] = np.zeros((d_sae, 2), np.float32)
    examples: list[tuple[int, int]] = []
    example_ptr, active_ptr, offsets, values = [0], [0], [], []
    for i in range(d_sae):
        one = latents.get(i)
        if one is not None:
            _fill(out, i, one, corpus, speaks)
            for number, some in enumerate(_grouped(one)):
                for _, tokens, activations, peak in some:
                    first = corpus.add(tokens)
                    on = np.flatnonzero(activations)
                    examples.append((first + peak, number))
                    offsets += (on - peak).tolist()
                    values += [float(activations[j]) for j in on]
                    active_ptr.append(len(values))
        example_ptr.append(len(examples))
    rows = len(corpus.ids)
    out |= {
        "tokens": np.array(corpus.ids, np.int32), "starts": np.array(corpus.starts, np.int64),
        "document": np.arange(len(corpus.starts) - 1), "example_ptr": np.array(example_ptr, np.int64),
        "example_row": np.array([row for row, _ in examples], np.int64),
        "example_group": np.array([group for _, group in examples], np.uint8),
        "active_ptr": np.array(active_ptr, np.int64), "active_offset": np.array(offsets, np.int32),
        "active_value": np.array(values, np.float32), "row_error": np.full(rows, np.nan, np.float32),
        "row_norm": np.full(rows, np.nan, np.float32),
    }  # fmt: skip
    return out, list(corpus.number), rows


def _fill(out: dict[str, Any], i: int, one: _One, corpus: _Corpus, speaks: bool) -> None:
    r = one.record
    density = float(r.get("frac_nonzero") or 0)
    prompts, length = r.get("n_prompts_total") or 0, r.get("n_tokens_in_prompt") or 0
    heights = _some(r, "freq_hist_data_bar_heights")
    counted = round(density * prompts * length) if prompts and length else int(sum(heights))
    largest = max((max(values) for _, _, values, _ in one.examples if values), default=0.0)
    out["density"][i], out["count"][i] = density, max(counted, bool(one.examples))
    out["max"][i] = r["maxActApprox"] if r.get("maxActApprox") is not None else largest
    _bins(out, i, "histogram", heights, _some(r, "freq_hist_data_bar_values"))
    if speaks:
        _bins(out, i, "logit_histogram", _some(r, "logits_hist_data_bar_heights"),
              _some(r, "logits_hist_data_bar_values"))  # fmt: skip
        for name, key in (("promoted", "pos"), ("suppressed", "neg")):
            words, numbers = _some(r, f"{key}_str"), _some(r, f"{key}_values")
            kept = [(w, v) for w, v in zip(words, numbers, strict=False) if v != MISSING]
            for j, (w, v) in enumerate(kept):
                out[name][i, j], out[f"{name}_value"][i, j] = corpus.id(str(w)), v
    for kind, names in (
        ("decoder", ("topkCosSimIndices", "topkCosSimValues")),
        ("correlation", ("correlated_features_indices", "correlated_features_pearson")),
    ):
        for j, (other, v) in enumerate(zip(_some(r, names[0]), _some(r, names[1]), strict=False)):
            out[f"near_{kind}"][i, j], out[f"near_{kind}_value"][i, j] = other, v
    for number, some in enumerate(_grouped(one)):
        bins = some[0][0]
        peaks = [values[peak] for _, _, values, peak in some]
        low, high = (min(peaks), max(peaks)) if bins[0] == -1 else bins[:2]
        out["group_edges"][i, number] = low, high
        out["group_n"][i, number] = len(some)
        out["group_mass"][i, number] = np.nan if bins[2] == -1 else bins[2]


def _grouped(one: _One) -> list[list[Any]]:
    """Examples by bin, the strongest bin first, in it the strongest example."""
    found: dict[tuple[float, float, float], list[Any]] = {}
    for example in one.examples:
        bins = example[0]
        found.setdefault((-1.0, 0.0, 0.0) if bins[0] == -1 else bins, []).append(example)
    order = sorted(found, key=lambda b: (b[0] != -1, -b[1]))
    return [sorted(found[b], key=lambda e: -e[2][e[3]]) for b in order]


def _bins(out: dict[str, Any], i: int, name: str, heights: list[Any], middles: list[Any]) -> None:
    n = min(len(heights), BINS)
    out[name][i, :n] = heights[:n]
    if len(middles) > 1:
        half = (middles[1] - middles[0]) / 2
        out[f"{name}_edges"][i] = middles[0] - half, middles[-1] + half


def _some(record: dict[str, Any], key: str) -> list[Any]:
    return record.get(key) or []
