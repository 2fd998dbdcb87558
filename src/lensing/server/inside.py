"""Routes of the network's inside: attention patterns, head scores, patching, single units."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field

from lensing.causal.heads import head_scores
from lensing.causal.metrics import LogProbability, logit_difference
from lensing.causal.patch import patch
from lensing.errors import PromptError, UsageError
from lensing.measure.contexts import Passages
from lensing.measure.reading import reading
from lensing.measure.unit import unit
from lensing.server.answer import Body, Text, answer
from lensing.server.house import House
from lensing.server.rooms import Served

router = APIRouter(tags=["inside"])
PATTERN_TOKENS, TEXT_TOKENS = 256, 24_000
PATCHED = ("resid_pre", "attn_out", "mlp_out", "attn_z")


class Attend(Body):
    """A text, and the layer whose heads are wanted."""

    text: Text
    layer: Annotated[int, Field(ge=0)]


@router.post("/attention")
def attention(served: Served, asked: Attend) -> Response:
    """The attention pattern of every head of a layer: [head, query, key]."""
    model = served.model
    tokens = model.encode(asked.text)
    if tokens.ids.shape[1] > PATTERN_TOKENS:
        raise PromptError(f"{tokens.ids.shape[1]} tokens are too many to draw. Give at most {PATTERN_TOKENS}.")
    if asked.layer >= model.n_layers:
        raise UsageError(f"There is no layer {asked.layer}. Give 0 to {model.n_layers - 1}.")
    _, cache = model.run_with_cache(tokens, sites=[("attn_pattern", asked.layer)], stop=True)
    pattern = cache["attn_pattern", asked.layer][0].float()
    return answer({
        "tokens": tokens.strings[0],
        "pattern": [[[round(v, 4) for v in row[: i + 1]] for i, row in enumerate(head)] for head in pattern.tolist()],
    })  # fmt: skip


@lru_cache(maxsize=2)
def _scores(house: House) -> object:
    return head_scores(house.model).to_json()


@router.get("/heads")
def heads(served: Served) -> Response:
    """What each head looks at, measured on random tokens said twice."""
    return answer(_scores(served))


class Patch(Body):
    """A clean and a corrupt text of one length, and the word (or pair of words) that tells them apart."""

    clean: Text
    corrupt: Text
    right: Annotated[str, Field(max_length=256)] = ""
    wrong: Annotated[str, Field(max_length=256)] = ""
    site: Literal["resid_pre", "attn_out", "mlp_out", "attn_z"] = "resid_pre"
    mode: Literal["denoise", "noise"] = "denoise"


@router.post("/patch")
def patching(served: Served, asked: Patch) -> Response:
    """How much of the way from one answer to the other each place brings when patched alone."""
    model = served.model
    clean = model.logits(model.encode(asked.clean))[0, -1]
    corrupt = model.logits(model.encode(asked.corrupt))[0, -1]
    right: int | str = (asked.right.strip() and asked.right) or int(clean.argmax())
    wrong: int | str = (asked.wrong.strip() and asked.wrong) or int(corrupt.argmax())
    metric = logit_difference(model, right, wrong)
    if metric.right == metric.wrong:
        metric = LogProbability(metric.right)
    result = patch(model, asked.clean, asked.corrupt, metric, site=asked.site, mode=asked.mode)
    rows, columns, values = result.grid()
    words = [model.tok_str([i])[0] for i in (*getattr(metric, "right", ()), *getattr(metric, "wrong", ()))]
    words = words or [model.tok_str([int(clean.argmax())])[0]]
    return answer(result.to_json() | {"rows": rows, "columns": columns, "grid": values.tolist(), "words": words})


@lru_cache(maxsize=2)
def _passages(house: House) -> Passages:
    return reading(house.model, house.specimen().dictionary, tokens=TEXT_TOKENS).text


@router.get("/unit")
def one_unit(
    served: Served, site: Annotated[str, Query(max_length=128)], number: Annotated[int, Query(ge=0)]
) -> Response:
    """Where one neuron (or any coordinate of a site) is strong, by either sign, on the text that is at hand."""
    text = _passages(served)
    if not text.documents:
        raise UsageError("There is no text to look through: the dictionary came without a sample.")
    return answer(unit(served.model, text, site, number))


class Strongest(Body):
    """A text whose last token is asked about."""

    text: Text
    layer: Annotated[int, Field(ge=0)]


@router.post("/neurons")
def neurons(served: Served, asked: Strongest) -> Response:
    """The neurons of a layer that are strongest at the last token of a text."""
    site = f"mlp_post.{asked.layer}"
    _, cache = served.model.run_with_cache(asked.text, sites=[site], stop=True)
    last = cache[site][0, -1].float()
    best = last.abs().topk(min(20, len(last))).indices
    return answer({"site": site, "units": [{"number": i, "value": float(last[i])} for i in best.tolist()]})
