"""Results as pictures for papers: matplotlib, which is optional (`pip install lensing[plots]`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lensing.draw.heat import largest
from lensing.draw.lens import Cell, layer_name, visible
from lensing.draw.parts import AGAINST, FOR
from lensing.errors import UsageError
from lensing.files import atomic_file

FORMATS = (".svg", ".png", ".pdf")


def pyplot() -> Any:
    """Return matplotlib's figures, without a window; UsageError where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError("Pictures need matplotlib. Install it with: pip install 'lensing[plots]'.") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def save(figure: Any, path: str | Path) -> Path:
    """Write a figure whole or not at all; the file's ending says its format."""
    path = Path(path)
    try:
        if path.suffix.lower() not in FORMATS:
            raise UsageError(
                f"{path} ends with no format of pictures. Give a name that ends with {', '.join(FORMATS)}."
            )
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=150, bbox_inches="tight")
    finally:
        pyplot().close(figure)
    return path


def draw_lens(tokens: Sequence[str], layers: Sequence[int], cells: Sequence[Sequence[Cell]], path: str | Path) -> Path:
    """Draw a lens grid: positions to the right, layers upwards, each cell's word shaded by its probability."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(1.0 + 0.85 * len(tokens), 0.9 + 0.32 * len(layers)))
    image = axes.imshow([[p for _, p, _ in row] for row in cells], origin="lower", aspect="auto", cmap="Blues",
                        vmin=0, vmax=1)  # fmt: skip
    for y, row in enumerate(cells):
        for x, (word, p, _) in enumerate(row):
            shown = visible(word)
            axes.text(x, y, shown if len(shown) <= 10 else shown[:9] + "…", ha="center", va="center", fontsize=7,
                      color="white" if p > 0.55 else "black")  # fmt: skip
    axes.set_xticks(range(len(tokens)), [visible(t) for t in tokens], rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(layers)), [layer_name(layer) for layer in layers], fontsize=8)
    axes.set_xlabel("token read")
    axes.set_ylabel("after layer")
    figure.colorbar(image, ax=axes, label="probability of the word", fraction=0.03, pad=0.02)
    return save(figure, path)


def draw_heat(
    title: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]], path: str | Path
) -> Path:
    """Draw a heat map of signed numbers: rows upwards, red below zero, blue above."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(1.6 + 0.55 * len(columns), 1.0 + 0.28 * len(rows)))
    most = largest(values) or 1.0
    image = axes.imshow(values, origin="lower", aspect="auto", cmap="RdBu", vmin=-most, vmax=most)
    axes.set_xticks(range(len(columns)), [visible(c) for c in columns], rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8 if len(rows) <= 40 else 5)
    axes.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    return save(figure, path)


def draw_parts(title: str, parts: Sequence[tuple[str, float]], path: str | Path) -> Path:
    """Draw signed parts as bars, the first on top."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(5.5, 0.8 + 0.25 * len(parts)))
    axes.barh(range(len(parts)), [v for _, v in parts], color=[FOR if v >= 0 else AGAINST for _, v in parts])
    axes.set_yticks(range(len(parts)), [name for name, _ in parts], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return save(figure, path)
