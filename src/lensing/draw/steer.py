"""Draw what a latent does at every strength, in a terminal of 100 columns."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

COLOURS = {"calm": "green", "strained": "yellow", "babble": "red"}
WORDS = 4  # next words shown at each strength


def draw_doses(doses: Any, console: Console) -> None:
    """Print a DoseResponse: the latent's table, its texts, and the directions beside it."""
    size = f"1 = {doses.unit_size:.3g}" if doses.mode in ("add", "clamp") else "a factor"
    if doses.mode == "ablate":
        size = "the share taken out"
    console.print(
        Text.assemble(("Latent ", "bold"), (str(doses.latent), "bold cyan"), f" of {doses.dictionary} at {doses.site}")
    )
    console.print(Text(f"  after: {doses.prompt}"))
    console.print(
        Text(
            f"  {doses.mode}, unit {doses.unit} ({size}), at {doses.at}; {doses.seeds} continuations of "
            f"{doses.new_tokens} tokens for each strength",
            style="dim",
        )
    )
    for name, words in doses.watch.items():
        console.print(Text(f"  P({name}): {', '.join(words)}", style="dim"))
    console.print(_main(doses, console.width))
    console.print(
        Text(
            "share: length of the change over the mean length there; cost: nats a token more than unsteered text,\n"
            f"strained from {doses.warning:g}, babble from {doses.babble:g}; side: KL in nats on other texts; imposs.: "
            "words that cannot be",
            style="dim",
        )
    )
    console.print()
    console.print(Text("What it writes (first seed)", style="bold"))
    for dose in doses.doses:
        line = Text(" ".join(dose.text.split()) or "(nothing)")
        line.truncate(2 * (console.width - 9), overflow="ellipsis")
        grid = Table.grid(padding=(0, 1))
        grid.add_column(justify="right", width=7)
        grid.add_column()
        grid.add_row(Text(_strength(dose.strength), style="bold " + COLOURS[dose.verdict]), line)
        console.print(grid)
    console.print()
    console.print(Text("The same length in other directions", style="bold"))
    console.print(_directions(doses))
    for sentence in doses.left_out:
        console.print(Padding(Text(f"left out: {sentence}", style="dim"), (0, 0, 0, 2)))


def _main(doses: Any, width: int) -> Table:
    """The latent's table; the next words get the columns that the numbers leave."""
    shown = doses.doses
    side = any(dose.side_effect is not None for dose in shown)
    impossible = any(dose.impossible is not None for dose in shown)
    heads = ["strength", "share", *(_short(f"P({name})", 14) for name in doses.watch)]
    tails = ["cost ± se", "", *(["side"] if side else []), *(["imposs."] if impossible else [])]
    rows = []
    for dose in shown:
        front = [
            _strength(dose.strength),
            f"{dose.share_of_norm:.2f}",
            *(f"{dose.watched[n]:.3f}" for n in doses.watch),
        ]
        back = [_cost(dose), dose.verdict]
        back += [_maybe(dose.side_effect, "{:.3f}")] if side else []
        back += [_maybe(dose.impossible, "{:.0%}")] if impossible else []
        rows.append(
            (front, "  ".join(f"{guess.word} {_p(guess.p)}" for guess in dose.table[:WORDS]), back, dose.verdict)
        )
    taken = sum(2 + max(map(len, column)) for column in zip(heads, *(r[0] for r in rows), strict=True))
    taken += sum(2 + max(map(len, column)) for column in zip(tails, *(r[2] for r in rows), strict=True))
    table = Table(box=None, padding=(0, 1), header_style="bold", pad_edge=False)
    for head in heads:
        table.add_column(Text(head), justify="right", no_wrap=True)
    table.add_column("next words", width=max(width - taken - 2, 12), no_wrap=True)
    for head in tails:
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for front, words, back, verdict in rows:
        colour = COLOURS[verdict]
        table.add_row(
            *map(Text, front),
            Text(words),
            Text(back[0], style=colour),
            Text(back[1], style=colour),
            *map(Text, back[2:]),
        )
    return table


def _directions(doses: Any) -> Table:
    """One row a strength, for every direction the first watched mass and the cost."""
    first = next(iter(doses.watch), None)
    table = Table(box=None, padding=(0, 1), header_style="bold", pad_edge=False)
    table.add_column("strength", justify="right")
    for direction in doses.directions:
        name = direction.name if direction.latent is None else f"{direction.name} {direction.latent}"
        table.add_column(f"{name}\n{f'P({first})' if first else 'top word'}   cost", justify="right")
    for i, dose in enumerate(doses.doses):
        cells = [Text(_strength(dose.strength))]
        for direction in doses.directions:
            one = direction.doses[i]
            seen = f"{one.watched[first]:.3f}" if first else f"{one.table[0].word} {one.table[0].p:.2f}"
            cells.append(Text.assemble(f"{seen} ", (f"{one.coherence_cost:+6.2f}", COLOURS[one.verdict])))
        table.add_row(*cells)
    return table


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _strength(value: float) -> str:
    return f"{value:g}"


def _cost(dose: Any) -> str:
    return f"{dose.coherence_cost:+.2f} ± {dose.se:.2f}" if dose.se == dose.se else f"{dose.coherence_cost:+.2f}"


def _p(value: float) -> str:
    text = f"{value:.2f}"
    return text.removeprefix("0")


def _maybe(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
