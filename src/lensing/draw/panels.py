"""The parts that every beat of the walk is drawn from."""

from __future__ import annotations

from collections.abc import Container

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


def rule(console: Console, number: int | str, title: str) -> None:
    """Print a beat's number and title with a line to the right edge."""
    console.print()
    text = Text.assemble((f" {number}  ", "bold cyan"), (title + " ", "bold"))
    console.print(text, Text("─" * max(console.width - text.cell_len - 1, 0), style="dim"), sep="", no_wrap=True)


def say(console: Console, sentence: str, style: str = "") -> None:
    """Print a sentence of what is seen, wrapped and indented."""
    console.print(Padding(Text(sentence, style=style), (0, 2, 0, 2)))


def table(*headers: str, right: Container[int] = (), grow: int | None = None) -> Table:
    """Return a table without lines, columns in `right` set to the right; column `grow` takes what room is left."""
    grid = Table(
        box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_header=any(headers),
        expand=grow is not None,
    )  # fmt: skip
    for i, header in enumerate(headers):
        side = "right" if i in right else "left"
        grid.add_column(Text(header), justify=side, no_wrap=True, overflow="ellipsis", ratio=1 if i == grow else None)
    return grid


def indented(grid: Table) -> Padding:
    """Return a table where sentences begin."""
    return Padding(grid, (0, 0, 0, 2))


def bar(share: float, width: int) -> Text:
    """Return a line of half characters, `share` of `width` long."""
    halves = round(min(max(share, 0.0), 1.0) * width * 2)
    return Text("━" * (halves // 2) + "╸" * (halves % 2), style="cyan")
