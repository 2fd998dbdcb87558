"""`lensing lens`: what each layer would say, word by word."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensing.cli.show import show

if TYPE_CHECKING:
    from rich.console import Console


def lens(
    prompt: str,
    /,
    *,
    model: str = "almanac",
    tuned: str | None = None,
    answer: str | None = None,
    top: int = 5,
    picture: Path | None = None,
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """Read every layer's guess at every position, and follow the answer through the layers.

    Parameters
    ----------
    prompt
        The sentence, in quotes.
    model
        A shipped model, a folder, or a hub id.
    tuned
        The folder of a tuned lens (config.json and params.pt), or almanac for the shipped one; the logit lens if not
        given.
    answer
        The word to follow at the last position, by its first token; the model's own likeliest word if not given.
    top
        How many words each layer says in the JSON.
    picture
        Also write the grid as a picture to this file (.svg, .png or .pdf; needs matplotlib).
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    import lensing as ln
    from lensing.lens.lens import Lens, lens_grid
    from lensing.lens.tuned import load_lens

    loaded = ln.load_model(model, allow_pickle=allow_pickle)
    chosen = load_lens(tuned) if tuned is not None else Lens()
    grid = lens_grid(loaded, prompt, chosen, top=min(top, loaded.d_vocab), answer=answer)
    if picture is not None:
        from lensing.plots import draw_lens

        draw_lens(grid.tokens[0], grid.layers, grid.cells(), picture)
    show(grid, lambda console: _draw(grid, console), as_json=json)


def _draw(grid: Any, console: Console) -> None:
    from lensing.draw.cells import fixed
    from lensing.draw.lens import grid_table, layer_name, visible

    console.print(grid_table(grid.tokens[0], grid.layers, grid.cells(), columns=max(console.width // 11, 2)))
    lead, word = grid.lead_layer(), grid.words[int(grid.answer[0, -1])]
    console.print(f"\nThe last position, layer by layer, and '{visible(word)}' in it ({grid.kind} lens):", style="bold")
    for at in grid.trajectory():
        console.print(
            f"{layer_name(at['layer']):>6}  says {visible(at['word']):16} p('{visible(word)}') {fixed(at['answer_p'])}"
            f"  rank {at['rank']:>5}  entropy {fixed(at['entropy'])}  KL to the model {fixed(at['kl'])}"
        )
    console.print(f"\nThe model's word leads for good from {'the embedding' if lead < 0 else f'layer {lead}'} on.")
