"""An index, and one latent of it, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from lensing.draw.contexts import context_lines, visible

BARS = " ▁▂▃▄▅▆▇█"
FEW = 2  # contexts of a group that is not the strongest


def draw_summary(facts: Mapping[str, Any], console: Console) -> None:
    """Print what an index holds and where it is."""
    lines = {
        "dictionary": f"{facts['dictionary']} ({facts['latents']:,} latents at {facts['site']} of {facts['model']})",
        "text": f"{facts['text']}, {facts['tokens']:,} tokens in {facts['pieces']:,} pieces",
        "fire": f"{facts['l0']:.1f} latents a token",
        "silent": f"{facts['dead']:,} latents never fire, {facts['rare']:,} on fewer than 10 tokens",
        "missed": f"{facts['missed']:.2%} of the mean |x|^2 is not reconstructed",
        "size": f"{facts['bytes'] / 1e6:,.1f} MB",
    }
    if facts["densities"]:
        low, _, middle, _, high = facts["densities"]
        lines["density"] = f"{middle:.3%} of tokens (median; {low:.3%} to {high:.3%} hold nine in ten latents)"
    for name, value in lines.items():
        console.print(f"{name:12}{value}", soft_wrap=True)
    folder = facts["folder"]
    console.print(f"The index is in {folder}. In the browser: lensing serve {folder}", soft_wrap=True)
    console.print(f"One latent here: lensing latent {folder} 0", soft_wrap=True)


def draw_latent(found: Any, console: Console, contexts: int) -> None:
    """Print a latent's page."""
    if not found.count:
        console.print(f"Latent {found.latent} never fires on this text.")
    else:
        console.print(
            f"Latent {found.latent} fires on {found.count:,} tokens ({found.density:.3%}), mean {found.mean:.3g}, at "
            f"most {found.max:.3g}."
        )
        low, high = found.histogram_edges
        console.print(f"{low:.3g} {_bars(found.histogram)} {high:.3g}   tokens by activation")
    for name, words in (("speaks for", found.promoted), ("speaks against", found.suppressed)):
        if words:
            console.print(f"{name}: " + "  ".join(f"{_word(w)} {v:+.2f}" for w, v in words), soft_wrap=True)
    if found.fires_on:
        said = (f"{_word(w)} ({p:.0%} of them, {r:.0%} of its places)" for w, _, p, r in found.fires_on[:5])
        console.print("fires on: " + ", ".join(said), soft_wrap=True)
    for number, group in enumerate(found.groups):
        name = "the strongest" if number == 0 else f"part {number} of {len(found.groups) - 1} of the rest"
        about = f"{group.n:,} distinct contexts, {group.mass:.0%} of all activation"
        console.print(f"\n{name}: peaks {group.low:.3g} to {group.high:.3g}, {about}")
        for line in context_lines(group.examples[: contexts if number == 0 else FEW], console):
            console.print(line)
    kinds = {"correlation": "fires as", "conditional": "fires with", "decoder": "points as"}
    near = {name: found.near[kind][:6] for kind, name in kinds.items() if found.near[kind]}
    if near:
        console.print()
    for name, some in near.items():
        console.print(f"{name:12}" + "  ".join(f"{latent} ({value:.2f})" for latent, value in some), soft_wrap=True)


def _word(token: str) -> str:
    return visible(token).strip() or repr(token)


def _bars(counts: Sequence[int]) -> str:
    most = max(counts) or 1
    return "".join(BARS[-(-(len(BARS) - 1) * n // most)] for n in counts)
