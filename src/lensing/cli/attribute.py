"""`lensing attribute`: which parts of the model speak for the next word."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from lensing.cli.show import show

if TYPE_CHECKING:
    from rich.console import Console


def attribute(
    prompt: str,
    /,
    *,
    target: str | None = None,
    minus: str | None = None,
    by: Literal["component", "head", "source", "neuron", "latent"] = "component",
    dictionary: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    position: int = -1,
    model: str = "almanac",
    top: int = 12,
    picture: Path | None = None,
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """Split the next word's logit over the parts that wrote the residual stream (direct logit attribution).

    Parameters
    ----------
    prompt
        The sentence, in quotes.
    target
        The word whose logit is split, by its first token; the model's own likeliest word if not given.
    minus
        Another word, whose logit is taken away.
    by
        The parts: component, head, source (a head and the token it reads), neuron, or latent (with --dictionary).
    dictionary
        Dictionaries of mlp_out or attn_out of some layers, or one of resid_post, which stands for all before it.
    position
        The position after which the word comes.
    model
        A shipped model, a folder, or a hub id.
    top
        How many parts are listed.
    picture
        Also write the parts as a picture to this file (.svg, .png or .pdf; needs matplotlib).
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    import lensing as ln
    from lensing.lens.prism import direct_logit_attribution

    loaded = ln.load_model(model, allow_pickle=allow_pickle)
    saes = [ln.load_dictionary(name, model=loaded, allow_pickle=allow_pickle) for name in dictionary or ()]
    word = int(loaded.logits(prompt)[0, position].argmax()) if target is None else target
    found = direct_logit_attribution(
        loaded, prompt, word, minus=minus, position=position, by="latent" if saes else by, dictionaries=saes
    )
    if picture is not None:
        from lensing.plots import draw_parts

        draw_parts(found.what, [(p.label, p.value) for p in found.top(top)], picture)
    show(found, lambda console: _draw(found, console, top), as_json=json)


def _draw(found: Any, console: Console, top: int) -> None:
    from lensing.draw.parts import parts_table

    capped = "" if found.capped is None else f" (before the soft cap, which makes it {found.capped:+.4f})"
    console.print(f"{found.what}: {found.whole:+.4f}{capped}, split by {found.by}:")
    console.print(parts_table([(p.label, p.value) for p in found.top(top)]))
    rest = found.total - sum(p.value for p in found.top(top))
    console.print(
        f"{max(len(found.parts) - top, 0)} other parts: {rest:+.4f}. All {len(found.parts)} sum to {found.total:+.4f}, "
        f"{found.error:.1e} from the model's number."
    )
