"""Routes of search: by label, by word, by what fires on a text, by marked examples."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field

from lensing.errors import UsageError
from lensing.index.inference import infer
from lensing.index.meaning import nearest
from lensing.index.search import by_example, by_word
from lensing.server.answer import Body, Name, Text, answer
from lensing.server.index import Key
from lensing.server.rooms import Served

router = APIRouter(prefix="/search", tags=["search"])
Words = Annotated[str, Query(max_length=256)]


@router.get("/labels")
def labels(served: Served, q: Words, dictionary: Key = None) -> Response:
    """Latents by the words of their labels."""
    found = served.specimen(dictionary)
    return answer({"hits": served.notes.search(found.subject, q, 100)})


@router.get("/words")
def words(served: Served, q: Words, dictionary: Key = None) -> Response:
    """Latents that fire on a word, or speak for or against it."""
    found, index = served.indexed(dictionary)
    hits = by_word(index, q)
    names = served.notes.best(found.subject, [h.latent for h in hits])
    return answer({"hits": [asdict(h) | {"label": names[h.latent].text if h.latent in names else None} for h in hits]})


@router.get("/meaning")
def meaning(served: Served, q: Words, dictionary: Key = None) -> Response:
    """Latents whose label means what is asked for, by an embedding model; at first the job that reads the labels."""
    found, model = served.specimen(dictionary), served.meaning
    if model is None:
        raise UsageError("No embedding model is loaded. Start lensing serve with --embedding MODEL.")
    if found.subject not in served.meanings:

        def work() -> dict[str, int]:
            labels = served.notes.best(found.subject, range(found.dictionary.d_sae))
            latents = sorted(labels)
            served.meanings[found.subject] = (latents, model.vectors([labels[i].text for i in latents]))
            return {"labels": len(latents)}

        return answer({"hits": None, "job": served.jobs.start(f"read the labels of {found.name}", work)})
    latents, vectors = served.meanings[found.subject]
    hits = [(latents[i], cosine) for i, cosine in nearest(model.vectors([q])[0], vectors, 50)]
    names = served.notes.best(found.subject, [i for i, _ in hits])
    rows = [{"latent": i, "cosine": c, "label": names[i].text if i in names else None} for i, c in hits]
    return answer({"hits": rows, "job": None})


class Inference(Body):
    """A text to read; `order` is by the largest activation ("max"), relative to the latent's own ("share"), or sum."""

    text: Text
    dictionary: Name
    n: Annotated[int, Field(ge=1, le=500)] = 100


@router.post("/inference")
def inference(served: Served, asked: Inference) -> Response:
    """Latents that fire on a text, at each token and over all of it."""
    found = served.specimen(asked.dictionary)
    read = infer(served.model, found.dictionary, asked.text, behaviour=False)
    fired = read.fired(asked.n)
    names = served.notes.best(found.subject, [f.latent for f in fired])
    statistics = found.dictionary.statistics
    top = statistics.max_activation if statistics else None
    return answer({
        "tokens": read.tokens, "special": read.special, "latents": read.latents,
        "hits": [
            asdict(f) | {
                "label": names[f.latent].text if f.latent in names else None,
                "share": f.max / float(top[f.latent]) if top is not None and top[f.latent] > 0 else None,
                "density": float(statistics.density[f.latent]) if statistics else None,
            }
            for f in fired
        ],
    })  # fmt: skip


class Example(Body):
    """One text and its tokens on which the latent sought should fire."""

    text: Text
    marked: Annotated[list[int], Field(max_length=4096)]


class Examples(Body):
    """Texts with marked tokens."""

    examples: Annotated[list[Example], Field(min_length=1, max_length=32)]
    dictionary: Name


@router.post("/examples")
def examples(served: Served, asked: Examples) -> Response:
    """Latents whose activation best tells the marked tokens from the others."""
    found = served.specimen(asked.dictionary)
    hits = by_example(served.model, found.dictionary, [(e.text, e.marked) for e in asked.examples])
    names = served.notes.best(found.subject, [h.latent for h in hits])
    return answer({"hits": [asdict(h) | {"label": names[h.latent].text if h.latent in names else None} for h in hits]})
