"""Heat maps of signed numbers: red below zero, white at zero, blue above."""

from __future__ import annotations

import html
from collections.abc import Sequence

from rich.style import Style
from rich.table import Table
from rich.text import Text

from lensing.draw.charts import finite
from lensing.draw.lens import visible

BELOW, ZERO, ABOVE = (178, 24, 43), (250, 250, 250), (33, 102, 172)


def colour(value: float | None, most: float) -> tuple[str, str]:
    """The colour of a value whose largest size is `most`, and that of text upon it; grey where there is no number."""
    value = finite(value)
    if value is None:
        return "#9e9e9e", "#1a1a1a"
    share = min(abs(value) / most, 1.0) if most else 0.0
    end = ABOVE if value >= 0 else BELOW
    rgb = [round(a + (b - a) * share) for a, b in zip(ZERO, end, strict=True)]
    return "#" + "".join(f"{c:02x}" for c in rgb), "#ffffff" if share > 0.6 else "#1a1a1a"


def largest(values: Sequence[Sequence[float]]) -> float:
    """The largest size of a number among the values."""
    return max((abs(v) for row in values for v in row if finite(v) is not None), default=0.0)


def heat_table(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]], corner: str) -> Table:
    """Return a heat map as a table for the terminal, the last row on top."""
    most = largest(values)
    table = Table(box=None, padding=0, header_style="dim")
    table.add_column(corner, justify="right", style="dim")
    for name in columns:
        table.add_column(visible(name), justify="center", no_wrap=True, overflow="ellipsis", min_width=6, max_width=10)
    for name, row in reversed(list(zip(rows, values, strict=True))):
        cells = []
        for value in row:
            back, front = colour(value, most)
            cells.append(
                Text(f"{value:^+6.2f}" if finite(value) is not None else "  –   ", Style(color=front, bgcolor=back))
            )
        table.add_row(name + " ", *cells)
    return table


def heat_html(title: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """Return a heat map as an HTML table, the last row on top, each number where the pointer rests."""
    most = largest(values)
    head = "".join(f"<th scope='col' style='padding:1px 4px'>{html.escape(visible(c))}</th>" for c in columns)
    body = []
    for name, row in reversed(list(zip(rows, values, strict=True))):
        cells = []
        for column, value in zip(columns, row, strict=True):
            back, front = colour(value, most)
            shown = "–" if finite(value) is None else f"{value:+.2f}"
            title_ = html.escape(f"{name}, {column}: {shown}", quote=True)
            cells.append(f"<td title='{title_}' style='background:{back};color:{front};padding:1px 4px'>{shown}</td>")
        body.append(f"<tr><th scope='row' style='padding:1px 4px'>{html.escape(name)}</th>{''.join(cells)}</tr>")
    return (
        "<div style='overflow-x:auto'><table style='border-collapse:collapse;font-size:11px;text-align:center'>"
        f"<caption style='text-align:left'>{html.escape(title)}</caption><thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def pattern_html(title: str, tokens: Sequence[str], pattern: Sequence[Sequence[float]]) -> str:
    """Return a head's attention pattern as an HTML table: each row a token that looks, each column one looked at."""
    most = largest(pattern) or 1.0
    names = [html.escape(visible(token.strip() or token), quote=True) for token in tokens]
    style = "writing-mode:vertical-rl;transform:rotate(180deg);font-weight:normal;padding:2px 0"
    head = "".join(f"<th scope='col' style='{style}'>{name}</th>" for name in names)
    body = []
    for i, (name, row) in enumerate(zip(names, pattern, strict=True)):
        cells = "".join(
            f"<td title='{name} looks at {other}: {value:.2f}' "
            f"style='background:{colour(value, most)[0]};min-width:15px;height:15px;padding:0'></td>"
            for other, value in zip(names[: i + 1], row, strict=False)
        )
        body.append(
            f"<tr><th scope='row' style='font-weight:normal;text-align:right;padding:0 4px'>{name}</th>{cells}</tr>"
        )
    return (
        "<div style='overflow-x:auto'><table style='border-collapse:collapse;font-size:11px;width:auto'>"
        f"<caption style='text-align:left'>{html.escape(title)}</caption><thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )
