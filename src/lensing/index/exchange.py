"""Indexes for and from other tools: Neuronpedia's export (v1) and upload form, SAEDashboard's batches, Parquet."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lensing.db import Notes
from lensing.dictionary.base import Dictionary
from lensing.errors import FileFormatError, UsageError
from lensing.files import atomic_file, atomic_folder
from lensing.index.index import Index

FEATURES, UPLOADED = 1024, 128  # of a file; of a request
ALIGNED = 3  # coordinates and neighbours that Neuronpedia keeps
TOP = -1  # the bin that Neuronpedia calls the strongest
LONGEST = 512  # characters of an explanation that Neuronpedia takes


def write_neuronpedia(
    index: Index, dictionary: Dictionary, out: str | Path, *, model_id: str, source: str, creator: str = "lensing",
    notes: Notes | None = None, subject: str = "",
) -> Path:  # fmt: skip
    """Write `features`, `activations` and `explanations` as Neuronpedia's public export has them (v1, `.jsonl.gz`).

    `model_id` and `source` ("12-mine-res-16k") are the names there. Labels of `notes` under `subject` become
    explanations. Activations are whole kept contexts; our quantiles stand as bins, their share of activation as
    binContains. What we do not measure (correlated neurons) is left empty.
    """
    out = Path(out)
    with atomic_folder(out) as temporary:
        for kind, records in (
            ("features", _features(index, dictionary, model_id, source, creator)),
            ("activations", _activations(index, model_id, source, creator)),
            ("explanations", _explanations(index, notes, subject, model_id, source, creator)),
        ):
            _write_batches(temporary / kind, records)
    return out


def write_upload(
    index: Index, out: str | Path, *, model_id: str, source: str, notes: Notes | None = None, subject: str = ""
) -> Path:
    """Write the bodies of Neuronpedia's `POST /api/feature/upload-batch`, 128 latents each, as `upload-N.json`."""
    out = Path(out)
    with atomic_folder(out) as temporary:
        for number, first in enumerate(range(0, index.d_sae, UPLOADED)):
            some = range(first, min(first + UPLOADED, index.d_sae))
            labels = {i: notes.labels(subject, i) for i in some} if notes is not None else {}
            features = []
            for i in some:
                one = index.latent(i)
                features.append({
                    "index": i, "density": one.density,
                    "topLogits": [{"token": w, "value": v} for w, v in one.promoted[:20]],
                    "bottomLogits": [{"token": w, "value": v} for w, v in one.suppressed[:20]],
                    "explanations": [
                        {"text": label.text[:LONGEST], "methodName": label.method, "modelName": label.by or None}
                        for label in labels.get(i, [])
                    ],
                    "activations": [
                        {"tokens": e.tokens, "values": e.values, "quantileMin": g.low, "quantileMax": g.high,
                         "quantileFraction": g.mass}
                        for g in one.groups for e in g.examples
                    ],
                })  # fmt: skip
            body = {"modelId": model_id, "source": source, "features": features}
            (temporary / f"upload-{number}.json").write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")
    return out


