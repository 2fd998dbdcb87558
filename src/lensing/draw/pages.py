"""Whole pages that need nothing else: tokens with colours, one latent, a table of latents; for files and notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lensing.draw.cells import number
from lensing.draw.contexts import visible

WARM, COLD, DARK = (214, 96, 26), (38, 104, 190), (92, 80, 128)
STYLE = """
:root { color-scheme: light dark; --ink: #1d1b19; --paper: #fff; --dim: #63605b; --line: #dedad4; }
@media (prefers-color-scheme: dark) { :root { --ink: #ece9e4; --paper: #17161a; --dim: #a8a39b; --line: #3a383d; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 70rem;
  margin: 1.5rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 0.92em; } td, th { padding: 0.12rem 0.6rem; text-align: left;
  border-bottom: 1px solid var(--line); vertical-align: top; } td.n, th.n { text-align: right;
  font-variant-numeric: tabular-nums; } .dim { color: var(--dim); }
.row { display: flex; flex-wrap: wrap; gap: 1.5rem; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin: 1.3em 0 0.3em; } .scroll { overflow-x: auto; }
.ctx { display: grid; grid-template-columns: 3.5rem minmax(0, 1fr); gap: 0.6rem; line-height: 1.7;
  border-bottom: 1px solid var(--line); } .ctx span.t { border-radius: 3px; padding: 0.08em 0.05em; }
.peak { font-weight: 700; text-decoration: underline; } a { color: #a8440c; }
@media (prefers-color-scheme: dark) { a { color: #ffa36b; } }
.bars { display: flex; align-items: end; height: 56px; gap: 1px; } .bars i { flex: 1 0 2px; background: #d6601a; }
"""


def page(title: str, body: str, script: str = "") -> str:
    """Return a whole HTML file."""
    code = f"<script>{script}</script>" if script else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main>{body}</main>{code}</body></html>\n"
    )


def tint(value: float | None, most: float, end: tuple[int, int, int] | None = None) -> str:
    """The background of a token, nothing where its value is none or slight."""
    share = min(abs(value or 0.0) / most, 1.0) if most else 0.0
    if share < 0.01:
        return ""
    r, g, b = end or (WARM if (value or 0.0) > 0 else COLD)
    return f"background:rgba({r},{g},{b},{0.08 + 0.55 * share:.2f})"


def tokens_html(
    tokens: Sequence[str], values: Sequence[float | None], *, most: float | None = None, peak: int | None = None,
    end: tuple[int, int, int] | None = None,
) -> str:  # fmt: skip
    """Return tokens in a line, each tinted by its value (if any), which shows where the pointer rests."""
    top = most if most is not None else max((abs(v) for v in values if v is not None), default=0.0)
    parts = []
    for i, (token, value) in enumerate(zip(tokens, values, strict=True)):
        shown = visible(token)
        space, word = (" ", shown[1:]) if len(shown) > 1 and shown.startswith(" ") else ("", shown)
        style = tint(value, top, end)
        if not style and i != peak:
            parts.append(f"{space}{html.escape(word)}")
            continue
        kind = "t peak" if i == peak else "t"
        styled = f' style="{style}"' if style else ""
        title = number(value, 3)
        parts.append(f'{space}<span class="{kind}" title="{title}"{styled}>{html.escape(word)}</span>')
    return "".join(parts)


def contexts_html(contexts: Iterable[Any], most: float) -> str:
    """Return contexts (of `tokens`, `values`, `peak`, `value`), one a line."""
    return "".join(
        f'<div class="ctx"><span class="dim n">{number(c.value, 3)}</span><span>'
        f"{tokens_html(c.tokens, c.values, most=most, peak=c.peak)}</span></div>"
        for c in contexts
    )


def bars_html(counts: Sequence[int], edges: tuple[float, float], name: str) -> str:
    """Return a histogram, its heights by the square root."""
    low, high = edges
    most = max(counts, default=0) ** 0.5 or 1.0
    bars = "".join(f'<i style="height:{100 * n**0.5 / most:.0f}%" title="{n}"></i>' for n in counts)
    return (
        f'<figure style="margin:0;flex:1 1 18rem"><div class="bars" role="img" aria-label="{html.escape(name)}">'
        f"{bars}</div>"
        f'<figcaption class="dim">{number(low, 3)} … {html.escape(name)} … {number(high, 3)}</figcaption></figure>'
    )


def latent_html(one: Any, *, label: str | None = None, contexts: int = 20) -> str:
    """Return a latent of an index as HTML: statistics, words, contexts by quantile."""
    said = f"<p>{html.escape(label)}</p>" if label else ""
    if not one.count:
        return f"<h1>Latent {one.latent}</h1>{said}<p>It never fires on this text.</p>"
    words = _words("fires on", ((w, f"{r:.0%} of its places, {p:.0%} of the word's") for w, _, p, r in one.fires_on))
    for name, some in (("speaks for", one.promoted), ("speaks against", one.suppressed)):
        words += _words(name, ((w, f"{v:+.2f}") for w, v in some))
    groups = "".join(
        f"<h2>{'Strongest contexts' if n == 0 else f'Quantile {n} of {len(one.groups) - 1} of the rest'} "
        f'<span class="dim">peaks {number(g.low, 3)} to {number(g.high, 3)}, {g.n:,} distinct contexts, '
        f"{'–' if g.mass != g.mass else f'{g.mass:.1%}'} of all activation</span></h2>"
        + contexts_html(g.examples[: contexts if n == 0 else 5], one.max)
        for n, g in enumerate(one.groups)
    )
    charts = bars_html(one.histogram, one.histogram_edges, "activations")
    if one.logit_histogram_edges is not None:
        charts += bars_html(one.logit_histogram, one.logit_histogram_edges, "logits of all words")
    return (
        f"<h1>Latent {one.latent}</h1>{said}<p>It fires on {one.count:,} tokens ({one.density:.3%}), mean "
        f'{number(one.mean, 3)}, at most {number(one.max, 3)}.</p><div class="row">{charts}</div>'
        f'<div class="row">{words}</div>{groups}'
    )


def _words(name: str, rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(
        f'<tr><th scope="row">{html.escape(visible(w))}</th><td class="n">{html.escape(v)}</td></tr>' for w, v in rows
    )
    return f"<table><caption>{name}</caption><tbody>{body}</tbody></table>" if body else ""


SORT = """
document.querySelectorAll("th button").forEach((button, column) => button.onclick = () => {
  const body = document.querySelector("tbody"), down = button.dataset.down !== "1";
  button.dataset.down = down ? "1" : "";
  const key = row => {
    const v = row.children[column].dataset.v ?? row.children[column].textContent;
    return isNaN(v) ? v : +v;
  };
  const order = (a, b) => (key(a) > key(b) ? 1 : key(a) < key(b) ? -1 : 0) * (down ? -1 : 1);
  [...body.rows].sort(order).forEach(row => body.append(row));
});
document.querySelector("input").oninput = e => document.querySelectorAll("tbody tr").forEach(
  row => row.hidden = !row.textContent.toLowerCase().includes(e.target.value.toLowerCase()));
"""


def table_page(title: str, about: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return a page with all latents in a table that sorts and filters by itself."""
    head = "".join(f'<th scope="col"{" class=n" if c != "label" else ""}><button>{c}</button></th>' for c in columns)
    body = []
    for row in rows:
        cells = [f'<td><a href="latent/{row["latent"]}.html">{row["latent"]}</a></td>']
        for name in columns[1:]:
            value = row[name]
            if isinstance(value, str):
                cells.append(f"<td>{html.escape(value)}</td>")
            else:
                cells.append(f'<td class="n" data-v="{value}">{number(value, 3)}</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    return page(
        title,
        f"<h1>{html.escape(title)}</h1><p>{html.escape(about)}</p><p><label>Filter <input></label></p>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>',
        SORT,
    )
