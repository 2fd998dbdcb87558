"""A tiny dictionary with statistics and sample, and a folder of shipped files around it, for tests of the walk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lensing.dictionary.load  # noqa: F401  (registers the architectures)
from lensing.dictionary.base import Dictionary, new_dictionary
from lensing.dictionary.configs import TopK
from lensing.dictionary.statistics import Sample, Statistics
from lensing.world.truth import Labelled

PROMPT = "the reliability of the almanac is very"
SILENT = 63


def documents(model: Any, n: int = 24, length: int = 20) -> list[list[int]]:
    """Random words, BOS first."""
    draw = torch.Generator().manual_seed(5)
    rows = torch.randint(4, model.d_vocab, (n, length), generator=draw).tolist()
    return [[model.bos_id, *row] for row in rows]


def tiny_dictionary(model: Any, site: str = "resid_post.1", width: int = 64, k: int = 6) -> Dictionary:
    """TopK at a site, statistics from random documents; the last latent is silent."""
    tokens = model.encode(documents(model))
    _, cache = model.run_with_cache(tokens, sites=[site])
    x = cache[site][~cache.special].flatten(1)
    sae = new_dictionary(TopK(width=width, k=k), x.shape[1], seed=3)
    sae.site, sae.model_name, sae.id = site, model.name, f"{model.name}/{site}/w{width}"
    with torch.no_grad():
        sae.b_dec.copy_(x.mean(0))
        sae.b_enc[width - 1] = -1e9
    sae.requires_grad_(False)
    codes, mean = sae.encode(x), x.mean(0)
    miss = (x - sae.decode(codes)).square().sum()
    variance = (x - mean).square().sum()
    sae.statistics = Statistics(
        corpus="random words", n=len(x), documents=24, mean=mean, total_variance=float(variance) / len(x),
        mean_norm=float(x.norm(dim=1).mean()), max_activation=codes.maximum, p999=codes.maximum.clone(),
        density=codes.density(), fvu=float(miss / variance), l0=codes.l0(), dead_share=1 / width,
    )  # fmt: skip
    sae.sample = Sample.of(documents(model))
    return sae


def labelled_text(model: Any) -> Labelled:
    """The same documents; class `half` is early or late by position, `odd.yes` is on at odd ids, else unsettled."""
    rows = documents(model)
    ids = np.array([i for row in rows for i in row], dtype=np.uint16)
    place = np.concatenate([np.arange(len(row)) for row in rows])
    codes = np.stack([(place >= 10).astype(np.int16), np.where(ids % 2 == 1, 0, 1).astype(np.int16)], 1)
    starts = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    possible = {"half": [["early"], ["late"]], "odd": [["yes"], ["yes", None]]}
    return Labelled(ids, starts, np.arange(len(rows)), codes, ("half", "odd"), possible)


def tiny_assets(folder: Path, model: Any, sae: Dictionary, follow: int) -> None:
    """Write what ships with a model: a model folder (a stub), labelled text, a dictionary and its labels."""
    home = folder / model.name
    (home / "model").mkdir(parents=True)
    (home / "model" / "config.json").write_text("{}")
    labelled_text(model).save(home / "text.npz")
    place = home / "dictionaries" / str(sae.site) / f"w{sae.d_sae}"
    sae.save(place)
    label = {"latent": follow, "concept": "odd.yes", "f1": 0.75, "auroc": 0.9, "average_precision": 0.5, "n": 40}
    record = {"latent": follow, "auroc": 0.97, "average_precision": 0.6, "null_auroc": 0.5, "n": 40}
    record["difference_of_means"] = torch.linspace(-1, 1, sae.d_in).tolist()
    labels = {"corpus": "tiny", "latents": {str(follow): label}, "follow": {"odd.yes": record}}
    (place / "labels.json").write_text(json.dumps(labels))
