"""`lensing ledger`: what a dictionary explains and what stays dark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lensing.cli.show import show

if TYPE_CHECKING:
    from rich.console import Console


def ledger(
    dictionary: str,
    /,
    *,
    text: str,
    model: str | None = None,
    seeds: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    tokens: int | None = None,
    field: str = "text",
    context: int | None = None,
    seed: int = 0,
    batch_tokens: int = 4096,
    html: Path | None = None,
    skip_bad: bool = False,
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """Account for the variance that a dictionary leaves, in lines that sum to it, with what they do not show.

    Parameters
    ----------
    dictionary
        A shipped dictionary's id, a folder, or a dictionary of another tool.
    text
        A text that it was not trained on: a file (.txt, .jsonl, .parquet; also .gz or .zst), a folder, or a dataset.
    model
        A shipped model, a folder, or a hub id; the one that the dictionary was trained on if not given.
    seeds
        Dictionaries that differ from this one in their seed alone: what all miss, and what each misses by chance.
    tokens
        How many tokens to read, in whole documents from the start of the text; all of it if not given.
    field
        The field or column that holds the text.
    context
        Longest piece of text that the model reads, in tokens; its own context if not given.
    seed
        How documents are dealt into groups.
    batch_tokens
        Tokens in one forward pass; fewer where memory is short.
    html
        Write the account as one HTML file as well.
    skip_bad
        Leave out rows of the text that cannot be used, and count them.
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    import lensing as ln
    from lensing.config import recorded_options
    from lensing.data.text import Text
    from lensing.draw.ledger import draw_ledger, ledger_html
    from lensing.files import atomic_file

    documents = Text(text, field=field, skip_bad=skip_bad)
    sae = ln.load_dictionary(dictionary, allow_pickle=allow_pickle)
    place = model or recorded_options(dictionary).get("model") or str(sae.model_name)
    loaded = ln.load_model(place, allow_pickle=allow_pickle)
    others = [ln.load_dictionary(name, model=loaded, allow_pickle=allow_pickle) for name in seeds or ()]
    result = ln.audit(
        loaded, sae, documents, seeds=others, tokens=tokens, context=context, batch_tokens=batch_tokens, seed=seed,
        quiet=json,
    )  # fmt: skip
    if html is not None:
        with atomic_file(html) as temporary:
            temporary.write_text(ledger_html(result), encoding="utf-8")

    def draw(console: Console) -> None:
        draw_ledger(result, console)

    show(result, draw, as_json=json)
