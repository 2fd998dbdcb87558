"""Routes of what stays dark: the ledger of a dictionary on the text that is at hand."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from lensing.errors import UsageError
from lensing.ledger.audit import audit
from lensing.measure.reading import reading
from lensing.server.answer import answer
from lensing.server.index import TEXT_TOKENS, Key
from lensing.server.rooms import Served

router = APIRouter(tags=["dark"])
SEEDS = 4  # other seeds that are read beside a dictionary, at most


@router.get("/ledger")
def ledger(served: Served, dictionary: Key = None) -> Response:
    """The account of a dictionary where it is made, else the job that makes it."""
    found = served.specimen(dictionary)
    made = served.ledgers.get(found.name)
    if made is not None:
        return answer({"ledger": made.to_json(), "job": None})

    def work() -> dict[str, Any]:
        text = reading(served.model, found.dictionary, tokens=TEXT_TOKENS).text
        if not text.documents:
            raise UsageError(f"{found.name} came without a text. Use: lensing ledger {found.name} --text FILE.")
        others = [served.specimen(name).dictionary for name in served.siblings(found)[:SEEDS]]
        same = [
            d for d in others if (d.site, d.target, d.parts) == (found.dictionary.site, found.dictionary.target, ())
        ]
        documents = [text.document(i) for i in range(text.documents)]
        served.ledgers[found.name] = audit(
            served.model, found.dictionary, documents, seeds=same, name=text.name, quiet=True
        )
        return {"dictionary": found.name}

    return answer({"ledger": None, "job": served.jobs.start(f"ledger of {found.name}", work)})
