"""Routes of an index: one latent, the table of all, the map, two side by side; and the job that builds one."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field

from lensing.errors import UsageError
from lensing.index.build import build_index
from lensing.index.compare import compare
from lensing.index.map import Map, decoder_map
from lensing.index.report import summary
from lensing.index.table import COLUMNS, column, page
from lensing.measure.reading import reading
from lensing.server.answer import Body, Finite, Name, answer
from lensing.server.house import Specimen
from lensing.server.rooms import Served

router = APIRouter(tags=["index"])
TEXT_TOKENS = 200_000  # of the shipped or held-out text that the page indexes, at most
Key = Annotated[str | None, Query(max_length=512, description="a dictionary's name; the first one if not given")]


@router.get("/index")
def facts(served: Served, dictionary: Key = None) -> Response:
    """An index in a few numbers, and the columns of its table; or that there is none yet."""
    found = served.specimen(dictionary)
    if found.index is None:
        return answer({"name": found.name, "indexed": False})
    return answer(summary(found.index).to_json() | {"columns": COLUMNS, "name": found.name, "indexed": True})


@router.get("/latent/{number}")
async def latent(served: Served, number: int, dictionary: Key = None) -> Response:
    """Everything about one latent: statistics, examples, words, neighbours, labels, note, tags."""
    found, index = served.indexed(dictionary)
    one = index.latent(number)
    near = [i for some in one.near.values() for i, _ in some[:8]]
    names = served.notes.best(found.subject, near)
    statistics = found.dictionary.statistics
    return answer({
        "latent": one, "d_sae": index.d_sae, "dictionary": found.name, "site": str(found.dictionary.site),
        "labels": served.notes.labels(found.subject, number),
        "note": served.notes.note(found.subject, number), "tags": served.notes.tags(found.subject, number),
        "near_labels": {i: label.text for i, label in names.items()},
        "known": found.known.get("latents", {}).get(str(number)),
        "max_on_corpus": float(statistics.max_activation[number]) if statistics else None,
        "text": index.facts.text, "imported": index.imported,
        "shown": {"top": index.facts.top, "each": index.facts.each},
    })  # fmt: skip


@router.get("/dark")
def dark(served: Served, dictionary: Key = None) -> Response:
    """The contexts of the text whose token the dictionary misses most."""
    _, index = served.indexed(dictionary)
    return answer({"contexts": index.darkest(), "text": index.facts.text})


@router.get("/latent/{number}/twins")
def twins(served: Served, number: int, dictionary: Key = None) -> Response:
    """The latent of every other seed whose decoder direction is nearest: what another training found of it."""
    found = served.specimen(dictionary)
    rows = []
    for name in served.siblings(found):
        other = served.specimen(name)
        best, cosine = compare(found.dictionary, number, other.dictionary, 0).nearest[0]
        label = served.notes.best(other.subject, [best]).get(best)
        rows.append({"dictionary": name, "latent": best, "cosine": cosine, "label": label and label.text})
    return answer({"twins": rows})


class Wanted(Body):
    """Which latents: sorted by a column (- in front: largest first), between bounds [column, least, most]."""

    dictionary: Name
    sort: Annotated[str, Field(max_length=64)] = "-density"
    where: Annotated[list[tuple[str, Finite | None, Finite | None]], Field(max_length=16)] = []
    columns: Annotated[list[str], Field(max_length=16)] = ["count", "density", "mean", "max"]
    words: Annotated[str, Field(max_length=256)] = ""
    tag: Annotated[str, Field(max_length=64)] = ""
    offset: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


@router.post("/table")
async def table(served: Served, asked: Wanted) -> Response:
    """Some rows of the table of all latents, with their labels."""
    found, index = served.indexed(asked.dictionary)
    among, matched = None, {}
    if asked.words.strip():
        matched = {label.latent: label for label in served.notes.search(found.subject, asked.words, 10_000)}
        among = [*matched]
    if asked.tag:
        tagged = served.notes.tagged(found.subject).get(asked.tag, [])
        among = tagged if among is None else sorted({*among} & {*tagged})
    rows = page(
        index, sort=asked.sort, where=asked.where, among=among, columns=asked.columns, offset=asked.offset,
        limit=asked.limit, extra=found.extra,
    )  # fmt: skip
    labels = served.notes.best(found.subject, rows.latents) | matched  # the label that was looked for is shown
    return answer(rows.to_json() | {"labels": [labels[i].text if i in labels else None for i in rows.latents]})


@lru_cache(maxsize=4)
def _map(found: Specimen) -> Map:
    return decoder_map(found.dictionary)


@router.get("/map")
def places(
    served: Served, dictionary: Key = None, colour: Annotated[str, Query(max_length=64)] = "density"
) -> Response:
    """All latents on a plane, with one statistic to colour them by."""
    found, index = served.indexed(dictionary)
    if index.d_sae > 200_000:
        raise UsageError(f"{index.d_sae:,} latents are too many to draw. Use the table.")
    values = column(index, colour, found.extra)
    return answer(_map(found).to_json() | {"colour": [None if v != v else float(v) for v in values.tolist()]})


@router.get("/compare")
def side_by_side(
    served: Served, latents: Annotated[str, Query(max_length=64)], dictionary: Key = None, other: Key = None
) -> Response:
    """How alike two latents are, of one dictionary or of two: cosines where they live in the same space."""
    try:
        a, b = (int(part) for part in latents.split(","))
    except ValueError as error:
        raise UsageError(f"{latents!r} are not two latents. Give two numbers with a comma.") from error
    one = served.specimen(dictionary)
    two = served.specimen(other) if other else one
    result = compare(one.dictionary, a, two.dictionary, b)
    labels = served.notes.best(two.subject, [i for i, _ in result.nearest])
    names = {i: label.text for i, label in labels.items()}
    return answer(result.to_json() | {"labels": names, "of": [one.name, two.name]})


class Build(Body):
    """Which dictionary to index, on the text that ships with the model or on its own held-out sample."""

    dictionary: Name


@router.post("/index")
def build(served: Served, asked: Build) -> Response:
    """Begin to index a dictionary; the job says how far it is."""
    found = served.specimen(asked.dictionary)
    if found.index is not None:
        raise UsageError(f"{found.name} has an index. Look at it on its page.")

    def work() -> dict[str, Any]:
        text = reading(served.model, found.dictionary, tokens=TEXT_TOKENS).text
        if not text.documents:
            raise UsageError(
                f"{found.name} came without a text. Use: lensing index {found.name} --text FILE --out FOLDER."
            )
        documents = [text.document(i) for i in range(text.documents)]
        out = served.home_of(found)
        index = build_index(served.model, found.dictionary, documents, out=out, name=text.name, quiet=True)
        found.index = index
        served.adopt(found)
        return {"dictionary": found.name}

    return answer(served.jobs.start(f"index {found.name}", work))
