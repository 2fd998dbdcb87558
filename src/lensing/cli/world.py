"""`lensing world`: text of the invented world with its truth, and the model beside the exact reader."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from cyclopts import App

from lensing.cli.show import show
from lensing.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

app = App(name="world", help="Look at the invented world that the shipped model learnt.")


@dataclasses.dataclass(frozen=True)
class Sample:
    """Documents of the world, each with its words and perhaps its labels."""

    seed: int
    documents: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


@app.command
def sample(
    *,
    tokens: int = 200,
    truth: bool = False,
    seed: int = 0,
    document: int = 0,
    grammar: str = "almanac",
    json: bool = False,
) -> None:
    """Show whole documents of a world, and the truth of every token.

    Parameters
    ----------
    tokens
        Show documents until this many tokens are on the screen.
    truth
        Show each token's labels where they change.
    seed
        Seed of the world; the shipped model learnt seed 0.
    document
        Number of the first document.
    grammar
        The world: almanac, heldout, or the path of a grammar file of your own.
    json
        Print the result as JSON.
    """
    if tokens < 1 or document < 0 or seed < 0:
        raise UsageError(
            f"--tokens {tokens} --document {document} --seed {seed}: give at least 1 token and no negative number."
        )
    from lensing.world.filter import Reader
    from lensing.world.grammarfile import find_grammar
    from lensing.world.sample import sample_document, split_of
    from lensing.world.truth import named, read_truth

    world = find_grammar(grammar)
    reader = Reader(world)
    found: list[dict[str, Any]] = []
    while sum(len(d["words"]) for d in found) < tokens:
        number = document + len(found)
        drawn = sample_document(world, number, seed=seed)
        labels = [named(row) for row in read_truth(reader, drawn.words)] if truth else None
        found.append(
            {
                "number": number,
                "split": split_of(number),
                "words": list(drawn.words),
                "text": drawn.text,
                "truth": labels,
            }
        )
    result = Sample(seed, found)

    def draw(console: Console) -> None:
        from lensing.draw.world import draw_document

        for d in found:
            draw_document(
                console, f"document {d['number']} ({d['split']})", d["words"] if truth else [d["text"]], d["truth"]
            )

    show(result, draw, as_json=json)


@app.command
def report(*, model: str = "almanac", documents: int | None = None, json: bool = False) -> None:
    """Show what the shipped model has and lacks: the report that was measured when it was made.

    With --documents, or for a model of your own, its loss, facts and stance are measured now, beside the exact reader
    of the world. `make world ARGS=--fresh` measures the whole report again.

    Parameters
    ----------
    model
        The shipped model, or a folder with a model trained on this world.
    documents
        Measure now, on this many held-out documents (400 for a model of your own).
    json
        Print the result as JSON.
    """
    if documents is not None and documents < 1:
        raise UsageError(f"--documents {documents}: give at least 1.")
    from lensing.world.shipped import shipped_report

    stored = shipped_report(model) if documents is None else None
    result: Any = stored
    values = stored.values if stored else {}
    if stored is None:
        import lensing as ln
        from lensing.evaluation.floor import floor_report
        from lensing.world.almanac.grammar import almanac

        result = floor_report(ln.load_model(model), almanac(), documents=documents or 400)
        values = {"model": result.model, "floor": result.to_json()}

    def draw(console: Console) -> None:
        from lensing.draw.world import draw_report

        draw_report(values, console)

    show(result, draw, as_json=json)
