"""Draw the walk in a terminal of 100 columns: nine beats, each a rule, a sentence of what is seen, and the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from lensing.draw.contexts import visible
from lensing.draw.image import images, shape
from lensing.draw.latents import active_latents, one_latent, one_neuron
from lensing.draw.panels import bar, indented, rule, say, table
from lensing.draw.steer import COLOURS

LAYERS, GUESSES, ENTRIES = 14, 5, 16  # rows of the lens, words of each, rows of the ledger
BAR = 18  # columns of a bar


def draw_walk(walk: Any, console: Console) -> None:
    """Print a Walk."""
    heading = Text.assemble(("The walk", "bold"), f"  {walk.model}")
    if walk.beyond is not None:
        heading.append(f"  with {walk.beyond.dictionary}", style="dim")
    console.print(heading)
    _tokens(walk, console)
    _vectors(walk, console)
    _lens(walk, console)
    if walk.beyond is None:
        rule(console, "4-9", "neuron, latents, splice, steering, ledger")
        console.print(Text(walk.missing), soft_wrap=True)
        return
    one_neuron(walk.beyond, console)
    active_latents(walk.beyond, console)
    one_latent(walk.beyond, console)
    _splice(walk.beyond, console)
    _steering(walk.beyond, console)
    _ledger(walk.beyond, console)


def _tokens(walk: Any, console: Console) -> None:
    rule(console, 1, "Tokens")
    grey = any(t.special for t in walk.tokens)
    say(console, "The text as the model reads it: pieces with numbers" + (" (grey: counted nowhere)." if grey else "."))
    line, ids, lines = Text("  "), Text("  "), 0
    for token in walk.tokens:
        word = visible(token.text)
        width = max(Text(word).cell_len, len(str(token.id)))
        if line.cell_len + width > console.width - 2:
            console.print(line), console.print(ids)
            line, ids, lines = Text("  "), Text("  "), lines + 1
            if lines == 8:
                break
        line.append(word + " " * (width - Text(word).cell_len), style="bright_black" if token.special else "bold")
        ids.append(str(token.id).ljust(width), style="bright_black" if token.special else "dim")
        line.append("  "), ids.append("  ")
    console.print(line), console.print(ids)


def _vectors(walk: Any, console: Console) -> None:
    rule(console, 2, "One vector through the layers")
    rows, columns = shape(len(next(iter(walk.vectors.values()))[-1]))
    last = {site: vector[-1].tolist() for site, vector in walk.vectors.items()}
    how = "red above zero, blue below" if console.color_system else "+ # above zero, - = below"
    say(
        console,
        f"The residual stream at the last token, {len(next(iter(last.values())))} numbers as {rows} x {columns}, after "
        f"the embedding and after every layer ({how}; full from 2.5 times the image's root mean square).",
    )
    named = []
    for site, vector in last.items():
        title = site if "." not in site else f"layer {site.rpartition('.')[2]}"
        named.append((title, vector, f"|x| {math.sqrt(sum(v * v for v in vector)):.3g}"))
    for line in images(named, console):
        console.print(Text("  ") + line if console.width >= 100 and line.cell_len <= 98 else line)


def _lens(walk: Any, console: Console) -> None:
    rule(console, 3, "Every layer's guess")
    lens, lead = walk.lens, walk.lead_layer
    final = lens.top(lens.layers[-1])[0][0]
    since = "from the embedding on" if lead == -1 else f"from layer {lead} on"
    say(
        console,
        f"The logit lens: what each layer would say if it were the last. {_quoted(final)}, the model's own first "
        f"word, leads {since}; the last row is the model's answer.",
    )
    grid = table("layer", *[""] * GUESSES, right=(0,))
    for layer in _thinned(lens.layers, LAYERS, (lead,)):
        cells: list[Text] = [Text("embed" if layer == -1 else str(layer), style="bold" if layer == lead else "")]
        for word, p in lens.top(layer)[:GUESSES]:
            style = "bold green" if word == final else ""
            cells.append(Text.assemble((_short(word, 12), style), (f" {p:.2f}", style or "dim")))
        grid.add_row(*cells)
    console.print(indented(grid))
    console.print()
    say(console, "The likeliest word, again and again:")
    prompt = len(walk.text) - len(walk.continuation)
    console.print(Text.assemble((walk.text[:prompt], "dim"), walk.text[prompt:]), soft_wrap=True)


def _splice(b: Any, console: Console) -> None:
    rule(console, 7, "The splice")
    sentence = f"The model runs on the dictionary's output in place of {b.site}, at every token. "
    sentence += f"KL at the last token: {b.splice.kl:.3f} nats."
    if b.splice.loss == b.splice.loss:
        sentence += f" Loss on this text: {b.splice.loss:.2f} nats a token before, {b.splice.loss_spliced:.2f} after."
    say(console, sentence)
    grid = table("next word", "before", "", "after", "", right=(1, 3))
    for w in b.splice.words:
        cells = [cell for p in (w.before, w.after) for cell in (Text(f"{p:.3f}"), bar(p, BAR))]
        grid.add_row(_short(w.word, 16), *cells)
    console.print(indented(grid))


def _steering(b: Any, console: Console) -> None:
    rule(console, 8, "Steering, from calm to babble")
    s = b.steering
    names = "; ".join(f"{n}: {', '.join(w)}" for n, w in s.watch.items())
    measured = any(d.impossible is not None for d in s.doses)
    say(
        console,
        f"Latent {s.latent}'s direction added at every token, 1 = its largest activation ({s.unit_size:.3g}). Cost: "
        f"nats a token over the unsteered model ({s.seeds} texts of {s.new_tokens} tokens); strained from "
        f"{s.warning:g}, babble from {s.babble:g}. Side: KL on other text."
        + (" Imposs.: words that no document of the world could hold." if measured else ""),
    )
    n = 2 + len(s.watch)
    heads = ("strength", "|Δh|/|h|", *(f"P({name})" for name in s.watch), "next words", "cost ± se", "", "side")
    heads += ("imposs.",) if measured else ()
    grid = table(*heads, right=(*range(n), n + 1, n + 3, *([n + 4] if measured else [])), grow=n)
    for d in s.doses:
        words = _fitting(
            [f"{visible(g.word)} {g.p:.2f}" for g in d.table],
            console.width - 50 - 10 * len(s.watch) - 9 * measured,
        )
        cells: list[str | Text] = [
            f"{d.strength:g}",
            f"{d.share_of_norm:.2f}",
            *(f"{d.watched[n]:.3f}" for n in s.watch),
        ]
        cost = f"{d.coherence_cost:+.2f} ± {d.se:.2f}"
        cells += [words, Text(cost, style=COLOURS[d.verdict]), Text(d.verdict, style=COLOURS[d.verdict])]
        cells.append("–" if d.side_effect is None else f"{d.side_effect:.2f}")
        if measured:
            cells.append("–" if d.impossible is None else f"{d.impossible:.0%}")
        grid.add_row(*cells)
    console.print(indented(grid))
    console.print()
    first = next(iter(s.watch))
    grid = table(f"P({first})", *(f"{d.strength:g}" for d in s.doses), right=range(1, 1 + len(s.doses)))
    for direction in s.directions:
        name = direction.name if direction.latent is None else f"{direction.name} {direction.latent}"
        cells = [Text(f"{d.watched[first]:.2f}", style=COLOURS[d.verdict]) for d in direction.doses]
        grid.add_row(name, *cells)
    console.print(indented(grid))
    console.print()
    for d in _chosen(s.doses):
        line = Text.assemble((f"  {d.strength:>4g}  ", "bold " + COLOURS[d.verdict]), visible(" ".join(d.text.split())))
        line.truncate(console.width, overflow="ellipsis")
        console.print(line)
    left_out = [x for x in s.left_out if not x.startswith("side effect")]
    say(console, f"Watched: {names}." + "".join(f" Left out: {x}." for x in left_out), style="dim")


def _ledger(b: Any, console: Console) -> None:
    rule(console, 9, "The ledger of this sentence")
    say(
        console,
        "How much of each token's vector the dictionary misses, and how far its splice moves the next word.",
    )
    head = table("token", "not reconstructed", "", "corpus", "KL, nats", "", right=(1, 3, 4))
    top = max((e.kl for e in b.ledger if e.kl is not None), default=0.0)
    wide = max(1.0, *(e.not_reconstructed for e in b.ledger if e.kl is not None))
    shown = b.ledger[-ENTRIES:]
    for e in shown:
        if e.kl is None:
            head.add_row(Text(visible(e.token), style="bright_black"), *(Text("–", style="bright_black"), "") * 1)
            continue
        head.add_row(
            _short(e.token, 16), f"{e.not_reconstructed:.2f}", bar(e.not_reconstructed / wide, BAR), f"{b.corpus:.2f}",
            f"{e.kl:.3f}", bar(e.kl / top if top > 0 else 0.0, BAR),
        )  # fmt: skip
    kl = b.splice.kl_mean
    head.add_row(Text("all", style="bold"), f"{b.not_reconstructed:.2f}", "", f"{b.corpus:.2f}", f"{kl:.3f}", "mean")
    console.print(indented(head))
    if len(shown) < len(b.ledger):
        say(console, f"The last {len(shown)} of {len(b.ledger)} tokens; all are in --json.", style="dim")
    say(console, b.says)


def _chosen(doses: Sequence[Any]) -> list[Any]:
    """The unsteered text, the strongest calm one, and the first that babbles (or the strongest)."""
    calm = [d for d in doses if d.verdict == "calm"]
    babble = [d for d in doses if d.verdict == "babble"]
    picked = [doses[0], calm[-1] if calm else doses[len(doses) // 2], babble[0] if babble else doses[-1]]
    return [d for i, d in enumerate(picked) if d not in picked[:i]]


def _fitting(words: Sequence[str], room: int) -> str:
    """The first words, as many as fit whole (at least one)."""
    line = words[0]
    for word in words[1:]:
        if len(line) + 2 + len(word) > room:
            break
        line += f"  {word}"
    return line


def _thinned(layers: Sequence[int], most: int, keep: Sequence[int]) -> list[int]:
    """At most about `most` layers, evenly, with the first, the last and those to keep."""
    if len(layers) <= most:
        return list(layers)
    even = {layers[round(i * (len(layers) - 1) / (most - 1))] for i in range(most)}
    return sorted(even | set(keep))


def _short(text: str, width: int) -> str:
    text = visible(text).strip() or "␣"
    return text if len(text) <= width else text[: width - 1] + "…"


def _quoted(word: str) -> str:
    return f"“{visible(word).strip() or '␣'}”"
