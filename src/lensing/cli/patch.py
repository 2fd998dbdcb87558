"""`lensing patch`: which activations carry the answer from one sentence to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lensing.cli.show import show

if TYPE_CHECKING:
    from rich.console import Console


def patch(
    clean: str,
    corrupt: str,
    /,
    *,
    right: str,
    wrong: str,
    model: str = "almanac",
    site: str = "resid_pre",
    method: Literal["patch", "gradient", "ig"] = "patch",
    mode: Literal["denoise", "noise"] = "denoise",
    position: int = -1,
    top: int = 10,
    picture: Path | None = None,
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """Put single activations of one sentence into the run of another and measure the answer.

    Parameters
    ----------
    clean
        The sentence whose next word is the right one.
    corrupt
        The same sentence with a word changed, of as many tokens, after which the wrong word comes.
    right
        The word after the clean sentence, by its first token.
    wrong
        The word after the corrupt sentence, by its first token.
    model
        A shipped model, a folder, or a hub id.
    site
        What is patched at every layer and position (and head): resid_pre, attn_out, mlp_out, attn_z, attn_pattern ...
    method
        Run every node (patch), or estimate all at once from gradients (gradient, ig).
    mode
        Put clean activations into the corrupt run (denoise), or corrupt ones into the clean run (noise).
    position
        Where the next word is read; the last position if not given.
    top
        How many nodes are listed.
    picture
        Also write the heat map as a picture to this file (.svg, .png or .pdf; needs matplotlib).
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    import lensing as ln
    from lensing.causal.attribute import attribute
    from lensing.causal.metrics import logit_difference
    from lensing.causal.patch import patch as run_patch

    loaded = ln.load_model(model, allow_pickle=allow_pickle)
    metric = logit_difference(loaded, right, wrong, position=position)
    if method == "patch":
        found = run_patch(loaded, clean, corrupt, metric, site=site, mode=mode, quiet=json)
    else:
        found = attribute(loaded, clean, corrupt, metric, site=site, mode=mode, method=method)
    if picture is not None:
        from lensing.plots import draw_heat

        rows, columns, values = found.grid()
        draw_heat(f"{site}: {found.metric}, {found.mode}", rows, columns, values.tolist(), picture)
    show(found, lambda console: _draw(found, console, top), as_json=json)


def _draw(found: Any, console: Console, top: int) -> None:
    from lensing.draw.heat import heat_table

    rows, columns, values = found.grid()
    if found.nodes.heads is None:
        room = max(console.width // 8, 2)
        console.print(heat_table(rows, columns[-room:], [row[-room:] for row in values.tolist()], found.nodes.kind))
    console.print(
        f"\n{found.metric}: {found.clean:+.3f} after the clean sentence, {found.corrupt:+.3f} after the corrupt one. "
        f"1 is the whole way between them ({found.mode}). Most of it:"
    )
    for name, effect in found.top(top):
        console.print(f"  {effect:+.3f}  {name}", soft_wrap=True)
