"""Contexts, one a line, their strongest tokens under one another and every token coloured by its strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

LEFT = 52  # columns before the strongest token, on a console of 100
POSITIVE, NEGATIVE, PALE = (255, 158, 61), (110, 168, 254), (250, 243, 232)
FAINT = 0.15  # share of the strongest below which a token has no colour


def context_lines(contexts: Sequence[Any], console: Console) -> list[Text]:
    """Draw contexts (of `tokens`, `values`, `peak`, `value`): value, text before, the strongest token, text after."""
    largest = max((abs(c.value) for c in contexts), default=1.0) or 1.0
    left = LEFT * console.width // 100
    lines = []
    for c in contexts:
        before, after = Text(), Text()
        for i, (token, value) in enumerate(zip(c.tokens, c.values, strict=True)):
            into = before if i < c.peak else after
            into.append_text(_token(token, value / largest, i == c.peak, value * c.value > 0, console))
        while before.cell_len > left:
            before = before[before.cell_len - left :]
        line = Text(f"  {c.value:+7.2f}  ", style="bold")
        line = Text.assemble(line, " " * (left - before.cell_len), before, after)
        line.truncate(console.width, overflow="ellipsis")
        lines.append(line)
    return lines


def visible(token: str) -> str:
    """Return a token with its line breaks and tabs made visible."""
    return token.replace("\n", "↵").replace("\t", "⇥").replace("\r", "")


def _token(token: str, share: float, peak: bool, same_sign: bool, console: Console) -> Text:
    shown = visible(token)
    space, word = shown[: len(shown) - len(shown.lstrip(" "))], shown.lstrip(" ")
    if not word:
        space, word = "", shown
    if console.color_system is None:
        return Text(f"{space}[{word}]" if peak else shown)
    if not same_sign or abs(share) < FAINT:
        return Text(shown)
    end = POSITIVE if share > 0 else NEGATIVE
    colour = Color.from_rgb(*(a + (b - a) * min(abs(share), 1.0) for a, b in zip(PALE, end, strict=True)))
    # black on a pale colour reads alike in light and dark terminals
    style = Style(color=Color.from_rgb(0, 0, 0), bgcolor=colour, bold=peak)
    return Text.assemble(space, (word, style))
