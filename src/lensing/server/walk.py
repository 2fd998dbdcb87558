"""Routes of the walk: a sentence token by token, layer by layer, latent by latent."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import torch
from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import Field

import lensing
from lensing.causal.ablate import effects
from lensing.causal.dose import dose_response
from lensing.causal.effects import latent_effects
from lensing.causal.metrics import logit_difference
from lensing.causal.slide import slide
from lensing.causal.steer import Mode, Unit
from lensing.errors import UsageError
from lensing.lens.lens import lens_grid
from lensing.lens.prism import By, direct_logit_attribution
from lensing.lens.tuned import load_lens
from lensing.measure.gauges import gauges
from lensing.server.answer import Body, Finite, Name, Text, answer
from lensing.server.house import Specimen
from lensing.server.rooms import Served
from lensing.walkthrough import follow
from lensing.world.shipped import PAIRED, SENSES, TRANSLATION, ships, steering_aids

router = APIRouter(tags=["walk"])
STRENGTHS = 64  # at once


@router.get("/house")
def house(served: Served) -> Response:
    """What is served: the model and its dictionaries."""
    model = served.model
    first = served.specimen() if served.first else None
    loaded = {name: s.facts() for name, s in served.specimens.items()}
    almanac = ships(model)
    return answer({
        "version": lensing.__version__, "model": {
            "name": model.name, "n_layers": model.n_layers, "n_heads": model.n_heads, "d_model": model.d_model,
            "d_vocab": model.d_vocab, "context": model.context, "dtype": str(model.dtype).removeprefix("torch."),
            "device": str(model.device), "chat": bool(getattr(model.tokenizer, "chat_template", None)),
            "tuned_lens": almanac,
            "neurons": [s for s in model.sites() if s.startswith("mlp_post")],
        },
        "first": first and first.name,
        "dictionaries": [loaded.get(name) or {"name": name, "indexed": None} for name in served.names],
        "prompt": "The reliability of the Almanac is very" if almanac else "The reliability of Wikipedia is very",
        "shipped": almanac, "embedding": served.meaning and served.meaning.model.name,
        "pairs": {"dictionary": PAIRED, "senses": SENSES, "translation": TRANSLATION} if almanac else None,
    })  # fmt: skip


class Read(Body):
    """A text to read; `lens` is "logit" or "tuned"."""

    prompt: Text
    position: int = -1
    lens: Annotated[str, Field(pattern="^(logit|tuned)$")] = "logit"


@router.post("/read")
def read(served: Served, asked: Read) -> Response:
    """Tokens, the vector at one of them through the layers, and every layer's guess at every one."""
    model = served.model
    tokens = model.encode(asked.prompt)
    length = tokens.ids.shape[1]
    if not -length <= asked.position < length:
        raise UsageError(f"There is no position {asked.position} in {length} tokens. Give {-length} to {length - 1}.")
    logits, cache = model.run_with_cache(tokens, sites=["embed", "resid_post.*"])
    assert logits is not None
    lens = load_lens(model.name) if asked.lens == "tuned" and ships(model) else None
    grid = lens_grid(model, cache, lens, top=min(10, model.d_vocab))
    vectors = {site: cache[site][0, asked.position].float() for site in cache.sites}
    best = logits[0, -1].double().softmax(-1).topk(min(10, model.d_vocab))
    return answer({
        "tokens": _tokens(served, tokens), "position": asked.position % length,
        "vectors": {site: [round(v, 4) for v in vector.tolist()] for site, vector in vectors.items()},
        "norms": {site: cache[site][0].float().norm(dim=1).tolist() for site in cache.sites},
        "lens": grid.to_json(),
        "next": _words(served, best.indices, best.values),
    })  # fmt: skip


class Decompose(Body):
    """A place of the lens grid: a text, a position, and the word to explain (the likeliest one there if none)."""

    prompt: Text
    position: int = -1
    word: int | None = None
    by: By = "component"


@router.post("/decompose")
def decompose(served: Served, asked: Decompose) -> Response:
    """How every component of the network spoke for the next word at one place."""
    model, word = served.model, asked.word
    if word is None:
        row = model.logits(model.encode(asked.prompt))[0]
        if not -len(row) <= asked.position < len(row):
            raise UsageError(f"There is no position {asked.position} in {len(row)} tokens. Give one that is there.")
        word = int(row[asked.position].argmax())
    return answer(direct_logit_attribution(model, asked.prompt, word, position=asked.position, by=asked.by))


class Beyond(Body):
    """A text, and the latent to follow (found from the text if none is given)."""

    prompt: Text
    dictionary: Name
    latent: int | None = None


