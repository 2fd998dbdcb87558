"""`lensing index` and `lensing latent`: what every latent of a dictionary does on a text, and one of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensing.cli.options import absolute
from lensing.cli.show import is_main, show

if TYPE_CHECKING:
    from rich.console import Console


def index(
    dictionary: str,
    /,
    *,
    text: str,
    out: Path,
    model: str | None = None,
    tokens: int | None = None,
    field: str = "text",
    context: int | None = None,
    top: int = 20,
    quantiles: int = 4,
    each: int = 5,
    seed: int = 0,
    batch_tokens: int = 4096,
    skip_bad: bool = False,
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """Find what every latent of a dictionary does on a text: how often, where, on which words, beside which others.

    The same command again continues an index that was stopped.

    Parameters
    ----------
    dictionary
        A shipped dictionary's id, a folder, or a dictionary of another tool.
    text
        A file (.txt, .jsonl, .parquet; also .gz or .zst), a folder of such files, or a dataset (owner/name).
    out
        The folder of the index.
    model
        A shipped model, a folder, or a hub id; the one that the dictionary was trained on if not given.
    tokens
        How many tokens to read, in whole documents from the start of the text; all of it if not given.
    field
        The field or column that holds the text.
    context
        Longest piece of text that the model reads, in tokens; its own context if not given.
    top
        How many of the strongest contexts are kept for each latent.
    quantiles
        Into how many equal parts the other contexts are divided.
    each
        How many contexts of each part are kept.
    seed
        Which contexts of a part are kept.
    batch_tokens
        Tokens in one forward pass; fewer where memory is short.
    skip_bad
        Leave out rows of the text that cannot be used, and count them.
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    options = dict(locals())
    import lensing as ln
    from lensing.config import called, recorded_options
    from lensing.data.text import Text
    from lensing.index.report import summary

    documents = Text(text, field=field, skip_bad=skip_bad)
    if model is None:
        # where it lay when the dictionary was trained, else the name that it goes by
        found = ln.load_dictionary(dictionary, allow_pickle=allow_pickle)
        model = str(recorded_options(dictionary).get("model") or found.model_name)
    loaded = ln.load_model(model, allow_pickle=allow_pickle)
    sae = ln.load_dictionary(dictionary, model=loaded, allow_pickle=allow_pickle)
    with called("index", absolute(options)):
        found = ln.build_index(
            loaded, sae, documents, out=out, tokens=tokens, context=context, top=top, quantiles=quantiles, each=each,
            seed=seed, batch_tokens=batch_tokens, quiet=json,
        )  # fmt: skip

    def draw(console: Console) -> None:
        from lensing.draw.index import draw_summary

        draw_summary(result.to_json(), console)

    if is_main():
        result = summary(found)
        show(result, draw, as_json=json)


def latent(folder: Path, number: int, /, *, contexts: int = 8, json: bool = False) -> None:
    """Show one latent of an index: how often it fires, on which words and where, what it speaks for, its neighbours.

    Parameters
    ----------
    folder
        An index that lensing index made.
    number
        The latent.
    contexts
        How many of the strongest contexts are shown; of each other group there are two.
    json
        Print all of it as JSON.
    """
    import lensing as ln

    found = ln.open_index(folder).latent(number)

    def draw(console: Console) -> None:
        from lensing.draw.index import draw_latent

        draw_latent(found, console, contexts)

    show(found, draw, as_json=json)


def repeat(command: str, options: dict[str, Any]) -> None:
    """Run `index` again as a run.json recorded it."""
    name = options.pop("dictionary")
    index(name, out=Path(options.pop("out")), **options)
