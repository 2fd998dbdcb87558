"""`lensing walk`: the walk through one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lensing.cli.show import show

if TYPE_CHECKING:
    from rich.console import Console


def walk(
    prompt: str,
    /,
    *,
    model: str = "almanac",
    dictionary: str | None = None,
    latent: int | None = None,
    strength: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    text: Path | None = None,
    new_tokens: int = 32,
    seed: int = 0,
    html: Path | None = None,
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """Walk one sentence through a model, from tokens to what stays dark.

    Parameters
    ----------
    prompt
        The sentence, in quotes.
    model
        A shipped model, a folder, or a hub id.
    dictionary
        A shipped dictionary's id or a folder; chosen for you where the model ships with some.
    latent
        The latent to follow and steer; found from the sentence if not given.
    strength
        One or more strengths to steer it by, in units of its largest activation; 0 0.25 0.5 1 2 4 8 16 if not given.
    text
        A .txt or .jsonl file in which strongest contexts are looked for; if not given, the text that the model or
        the dictionary came with. A dictionary that brings no statistics is measured on it.
    new_tokens
        How many tokens each continuation has.
    seed
        Seed of everything drawn at random.
    html
        Write the walk as one HTML file that needs nothing else, with a slider over the strengths.
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    import lensing as ln
    from lensing.data.text import read_documents

    documents = None if text is None else read_documents(text)
    loaded = ln.load_model(model, allow_pickle=allow_pickle)
    chosen = ln.load_dictionary(dictionary, model=loaded, allow_pickle=allow_pickle) if dictionary else None
    result = ln.walk(
        prompt, model=loaded, dictionary=chosen, latent=latent, strengths=strength, new_tokens=new_tokens, seed=seed,
        text=documents,
    )  # fmt: skip

    if html is not None:
        from lensing.draw.walkhtml import walk_html
        from lensing.files import atomic_file

        with atomic_file(html) as temporary:
            temporary.write_text(walk_html(result), encoding="utf-8")

    def draw(console: Console) -> None:
        from lensing.draw.walk import draw_walk

        draw_walk(result, console)
        if html is not None:
            console.print(f"The page is in {html}.", soft_wrap=True)

    show(result, draw, as_json=json)