@router.post("/beyond")
def beyond(served: Served, asked: Beyond) -> Response:
    """Which latents speak for the next word, what the splice does, and what is not reconstructed of each token."""
    model, found = served.model, served.specimen(asked.dictionary)
    sae, tokens = found.dictionary, model.encode(asked.prompt)
    parts = effects(model, sae, tokens.ids[0])
    latent, why = follow(sae, parts, found.known, asked.latent)
    why.pop("difference_of_means", None)
    g = gauges(model, sae, tokens)
    ids = list(dict.fromkeys(i for p in (g.clean, g.spliced) for i in p.topk(min(6, len(p))).indices.tolist()))
    clean, spliced = g.clean.double().softmax(-1), g.spliced.double().softmax(-1)
    numbers = [e.latent for e in parts.latents if e.latent is not None]
    labels = served.notes.best(found.subject, [latent, *numbers])
    return answer({
        "dictionary": found.name, "site": str(sae.site), "latent": latent, "why": why, "effects": parts.to_json(),
        "labels": {i: label.text for i, label in labels.items()},
        "splice": {
            "words": [
                {"id": i, "word": w, "before": float(clean[i]), "after": float(spliced[i])}
                for i, w in zip(ids, model.tok_str(ids), strict=True)
            ],
            "kl": float(g.kl[-1]), "kl_mean": float(g.kl[g.counted].mean()), "loss": g.loss,
            "loss_spliced": g.loss_spliced,
        },
        "ledger": [
            {"token": t, "not_reconstructed": float(v) if c else None, "kl": float(k) if c else None}
            for t, v, k, c in zip(tokens.strings[0], g.vector, g.kl, g.counted, strict=True)
        ],
        "not_reconstructed": g.vector_all, "corpus": sae.statistics.fvu if sae.statistics else None,
    })  # fmt: skip


class Why(Body):
    """Which latents make the model say one word rather than another; `exact` runs the model without each."""

    prompt: Text
    right: Text
    wrong: Text
    dictionary: Name
    exact: bool = True


@router.post("/why")
def why(served: Served, asked: Why) -> Response:
    """Latents by what they add to a logit difference, the error as its own row."""
    model, found = served.model, served.specimen(asked.dictionary)
    metric = logit_difference(model, asked.right, asked.wrong)
    result = latent_effects(
        model, found.dictionary, asked.prompt, metric, method="exact" if asked.exact else "gradient"
    )
    nodes = sorted(result.summed(), key=lambda node: -abs(node.effect))[:60]
    labels = served.notes.best(found.subject, [n.latent for n in nodes if n.latent is not None])
    return answer({
        "metric": result.metric, "whole": result.whole, "sites": [asdict(s) | {"gap": s.gap} for s in result.sites],
        "nodes": [asdict(n) | {"label": labels[n.latent].text if n.latent in labels else None} for n in nodes],
    })  # fmt: skip


class Slider(Body):
    """One latent at several strengths after a text."""

    prompt: Text
    latent: int
    strengths: Annotated[list[Finite], Field(min_length=1, max_length=STRENGTHS)]
    dictionary: Name
    unit: Unit = "max"
    mode: Mode = "add"
    beside: bool = True
    seed: Annotated[int, Field(ge=0, le=1 << 31)] = 0


@router.post("/slide")
def slider(served: Served, asked: Slider) -> Response:
    """The next word under each strength, and under directions of the same length beside the latent."""
    found = served.specimen(asked.dictionary)
    watch, contrast = _aids(served, found, asked.prompt, asked.latent)
    return answer(slide(
        served.model, found.dictionary, asked.latent, asked.prompt, asked.strengths, unit=asked.unit, mode=asked.mode,
        watch=watch, contrast=contrast, beside=asked.beside, seed=asked.seed,
    ))  # fmt: skip


class Dose(Body):
    """One latent at several strengths after a text, with continuations."""

    prompt: Text
    latent: int
    strengths: Annotated[list[Finite], Field(min_length=1, max_length=16)] | None = None
    dictionary: Name
    mode: Mode = "add"
    new_tokens: Annotated[int, Field(ge=1, le=128)] = 32
    seeds: Annotated[int, Field(ge=1, le=16)] = 8
    seed: Annotated[int, Field(ge=0, le=1 << 31)] = 0


@router.post("/dose")
def dose(served: Served, asked: Dose) -> Response:
    """What every strength says and what it costs in coherence, beside three directions of the same length."""
    found, model = served.specimen(asked.dictionary), served.model
    watch, contrast = _aids(served, found, asked.prompt, asked.latent)
    aids = steering_aids(model, found.dictionary)
    result = dose_response(
        model, found.dictionary, asked.latent, asked.prompt, strengths=asked.strengths, mode=asked.mode,
        new_tokens=asked.new_tokens, seeds=asked.seeds, seed=asked.seed, watch=watch, contrast=contrast,
        impossible=aids.impossible if aids else None,
    )  # fmt: skip
    return answer(result)


def _aids(
    served: Served, found: Specimen, prompt: str, latent: int
) -> tuple[dict[str, list[int]], torch.Tensor | None]:
    """Words of doubt and trust on the invented world, elsewhere the likeliest; a contrast where one ships."""
    aids = steering_aids(served.model, found.dictionary)
    if aids is None:
        logits = served.model.logits(served.model.encode(prompt))[0, -1]
        return {"likeliest 5": logits.topk(min(5, len(logits))).indices.tolist()}, None
    mine = aids.vector is not None and aids.latent == latent
    return aids.watch, torch.tensor(aids.vector) if mine else None


def _tokens(served: Served, tokens: Any) -> list[dict[str, Any]]:
    rows = zip(tokens.ids[0].tolist(), tokens.strings[0], tokens.special[0].tolist(), strict=True)
    return [{"id": i, "text": s, "special": special} for i, s, special in rows]


def _words(served: Served, ids: torch.Tensor, p: torch.Tensor) -> list[dict[str, Any]]:
    return [
        {"id": i, "word": w, "p": q}
        for i, w, q in zip(ids.tolist(), served.model.tok_str(ids), p.tolist(), strict=True)
    ]
