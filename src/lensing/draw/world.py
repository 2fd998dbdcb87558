"""Text of the world with its labels, and the report on the shipped model, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lensing.draw.cells import Grid, by_class
from lensing.draw.panels import indented, say, table
from lensing.draw.worldbars import bar_grid, tally
from lensing.draw.worldsections import Section, sections


def draw_document(console: Console, title: str, words: Sequence[str], rows: Sequence[dict[str, str]] | None) -> None:
    """Print a document; with `rows` one line a token, showing each label that changed there."""
    console.print(Text(title, style="bold"))
    if rows is None:
        console.print(Text(" ".join(words)), soft_wrap=False)
        return
    grid = Table("token", "labels that changed here", box=None, pad_edge=False, show_edge=False)
    before: dict[str, str] = {}
    for word, row in zip(words, rows, strict=True):
        changed = [f"{cls}: {value}" for cls, value in row.items() if before.get(cls) != value]
        grid.add_row(Text(word, style="cyan"), Text(", ".join(changed)))
        before = row
    console.print(grid)


def draw_report(report: Mapping[str, Any], console: Console) -> None:
    """Draw the world's report (plain values): bars, then every section that was measured, then what was not."""
    console.rule(f"{report.get('model') or 'a model'} and the world it read", align="left")
    if report.get("bars"):
        say(console, tally(report))
        console.print()
        _draw(bar_grid(report), console)
    found = sections(report)
    for section in found:
        if section.grids:
            _section(section, console)
            if section.key == "probes":
                _missing(report["probes"], console)
    absent = [section.title for section in found if not section.grids]
    if absent:
        console.print()
        say(console, f"Not measured: {'; '.join(absent)}.")


def _section(section: Section, console: Console) -> None:
    console.print()
    console.print(Text(section.title, style="bold"))
    say(console, section.read, "dim")
    for sentence in section.bars:
        say(console, f"Bar: {sentence}")
    for grid in section.grids:
        console.print()
        if grid.title:
            say(console, grid.title, "dim")
        _draw(grid, console)


def _draw(grid: Grid, console: Console) -> None:
    right = [i for i in range(len(grid.headers)) if i not in grid.words]
    shown = table(*grid.headers, right=right)
    for i, column in enumerate(shown.columns):
        if i == grid.wrapped:
            column.no_wrap = False
        elif i in right:  # numbers are never cut: where there is too little room, words are
            column.min_width = max((len(row[i]) for row in grid.rows), default=0)
    for row in grid.rows:
        shown.add_row(*(Text(cell) for cell in row))
    console.print(indented(shown))


def _missing(probes: Mapping[str, Any], console: Console) -> None:
    names, refused = probes.get("missing") or [], probes.get("refused") or {}
    if names:
        classes = ", ".join(f"{cls} {len(values)}" for cls, values in by_class(names).items())
        console.print()
        say(console, f"{len(names):,} concepts were probed and are not had: {classes}.")
    if refused:
        say(console, f"{len(refused):,} concepts could not be probed.")
