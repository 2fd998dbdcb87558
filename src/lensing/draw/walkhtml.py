"""The walk as one HTML file that needs nothing else: nine beats, and a slider over the strengths that were tried."""

from __future__ import annotations

import html
import json
from typing import Any

from lensing.draw.cells import fixed, number
from lensing.draw.contexts import visible
from lensing.draw.image import shape
from lensing.draw.pages import COLD, DARK, WARM, contexts_html, page, tint, tokens_html

SLIDE = """
const doses = JSON.parse(document.getElementById("doses")?.textContent ?? "[]");
const range = document.querySelector("input[type=range]");
function show() {
  const d = doses[+range.value];
  document.getElementById("strength").textContent = `×${d.strength} · ${d.verdict}, ${d.cost} nats a token`;
  document.getElementById("next").replaceChildren(...d.table.map(g => {
    const row = document.createElement("tr"), word = document.createElement("th"), p = document.createElement("td");
    word.scope = "row", word.textContent = g.word, p.className = "n", p.textContent = (100 * g.p).toFixed(1) + "%";
    row.append(word, p);
    return row;
  }));
  document.getElementById("said").textContent = d.text;
}
if (range) { range.oninput = show; show(); }
"""


def walk_html(walk: Any) -> str:
    """Return a Walk as a page."""
    b = walk.beyond
    beats = [_tokens(walk), _vectors(walk), _lens(walk)]
    if b is None:
        beats.append(f"<p>{html.escape(walk.missing or '')}</p>")
    else:
        beats += [_neuron(b), _latents(b), _followed(b), _splice(b), _steering(b), _ledger(b)]
    with_what = f", with {html.escape(b.dictionary)}" if b is not None else ""
    head = (
        f"<h1>{html.escape(walk.prompt)}</h1><p class='dim'>The walk through {html.escape(walk.model)}{with_what}</p>"
    )
    return page(f"The walk: {walk.prompt}", head + "".join(beats), SLIDE)


def _beat(n: int, title: str, body: str, about: str = "") -> str:
    said = f'<p class="dim">{about}</p>' if about else ""
    return f"<section><h2>{n} {html.escape(title)}</h2>{said}{body}</section>"


def _tokens(walk: Any) -> str:
    cells = "".join(
        f'<td>{html.escape(visible(t.text))}<br><small class="dim">{t.id}</small></td>' for t in walk.tokens
    )
    return _beat(1, "Tokens", f'<div class="scroll"><table><tr>{cells}</tr></table></div>')


def _vectors(walk: Any) -> str:
    pictures = []
    for site, rows in walk.vectors.items():
        values = rows[-1].tolist()
        height, width = shape(len(values))
        full = 2.5 * (sum(v * v for v in values) / len(values)) ** 0.5 or 1.0
        squares = "".join(
            f'<rect x="{i % width}" y="{i // width}" width="1" height="1" fill="rgb{WARM if v > 0 else COLD}" '
            f'fill-opacity="{min(abs(v) / full, 1.0):.2f}"/>'
            for i, v in enumerate(values)
        )
        name = html.escape(site)
        pictures.append(
            f'<figure style="margin:0"><svg width="110" height="110" viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{name}" shape-rendering="crispEdges">{squares}</svg><figcaption>{name}</figcaption></figure>'
        )
    about = "The residual stream at the last word, drawn as a square: orange above zero, blue below."
    return _beat(2, "One vector through the layers", f'<div class="row">{"".join(pictures)}</div>', about)


def _lens(walk: Any) -> str:
    head = "".join(f'<th scope="col">{html.escape(visible(t.text))}</th>' for t in walk.tokens)
    rows = []
    for layer, cells in zip(walk.lens.layers, walk.lens.cells(), strict=True):
        tds = "".join(
            f'<td style="{tint(p, 1.0)}" title="{p:.1%}, KL {kl:.2f}">{html.escape(visible(w))}</td>'
            for w, p, kl in cells
        )
        rows.append(f'<tr><th scope="row">{"embed" if layer < 0 else layer}</th>{tds}</tr>')
    top = f"<thead><tr><th>layer</th>{head}</tr></thead>"
    body = f'<div class="scroll"><table>{top}<tbody>{"".join(rows)}</tbody></table></div>'
    since = "the embedding" if walk.lead_layer < 0 else f"layer {walk.lead_layer}"
    return _beat(
        3, "Every layer's guess", body, f"What each layer would say next; the final word leads from {since} on."
    )


