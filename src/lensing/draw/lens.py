"""The lens grid: layers by positions, the word that each cell would say, shaded by how sure it is."""

from __future__ import annotations

import html
from collections.abc import Sequence

from rich.style import Style
from rich.table import Table
from rich.text import Text

Cell = tuple[str, float, float]  # top word, its probability, KL(model || layer) in nats
SHADES = ((250, 250, 250), (33, 102, 172))  # sure of nothing, sure


def layer_name(layer: int) -> str:
    """What a row of the grid is called: a block, or what enters the first."""
    return "embed" if layer < 0 else str(layer)


def shade(p: float) -> tuple[str, str]:
    """The colour of a probability and that of text upon it, as #rrggbb."""
    p = min(max(p, 0.0), 1.0)
    rgb = [round(a + (b - a) * p) for a, b in zip(*SHADES, strict=True)]
    return "#" + "".join(f"{c:02x}" for c in rgb), "#ffffff" if p > 0.55 else "#1a1a1a"


def visible(word: str) -> str:
    """A token as one short word: spaces and line ends that would not be seen are shown."""
    shown = word.replace("\n", "⏎").replace("\t", "⇥")
    return shown.strip() or ("␣" * len(shown) if shown else "∅")


def grid_table(tokens: Sequence[str], layers: Sequence[int], cells: Sequence[Sequence[Cell]], columns: int) -> Table:
    """Return the grid as a table for the terminal: the last `columns` positions, deepest layer first."""
    first = max(len(tokens) - columns, 0)
    table = Table(title=None, box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("layer", justify="right", style="dim")
    for token in tokens[first:]:
        table.add_column(visible(token), no_wrap=True, overflow="ellipsis", max_width=12)
    for layer, row in sorted(zip(layers, cells, strict=True), key=lambda pair: -pair[0]):
        words = []
        for word, p, _ in row[first:]:
            back, front = shade(p)
            words.append(Text(visible(word), style=Style(color=front, bgcolor=back)))
        table.add_row(layer_name(layer), *words)
    return table


def grid_html(tokens: Sequence[str], layers: Sequence[int], cells: Sequence[Sequence[Cell]]) -> str:
    """Return the grid as an HTML table: deepest layer first, probability and KL where the pointer rests."""
    head = "".join(f"<th scope='col' style='padding:2px 6px'>{html.escape(visible(t))}</th>" for t in tokens)
    body = []
    for layer, row in sorted(zip(layers, cells, strict=True), key=lambda pair: -pair[0]):
        boxes = []
        for word, p, kl in row:
            back, front = shade(p)
            title = html.escape(f"{word!r}: {p:.1%}, KL to the model {kl:.3f} nats", quote=True)
            boxes.append(
                f"<td title='{title}' style='background:{back};color:{front};padding:2px 6px;text-align:left'>"
                f"{html.escape(visible(word))}</td>"
            )
        body.append(f"<tr><th scope='row' style='padding:2px 6px'>{layer_name(layer)}</th>{''.join(boxes)}</tr>")
    return (
        "<div style='overflow-x:auto'><table style='border-collapse:collapse;font-size:12px;white-space:nowrap'>"
        f"<thead><tr><th scope='col'>layer</th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )
