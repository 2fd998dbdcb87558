"""Routes of a text: each token by any latent, by what is not reconstructed, by loss."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import Field

from lensing.index.inference import activations_of, infer
from lensing.server.answer import Body, Name, Text, answer
from lensing.server.rooms import Served

router = APIRouter(tags=["text"])


class Whole(Body):
    """A text to read through a dictionary."""

    text: Text
    dictionary: Name


@router.post("/text")
def text(served: Served, asked: Whole) -> Response:
    """What fires on each token, how much of it is missed, what the splice costs there, and which words it loses."""
    found = served.specimen(asked.dictionary)
    read = infer(served.model, found.dictionary, asked.text)
    fired = read.fired(60)
    names = served.notes.best(found.subject, [f.latent for f in fired])
    return answer(read.to_json() | {"labels": {i: label.text for i, label in names.items()}})


class Test(Body):
    """A text to try latents on."""

    text: Text
    latents: Annotated[list[int], Field(min_length=1, max_length=64)]
    dictionary: Name


@router.post("/activations")
def activations(served: Served, asked: Test) -> Response:
    """The activation of some latents at every token of a text."""
    found = served.specimen(asked.dictionary)
    tokens = served.model.encode(asked.text)
    values = activations_of(served.model, found.dictionary, asked.text, asked.latents)
    return answer({"tokens": tokens.strings[0], "special": tokens.special[0].tolist(), "values": values})
