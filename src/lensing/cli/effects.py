"""`lensing effects`: which latents a next word rests on, with what the dictionary misses beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from lensing.cli.show import show

if TYPE_CHECKING:
    from rich.console import Console

FAR = 0.1  # share of the whole from which effects are said not to add up
DEFAULT = "almanac/resid_post.2/w1024"


def effects(
    prompt: str,
    /,
    *,
    target: str | None = None,
    minus: str | None = None,
    dictionary: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    corrupt: str | None = None,
    method: Literal["gradient", "ig", "exact"] = "gradient",
    positions: bool = False,
    position: int = -1,
    model: str | None = None,
    top: int = 12,
    picture: Path | None = None,
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """Measure what each latent adds to the next word through all that comes after it, the error as its own row.

    Parameters
    ----------
    prompt
        The sentence, in quotes.
    target
        The word that is measured, by its first token; the model's own likeliest word if not given.
    minus
        Another word, whose logit is taken away; without one, what is measured is the word's log-probability.
    dictionary
        One or more dictionaries, each of its own site; almanac/resid_post.2/w1024 if not given.
    corrupt
        A sentence of as many tokens, whose activations are the baseline in the place of zero.
    method
        The gradient at the sentence (gradient), along the way from the baseline (ig), or a run for each (exact).
    positions
        List latents at each token, not summed over the sentence.
    position
        The position after which the word comes.
    model
        A shipped model, a folder, or a hub id; the first dictionary's own model if not given.
    top
        How many rows are listed.
    picture
        Also write them as a picture to this file (.svg, .png or .pdf; needs matplotlib).
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    import lensing as ln
    from lensing.causal.effects import latent_effects
    from lensing.causal.metrics import LogProbability, logit_difference, token_ids

    names = dictionary or [DEFAULT]
    if model is None:
        model = str(ln.load_dictionary(names[0], allow_pickle=allow_pickle).model_name)
    loaded = ln.load_model(model, allow_pickle=allow_pickle)
    saes = [ln.load_dictionary(name, model=loaded, allow_pickle=allow_pickle) for name in names]
    word = int(loaded.logits(prompt)[0, position].argmax()) if target is None else target
    if minus is not None:
        metric: Any = logit_difference(loaded, word, minus, position=position)
    else:
        metric = LogProbability(token_ids(loaded, word), position)
    found = latent_effects(loaded, saes, prompt, metric, corrupt=corrupt, method=method, quiet=json)
    shown = loaded.tok_str(token_ids(loaded, word))[0].strip()
    what = f"{metric.name} of '{shown}'" + ("" if minus is None else f" less '{minus}'")
    rows = [(node.label, node.effect) for node in found.top(top, by_position=positions)]
    if picture is not None:
        from lensing.plots import draw_parts

        draw_parts(what, rows, picture)
    show(found, lambda console: _draw(found, what, rows, console), as_json=json)


def _draw(found: Any, what: str, rows: list[tuple[str, float]], console: Console) -> None:
    from lensing.draw.parts import parts_table

    console.print(f"{what}: {found.whole:+.4f}. What each adds to it ({found.method}, baseline {found.baseline}):")
    console.print(parts_table(rows))
    for site in found.sites:
        console.print(
            f"{site.site}: latents {site.latents:+.4f}, error {site.error:+.4f}; all of it at the baseline "
            f"{site.moved:+.4f} (the sum is {site.gap:+.1e} from that)."
        )
        if abs(site.gap) > FAR * abs(site.moved):
            console.print("The effects do not add up to what all do together: read each alone, not as a share.")
