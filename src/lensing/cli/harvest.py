"""`lensing harvest`: activations to disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from lensing.cli.options import absolute
from lensing.cli.show import is_main, show

if TYPE_CHECKING:
    from rich.console import Console


def harvest(
    *,
    model: str,
    text: str,
    sites: Annotated[list[str], Parameter(consume_multiple=True)],
    out: Path,
    tokens: int | None = None,
    field: str = "text",
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16",
    context: int | None = None,
    held_out: float = 0.05,
    seed: int = 0,
    batch_tokens: int = 4096,
    shuffle_rows: int | None = None,
    shard_rows: int | None = None,
    include_special: bool = False,
    skip_bad: bool = False,
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """Store the activations of a model reading text, to train on and to look at.

    The same command again continues a harvest that was stopped, and mends a store with missing or broken files.

    Parameters
    ----------
    model
        A shipped model, a folder, or a hub id.
    text
        A file (.txt, .jsonl, .parquet; also .gz or .zst), a folder of such files, or a dataset (owner/name).
    sites
        The sites to store, such as resid_post.2 mlp_out.*; see lensing sites.
    out
        The folder of the store.
    tokens
        How many tokens to store, in whole documents from the start of the text; all of it if not given.
    field
        The field or column that holds the text.
    dtype
        Number format of the rows on disk.
    context
        Longest piece of text that the model reads, in tokens; its own context if not given.
    held_out
        Share of the documents that training never sees.
    seed
        Seed of the order of the documents.
    batch_tokens
        Tokens in one forward pass; fewer where memory is short.
    shuffle_rows
        About how many rows are mixed at a time in training; 131072 or what fits in 512 MB if not given.
    shard_rows
        About how many rows a file holds; as many as are mixed, at most 1 GB over all sites, if not given.
    include_special
        Store rows of special tokens too.
    skip_bad
        Leave out rows of the text that cannot be used, and count them.
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    options = dict(locals())
    import lensing as ln
    from lensing.config import called
    from lensing.data.text import Text

    # The text is looked at before the model is loaded: a wrong path should be said at once.
    documents = Text(text, field=field, skip_bad=skip_bad)
    with called("harvest", absolute(options)):
        store = ln.harvest(
            ln.load_model(model, allow_pickle=allow_pickle), documents, sites=sites, out=out, tokens=tokens,
            dtype=dtype, context=context, held_out=held_out, seed=seed, batch_tokens=batch_tokens,
            shuffle_rows=shuffle_rows, shard_rows=shard_rows, include_special=include_special,
        )  # fmt: skip

    def draw(console: Console) -> None:
        from lensing.draw.store import draw_store

        draw_store(store.to_json(), console)

    if is_main():
        show(store, draw, as_json=json)


def repeat(command: str, options: dict[str, Any]) -> None:
    """Run `harvest` again as a run.json recorded it."""
    harvest(out=Path(options["out"]), **{key: value for key, value in options.items() if key != "out"})