def _neuron(b: Any) -> str:
    if b.neuron is None:
        return ""
    n = b.neuron
    most = max((abs(c.value) for c in (*n.top, *n.bottom)), default=1.0)
    body = f"<h3>above zero</h3>{contexts_html(n.top, most)}<h3>below zero</h3>{contexts_html(n.bottom, most)}"
    return _beat(4, "One neuron that means many things", body, f"Neuron {n.index} of {html.escape(n.site)}.")


def _latents(b: Any) -> str:
    rows = []
    labels = {x.id: x.label for x in b.latents}
    top = list(b.effects.by_effect()[:14])
    for e in top if b.effects.error in top else [*top, b.effects.error]:  # what is missed is never left out
        name = e.kind if e.latent is None else str(e.latent)
        label = labels.get(e.latent) or ("what the dictionary misses" if e.kind == "error" else "")
        rows.append(
            f'<tr><th scope="row">{name}</th><td>{html.escape(label)}</td><td class="n">{number(e.activation, 3)}</td>'
            f'<td class="n">{e.effect:+.3f}</td></tr>'
        )
    body = (
        '<table><thead><tr><th>latent</th><th>label</th><th class="n">activation</th><th class="n">without it</th></tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table>"
    )
    about = f"Each part taken out alone: the change of ln p(“{html.escape(b.effects.target_word.strip())}”)."
    return _beat(5, "Latents that mean one thing", body, about)


def _followed(b: Any) -> str:
    one = b.followed
    about = f"Latent {one.id}{f', {html.escape(one.label)}' if one.label else ''}: where it is strongest."
    return _beat(6, f"What latent {one.id} fires on", contexts_html(one.examples, one.max), about)


def _splice(b: Any) -> str:
    s = b.splice
    rows = "".join(
        f'<tr><th scope="row">{html.escape(visible(w.word))}</th><td class="n">{w.before:.1%}</td>'
        f'<td class="n">{w.after:.1%}</td></tr>'
        for w in s.words
    )
    body = (
        '<table><thead><tr><th>next word</th><th class="n">model</th><th class="n">spliced</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    about = (
        f"The model on the dictionary's output: KL {fixed(s.kl)} nats at the last word, {fixed(s.kl_mean)} on average."
    )
    return _beat(7, "The splice", body, about)


def _steering(b: Any) -> str:
    doses = [
        {"strength": d.strength, "verdict": d.verdict, "cost": round(d.coherence_cost, 2), "text": d.text,
         "table": [{"word": g.word, "p": g.p} for g in d.table[:8]]}
        for d in b.steering.doses
    ]  # fmt: skip
    data = json.dumps(doses).replace("<", "\\u003c")
    start = min(range(len(doses)), key=lambda i: abs(doses[i]["strength"] - 2))
    body = (
        f'<p><label>Strength <input type="range" min="0" max="{len(doses) - 1}" value="{start}"></label> '
        '<output id="strength"></output></p><table><caption>The next word</caption><tbody id="next"></tbody></table>'
        f'<blockquote id="said"></blockquote><script type="application/json" id="doses">{data}</script>'
    )
    return _beat(
        8, "Turn it up", body, f"Latent {b.latent} written into every word, in units of its largest activation."
    )


def _ledger(b: Any) -> str:
    tokens = [e.token for e in b.ledger]
    values = [e.not_reconstructed for e in b.ledger]
    shares = "".join(f'<td class="n">{"–" if v is None else f"{v:.0%}"}</td>' for v in values)
    names = "".join(f"<td>{html.escape(visible(t))}</td>" for t in tokens)
    body = (
        f'<p style="font-size:1.2em">{tokens_html(tokens, values, most=1.0, end=DARK)}</p>'
        f'<div class="scroll"><table><tr>{names}</tr><tr>{shares}</tr></table></div><p>{html.escape(b.says)}</p>'
    )
    return _beat(
        9, "The ledger of this sentence", body, "The darker a word, the more of its vector is not reconstructed."
    )
