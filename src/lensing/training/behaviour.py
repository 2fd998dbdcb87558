"""What a finished dictionary costs the model that it was trained on, where that model is at hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lensing.data.identity import weights_digest
from lensing.data.rows import Rows
from lensing.data.store import Store
from lensing.dictionary.base import Dictionary
from lensing.errors import LensingError, UsageError
from lensing.files import finite
from lensing.measure.splice_cost import splice_costs
from lensing.model.load import is_at_hand, load_model
from lensing.model.run import Model
from lensing.registry import shipped_models

LOGITS = 1 << 25  # logits held at once, about: a large vocabulary is taken few documents at a time

Behaviour = tuple[dict[str, Any] | None, str | None]  # the numbers, or why there are none


def check_model(source: Rows, model: Model) -> None:
    """Raise UsageError when a store was harvested from a model of other weights than this one."""
    if isinstance(source, Store) and source.manifest.model["weights"] != weights_digest(model):
        raise UsageError(
            f"{source.folder} was harvested from {source.model_name} with other weights than those of {model.name}. "
            "Give the model that it was harvested from, or none."
        )


def find_model(source: Rows) -> Model:
    """The model whose rows a source gives: the running one, or the one that a store was harvested from.

    A store's model is loaded (once) where it ships, lies in the folder it was harvested from, or was downloaded before;
    nothing is downloaded. Raises LensingError, which says why there is none.
    """
    if isinstance(source.model, Model):
        return source.model
    name = name_model(source)
    if not is_at_hand(name.partition("@")[0]):
        raise UsageError(f"{name} is not on this machine: give it as model (--model)")
    assert isinstance(source, Store)
    about = source.manifest.model
    shipped, _, snapshot = name.partition("@")
    name, revision = (shipped, snapshot or None) if shipped in shipped_models() else (name, about["revision"])
    model = load_model(name, revision=revision, dtype=about["dtype"])
    check_model(source, model)
    source.model = model
    return model


def name_model(source: Rows) -> str:
    """The name or folder by which a source's model can be loaded; UsageError for rows that came without a model.

    A folder's own name does not say where it lies; the record of the harvest does.
    """
    if not isinstance(source, Store):
        if isinstance(source.model, Model):
            return source.model.name
        raise UsageError("the rows came without a model")
    try:
        record = json.loads((source.folder / "run.json").read_text(encoding="utf-8"))
        place = str(record["call"]["options"]["model"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(source.model_name)
    return place if Path(place).is_dir() else str(source.model_name)


def measure_behaviour(
    source: Rows, dictionaries: Mapping[str, Dictionary], *, tokens: int, model: Model | None = None
) -> dict[str, Behaviour]:
    """For each dictionary its splice cost on up to `tokens` held-out tokens, or a sentence that says why there is none.

    Dictionaries of one site share the clean and the ablated runs.
    """
    found: dict[str, Behaviour] = {}
    by_site: dict[str, dict[str, Dictionary]] = {}
    for name, d in dictionaries.items():
        if d.is_transcoder or d.parts:
            kind = "a crosscoder" if not d.is_transcoder else "a transcoder"
            found[name] = None, f"{kind} does not write the one site that it reads"
        else:
            by_site.setdefault(str(d.site), {})[name] = d
    documents = source.held_out_tokens(tokens) if tokens > 0 else []
    why = "" if documents else "the rows came without held-out text" if tokens > 0 else "it was not asked for"
    if by_site and not why and model is None:
        try:
            model = find_model(source)
        except LensingError as error:
            why = str(error).rstrip(".")
    for site, group in by_site.items():
        if model is None or why:
            found |= dict.fromkeys(group, (None, why))
            continue
        size = max(min(4096, LOGITS // model.d_vocab), 1)
        try:
            costs = splice_costs(model, group, documents, site=site, batch_tokens=size)
        except LensingError as error:
            found |= dict.fromkeys(group, (None, str(error).rstrip(".")))
            continue
        found |= {name: (finite(cost.to_json()), None) for name, cost in costs.items()}
    return found
