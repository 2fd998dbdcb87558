"""`lensing heads`: which heads are induction, previous-token and duplicate-token heads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensing.cli.show import show

if TYPE_CHECKING:
    from rich.console import Console


def heads(
    *,
    model: str = "almanac",
    length: int = 32,
    texts: int = 16,
    above: float = 0.4,
    seed: int = 0,
    kind: str = "induction",
    picture: Path | None = None,
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """Score every attention head on random tokens said twice.

    Parameters
    ----------
    model
        A shipped model, a folder, or a hub id.
    length
        How many random tokens are said twice.
    texts
        How many such texts.
    above
        Heads with more of their attention than this where their kind looks are listed.
    seed
        Seed of the random tokens.
    kind
        What the heat map shows: induction, previous, duplicate, current or first.
    picture
        Also write the heat map as a picture to this file (.svg, .png or .pdf; needs matplotlib).
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    import lensing as ln
    from lensing.causal.heads import head_scores

    found = head_scores(ln.load_model(model, allow_pickle=allow_pickle), length=length, texts=texts, seed=seed)
    values = found.of(kind).tolist()
    columns = [f"head {h}" for h in range(len(values[0]))]
    if picture is not None:
        from lensing.plots import draw_heat

        draw_heat(f"{kind} scores", [str(layer) for layer in found.layers], columns, values, picture)
    show(found, lambda console: _draw(found, console, kind, above, columns), as_json=json)


def _draw(found: Any, console: Console, kind: str, above: float, columns: list[str]) -> None:
    from lensing.causal.heads import KINDS
    from lensing.draw.heat import heat_table

    console.print(heat_table([str(layer) for layer in found.layers], columns, found.of(kind).tolist(), kind))
    console.print(
        f"\nLoss {found.loss_first:.2f} nats on {found.length} random tokens, {found.loss_second:.2f} when they are "
        "said again."
    )
    for name in KINDS:
        some = ", ".join(
            f"L{layer}H{head} {score:.2f} ± {float(found.se[name][found.layers.index(layer), head]):.2f}"
            for layer, head, score in found.heads(name, above)
        )
        console.print(f"  {name}: {some or 'none'} (above {above:g})", soft_wrap=True)