def write_parquet(index: Index, out: str | Path) -> Path:
    """Write `latents.parquet` (a row a latent) and `examples.parquet` (a row a context); needs pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise UsageError("Parquet needs pyarrow. Install it with: pip install 'lensing[text]'") from error
    out = Path(out)
    with atomic_folder(out) as temporary:
        ones = (index.latent(i) for i in range(index.d_sae))
        latents, examples = [], []
        for one in ones:
            latents.append({
                "latent": one.latent, "count": one.count, "density": one.density, "mean": one.mean, "max": one.max,
                "fires_on": [w for w, *_ in one.fires_on], "precision": [p for *_, p, _ in one.fires_on],
                "recall": [r for *_, r in one.fires_on], "promoted": [w for w, _ in one.promoted],
                "promoted_logit": [v for _, v in one.promoted], "suppressed": [w for w, _ in one.suppressed],
                "suppressed_logit": [v for _, v in one.suppressed], "histogram": list(one.histogram),
                "histogram_edges": list(one.histogram_edges),
            })  # fmt: skip
            examples += [
                {"latent": one.latent, "group": number, "low": g.low, "high": g.high, "n": g.n, "mass": g.mass,
                 "row": e.row, "document": e.document, "value": e.value, "peak": e.peak, "tokens": list(e.tokens),
                 "values": list(e.values)}
                for number, g in enumerate(one.groups) for e in g.examples
            ]  # fmt: skip
        for name, rows in (("latents", latents), ("examples", examples)):
            parquet.write_table(pyarrow.Table.from_pylist(rows), temporary / f"{name}.parquet")
    return out


def read_explanations(path: str | Path, notes: Notes, subject: str) -> int:
    """File the explanations of a Neuronpedia export (its folder, or one file) under a dictionary; return how many."""
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for record in records(path, "explanations*"):
        try:
            key = (str(record.get("typeName") or "neuronpedia"), str(record.get("explanationModelName") or ""))
            text = str(record["description"]).strip()
            if text:
                found.setdefault(key, []).append((int(record["index"]), text))
        except (KeyError, ValueError, TypeError) as error:
            raise FileFormatError(f"{path} holds an explanation without {error}. Fetch the export again.") from error
    for (method, by), rows in found.items():
        notes.fill(subject, rows, method=method, by=by)
    return sum(map(len, found.values()))


def records(path: str | Path, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of an export's files of one kind, in the order of their numbers.

    Raises: UsageError: no such files. FileFormatError: a line that is no object.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.glob(f"{kind}/batch-*.jsonl*"), key=_number)
    if not files:
        raise UsageError(f"{path} holds no {kind}/batch-N.jsonl.gz. Give the folder of a Neuronpedia export.")
    for file in files:
        try:
            with (
                gzip.open(file, "rt", encoding="utf-8")
                if file.suffix == ".gz"
                else file.open(encoding="utf-8") as lines
            ):
                for line in filter(str.strip, lines):
                    found = json.loads(line)
                    if not isinstance(found, dict):
                        raise ValueError("a line is no object")
                    yield found
        except (OSError, EOFError, ValueError) as error:
            raise FileFormatError(f"{file} cannot be read: {error}. Fetch the export again.") from error


def _number(path: Path) -> int:
    digits = "".join(c for c in path.name if c.isdigit())
    return int(digits or 0)


def _features(
    index: Index, dictionary: Dictionary, model_id: str, source: str, creator: str
) -> Iterator[dict[str, Any]]:
    rows = dictionary.W_dec.detach().float().cpu()
    unit = torch.nn.functional.normalize(rows, dim=1)
    for i in range(index.d_sae):
        one, row = index.latent(i), rows[i]
        aligned = row.abs().topk(min(ALIGNED, len(row))).indices
        near = one.near["correlation"][:ALIGNED]
        yield {
            "modelId": model_id, "layer": source, "index": str(i), "creatorId": creator, "sourceSetName": _set(source),
            "maxActApprox": one.max, "frac_nonzero": one.density,
            "freq_hist_data_bar_heights": list(one.histogram),
            "freq_hist_data_bar_values": centres(one.histogram_edges, len(one.histogram)),
            "logits_hist_data_bar_heights": list(one.logit_histogram),
            "logits_hist_data_bar_values": centres(one.logit_histogram_edges, len(one.logit_histogram)),
            "pos_str": [w for w, _ in one.promoted], "pos_values": [v for _, v in one.promoted],
            "neg_str": [w for w, _ in one.suppressed], "neg_values": [v for _, v in one.suppressed],
            "neuron_alignment_indices": aligned.tolist(), "neuron_alignment_values": row[aligned].tolist(),
            "neuron_alignment_l1": (row[aligned].abs() / row.abs().sum().clamp(min=1e-30)).tolist(),
            "correlated_neurons_indices": [], "correlated_neurons_pearson": [], "correlated_neurons_l1": [],
            "correlated_features_indices": [j for j, _ in near],
            "correlated_features_pearson": [v for _, v in near],
            "correlated_features_l1": [float(unit[i] @ unit[j]) for j, _ in near],
            "decoder_weights_dist": [], "topkCosSimIndices": [j for j, _ in one.near["decoder"]],
            "topkCosSimValues": [v for _, v in one.near["decoder"]], "hasVector": True, "vector": row.tolist(),
            "vectorLabel": None, "hookName": str(dictionary.site), "vectorDefaultSteerStrength": one.max,
        }  # fmt: skip


def _activations(index: Index, model_id: str, source: str, creator: str) -> Iterator[dict[str, Any]]:
    for i in range(index.d_sae):
        for number, group in enumerate(index.latent(i).groups):
            top = number == 0
            for n, e in enumerate(group.examples):
                yield {
                    "id": f"{source}-{i}-{number}-{n}", "modelId": model_id, "layer": source, "index": str(i),
                    "creatorId": creator, "dataSource": index.facts.text["name"], "dataIndex": str(e.row),
                    "tokens": e.tokens, "values": e.values, "maxValue": max(e.values),
                    "maxValueTokenIndex": int(np.argmax(e.values)), "minValue": min(e.values),
                    "binMin": TOP if top else group.low, "binMax": group.high,
                    "binContains": TOP if top else group.mass,
                    "qualifyingTokenIndex": e.peak, "dfaValues": [], "dfaMaxValue": None, "dfaTargetIndex": None,
                }  # fmt: skip


def _explanations(
    index: Index, notes: Notes | None, subject: str, model_id: str, source: str, creator: str
) -> Iterator[dict[str, Any]]:
    for i in range(index.d_sae) if notes is not None else ():
        assert notes is not None
        for label in notes.labels(subject, i):
            yield {
                "id": f"{source}-{i}-{label.id}", "modelId": model_id, "layer": source, "index": str(i),
                "authorId": creator, "description": label.text, "embedding": None, "typeName": label.method,
                "explanationModelName": label.by or None, "umap_x": 0, "umap_y": 0, "umap_cluster": 0,
                "umap_log_feature_sparsity": float(np.log10(max(index.array("density")[i].item(), 1e-12))),
            }  # fmt: skip


def centres(edges: tuple[float, float] | None, n: int) -> list[float]:
    """Middles of equal bins."""
    if edges is None or not n:
        return []
    low, high = edges
    return [low + (high - low) * (k + 0.5) / n for k in range(n)]


def _set(source: str) -> str:
    return source.partition("-")[2].partition("__")[0] or source


def _write_batches(folder: Path, found: Iterable[Mapping[str, Any]]) -> None:
    """Files of whole latents: a file ends where 1,024 latents do."""
    folder.mkdir()
    batches: dict[int, list[str]] = {}
    current: int | None = None
    for record in found:
        number = int(record["index"]) // FEATURES
        if current is not None and number != current:
            _write_batch(folder, current, batches.pop(current))
        current = number
        batches.setdefault(number, []).append(json.dumps(record, ensure_ascii=False))
    for number, lines in batches.items():
        _write_batch(folder, number, lines)


def _write_batch(folder: Path, number: int, lines: list[str]) -> None:
    # no time stands in the file, so that the same index gives the same bytes
    with atomic_file(folder / f"batch-{number}.jsonl.gz") as temporary:
        temporary.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))
