"""Routes of what people say: labels, notes, tags, lists."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import Field

from lensing.dictionary.load import refuse_unknown_latent
from lensing.server.answer import Body, Name, answer
from lensing.server.house import Specimen
from lensing.server.index import Key
from lensing.server.rooms import Served

router = APIRouter(tags=["notes"])
Words = Annotated[str, Field(max_length=4096)]


def _latent(served: Served, name: str | None, number: int) -> Specimen:
    found = served.specimen(name)
    refuse_unknown_latent(found.dictionary, number)
    return found


class Said(Body):
    """A label that a person gives a latent."""

    text: Words
    dictionary: Name


@router.post("/latent/{number}/labels")
def add_label(served: Served, number: int, asked: Said) -> Response:
    """Give a latent a label."""
    found = _latent(served, asked.dictionary, number)
    served.notes.add_label(found.subject, number, asked.text)
    return answer({"labels": served.notes.labels(found.subject, number)})


@router.delete("/labels/{number}")
def remove_label(served: Served, number: int) -> Response:
    """Take a label away."""
    served.notes.remove_label(number)
    return answer({})


class Noted(Body):
    """A note and the tags of a latent; what is None stays as it is."""

    note: Words | None = None
    tags: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=32)] | None = None
    dictionary: Name


@router.put("/latent/{number}/notes")
def put_notes(served: Served, number: int, asked: Noted) -> Response:
    """Write a latent's note and tags."""
    found = _latent(served, asked.dictionary, number)
    if asked.note is not None:
        served.notes.put_note(found.subject, number, asked.note)
    if asked.tags is not None:
        served.notes.put_tags(found.subject, number, [tag for tag in asked.tags if tag.strip()])
    return answer({"note": served.notes.note(found.subject, number), "tags": served.notes.tags(found.subject, number)})


@router.get("/tags")
def tags(served: Served, dictionary: Key = None) -> Response:
    """All tags with their latents."""
    return answer({"tags": served.notes.tagged(served.specimen(dictionary).subject)})


@router.get("/lists")
def lists(served: Served) -> Response:
    """All lists."""
    return answer({"lists": [{"name": name, "n": n} for name, n in served.notes.lists()]})


@router.get("/lists/{name}")
def one_list(served: Served, name: str) -> Response:
    """What stands on a list."""
    subjects = {s.subject: s.name for s in served.specimens.values()}
    rows = []
    for subject, latent, note in served.notes.items(name):
        label = served.notes.best(subject, [latent]).get(latent)
        rows.append(
            {"dictionary": subjects.get(subject), "latent": latent, "note": note, "label": label and label.text}
        )
    return answer({"name": name, "items": rows})


class Item(Body):
    """A latent for a list."""

    latent: int
    note: Words = ""
    dictionary: Name


@router.post("/lists/{name}")
def put_item(served: Served, name: str, asked: Item) -> Response:
    """Put a latent on a list, which is made where it is not there."""
    found = _latent(served, asked.dictionary, asked.latent)
    served.notes.put_item(name, found.subject, asked.latent, asked.note)
    return one_list(served, name)


@router.delete("/lists/{name}/{latent}")
def remove_item(served: Served, name: str, latent: int, dictionary: Key = None) -> Response:
    """Take a latent off a list."""
    served.notes.remove_item(name, served.specimen(dictionary).subject, latent)
    return one_list(served, name)


@router.delete("/lists/{name}")
def remove_list(served: Served, name: str) -> Response:
    """Take a list away."""
    served.notes.remove_list(name)
    return answer({})
