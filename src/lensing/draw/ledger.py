"""The ledger for the terminal: every line signed, with its error, as a bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lensing.draw.contexts import visible
from lensing.draw.pages import page

BAR, WORDS = 36, 8
FOR, AGAINST = "#2166ac", "#b2182b"


def draw_ledger(ledger: Any, console: Console) -> None:
    """Print a Ledger."""
    v = ledger.variance
    console.print(f"[bold]The ledger[/] of {ledger.dictionary} at {ledger.site} of {ledger.model}", soft_wrap=True)
    about = f"{v.n:,} tokens of {v.documents:,} documents of {ledger.text}, L0 {ledger.l0:.1f}"
    console.print(f"{about}. Shares of the variance; ± is a standard error.", soft_wrap=True)
    for title, lines in (("What would mend it, in this order", v.lines), ("What a linear probe tells of it", v.probe)):
        console.print(f"\n{title}", style="bold")
        console.print(_table([*lines, v.fvu], v.fvu.share))
    if ledger.seeds is not None:
        s = ledger.seeds
        console.print(f"\nWhat all {len(s.dictionaries)} seeds miss, and what each misses by chance", style="bold")
        console.print(_table([s.systematic, s.run_specific, s.fvu], s.fvu.share))
        console.print(f"Their mean output leaves {s.ensemble:.2%}.", soft_wrap=True)
    beside = ", ".join(f"{n} {'not computed' if x is None else f'{x:.1%}'}" for n, x in ledger.beside.items())
    console.print(f"\nLeft by tables that know only the words: {beside}.", soft_wrap=True)
    words = ", ".join(f"{visible(w).strip() or repr(w)} {s:.1%}" for w, s, _ in ledger.where.words[:WORDS])
    console.print(f"Words with most of the error: {words}.", soft_wrap=True)
    console.print(f"Engels' mean R2 {v.engels:.3f}; <e, x_hat> {v.orthogonal:+.2%} of the variance.")
    for sentence in (*v.warnings, *ledger.says):
        console.print(sentence, soft_wrap=True)


def _table(lines: Sequence[Any], whole: float) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 2), show_header=False)
    for justify in ("left", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)  # type: ignore[arg-type]
    most = max(*(abs(line.share) for line in lines), abs(whole), 1e-12)
    for line in lines:
        cells = round(abs(line.share) / most * BAR)
        last = line is lines[-1]
        bar = Text("█" * cells, "dim" if last else FOR if line.share >= 0 else AGAINST)
        name = f"together ({line.name})" if last else line.name
        table.add_row(name, f"{line.share:+.2%}", f"± {line.se:.2%}", bar)
    return table


def ledger_html(ledger: Any) -> str:
    """Return a Ledger as one HTML file that needs nothing else."""
    import html

    v = ledger.variance
    parts = [
        f"<h1>The ledger of {html.escape(ledger.dictionary)}</h1><p>{html.escape(ledger.text)}, {v.n:,} tokens</p>"
    ]
    tables = [
        ("What would mend it, in this order", v.lines, v.fvu),
        ("What a linear probe tells of it", v.probe, v.fvu),
    ]
    if ledger.seeds is not None:
        s = ledger.seeds
        tables.append(("What all seeds miss, and each by chance", (s.systematic, s.run_specific), s.fvu))
    for title, lines, whole in tables:
        most = max(abs(line.share) for line in (*lines, whole)) or 1.0
        rows = "".join(
            f'<tr><th scope="row">{line.name}</th><td class="n">{line.share:+.2%}</td>'
            f'<td class="n dim">± {line.se:.2%}</td>'
            f'<td><div style="width:{18 * abs(line.share) / most:.2f}rem;height:.8em;background:'
            f'{FOR if line.share >= 0 else AGAINST}"></div></td></tr>'
            for line in (*lines, whole)
        )
        parts.append(f"<h2>{title}</h2><table><tbody>{rows}</tbody></table>")
    parts += [f"<p>{html.escape(sentence)}</p>" for sentence in (*v.warnings, *ledger.says)]
    return page(f"The ledger of {ledger.dictionary}", "".join(parts))
