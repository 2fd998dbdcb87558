"""Vectors as square images, two pixels to a character: blue below zero, white at zero, red above."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

FULL = 2.5  # times the image's root mean square: from here on a colour is full
BLUE, WHITE, RED = (33, 102, 172), (247, 247, 247), (178, 24, 43)
GAP = 2


def shape(n: int) -> tuple[int, int]:
    """Return rows and columns of the rectangle nearest to a square; a last row may stay short of prime-like numbers."""
    rows = next(r for r in range(math.isqrt(n), 0, -1) if n % r == 0)
    if n <= 2 * rows * rows:
        return rows, n // rows
    columns = math.isqrt(n - 1) + 1
    return -(-n // columns), columns


def image(vector: Sequence[float], console: Console) -> list[Text]:
    """Draw one vector, rows of pixels from the top left; each colour is relative to the vector's root mean square."""
    rows, columns = shape(len(vector))
    scale = FULL * math.sqrt(sum(v * v for v in vector) / len(vector)) or 1.0
    pixels: list[float | None] = [v / scale for v in vector] + [None] * (rows * columns - len(vector))
    grid = [pixels[r * columns : (r + 1) * columns] for r in range(rows)]
    if console.color_system is None:
        return [Text("".join(_mark(v) for v in row)) for row in grid]
    lines = []
    for r in range(0, rows, 2):
        below = grid[r + 1] if r + 1 < rows else [None] * columns
        lines.append(Text.assemble(*(_pixels(a, b) for a, b in zip(grid[r], below, strict=True))))
    return lines


def images(named: Sequence[tuple[str, Sequence[float], str]], console: Console) -> list[Text]:
    """Draw (title, vector, caption) side by side, evenly chosen (first and last always) where not all fit."""
    columns = max(shape(len(vector))[1] for _, vector, _ in named)
    width = max(columns, *(len(text) for title, _, caption in named for text in (title, caption)))
    room = max((console.width + GAP) // (width + GAP), 1)
    if room < len(named):
        last = len(named) - 1
        named = [named[round(i * last / (room - 1))] for i in range(room)] if room > 1 else [named[last]]
    drawn = [image(vector, console) for _, vector, _ in named]
    lines = [_row([Text(title, style="bold") for title, _, _ in named], width)]
    for i in range(max(map(len, drawn))):
        lines.append(_row([d[i] if i < len(d) else Text() for d in drawn], width))
    lines.append(_row([Text(caption, style="dim") for _, _, caption in named], width))
    return lines


def _row(cells: Sequence[Text], width: int) -> Text:
    line = Text()
    for cell in cells:
        line.append_text(cell)
        line.append(" " * (width - cell.cell_len + GAP))
    line.rstrip()
    return line


def _pixels(above: float | None, below: float | None) -> tuple[str, Style]:
    if above is None:
        return " ", Style()
    if below is None:
        return "▀", Style(color=_colour(above))
    return "▀", Style(color=_colour(above), bgcolor=_colour(below))


def _colour(v: float) -> Color:
    end, share = (RED if v > 0 else BLUE), min(abs(v), 1.0)
    return Color.from_rgb(*(w + (e - w) * share for w, e in zip(WHITE, end, strict=True)))


def _mark(v: float | None) -> str:
    """What a pixel is without colour: + and # above zero, - and = below, a dot near it."""
    if v is None:
        return " "
    return "·" if abs(v) < 0.25 else "#" if v > 0.7 else "=" if v < -0.7 else "+" if v > 0 else "-"
