"""An index as it is read: every latent's page, and columns over all latents, straight from the disk."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from rich.console import Console

from lensing.draw.index import draw_latent
from lensing.draw.pages import STYLE, latent_html
from lensing.errors import FileFormatError, UsageError
from lensing.index.layout import Facts, read_array, read_facts

NEAR = ("correlation", "jaccard", "conditional", "decoder", "encoder")
COLUMNS = ("count", "density", "mean", "max")


@final
@dataclass(frozen=True)
class Example:
    """One context: tokens around the peak, each with the latent's activation there, and where it stands in the text."""

    row: int
    piece: int
    document: int
    value: float
    peak: int
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    values: tuple[float, ...]


@final
@dataclass(frozen=True)
class Group:
    """Examples of one range of peaks: its edges, how many distinct contexts lie in it, its share of all activation."""

    low: float
    high: float
    n: int
    mass: float
    examples: tuple[Example, ...]


@final
@dataclass(frozen=True)
class Latent:
    """Everything that an index knows of one latent; words are (token, number) or (token, n, precision, recall)."""

    latent: int
    count: int
    density: float
    mean: float
    max: float
    histogram: tuple[int, ...]
    histogram_edges: tuple[float, float]
    groups: tuple[Group, ...]
    fires_on: tuple[tuple[str, int, float, float], ...]
    promoted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]
    logit_histogram: tuple[int, ...]
    logit_histogram_edges: tuple[float, float] | None
    near: dict[str, tuple[tuple[int, float], ...]]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)

    def show(self) -> None:
        """Show it: as a page in a notebook, as text in a terminal."""
        shell = sys.modules.get("IPython")
        if shell is not None and shell.get_ipython() is not None:
            shell.display.display(shell.display.HTML(self._repr_html_()))
        else:
            draw_latent(self, Console(highlight=False), 8)

    def _repr_html_(self) -> str:
        return f"<style>{STYLE}</style>{latent_html(self, contexts=8)}"


@final
class Index:
    """A finished index in a folder; arrays are mapped into memory and never changed."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.facts: Facts = read_facts(self.folder)
        self._arrays: dict[str, np.ndarray] = {}

    def __repr__(self) -> str:
        d, t = self.facts.dictionary, self.facts.text
        return f"Index({d['id'] or d['site']}, {d['d_sae']:,} latents, {t['rows']:,} tokens of {t['name']})"

    @property
    def d_sae(self) -> int:
        """How many latents there are."""
        return int(self.facts.dictionary["d_sae"])

    @property
    def imported(self) -> bool:
        """Whether it was made of another tool's dashboards, whose groups are bins and which lack some numbers."""
        return self.facts.chunk_rows == 0

    @property
    def rows(self) -> int:
        """How many tokens count."""
        return int(self.facts.text["rows"])

    def array(self, name: str) -> np.ndarray:
        """One array of the index, by its file's name."""
        if name not in self._arrays:
            self._arrays[name] = read_array(self.folder, name)
        return self._arrays[name]

    def has(self, name: str) -> bool:
        """Whether the index has an array: what a direction speaks for, say, is known only in the residual stream."""
        return (self.folder / f"{name}.npy").is_file()

    @cached_property
    def strings(self) -> list[str] | None:
        """Every token's own string; None where the model came without a tokenizer."""
        try:
            return json.loads((self.folder / "strings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FileFormatError(f"{self.folder}/strings.json is missing or broken. Build the index again.") from error

    def words(self, ids: np.ndarray) -> tuple[str, ...]:
        """Token ids as strings to show."""
        return tuple(map(str if self.strings is None else self.strings.__getitem__, ids.tolist()))

    def darkest(self, n: int = 50) -> tuple[Example, ...]:
        """Return the contexts whose token is missed most: by |x - x_hat|^2 / |x|^2, one a piece, largest first.

        The values of a context are those shares of its tokens. UsageError where an imported index does not hold them.
        """
        share = np.square(self.array("row_error"), dtype=np.float64)
        share /= np.maximum(np.square(self.array("row_norm"), dtype=np.float64), 1e-30)
        if not len(share) or np.isnan(share).all():
            raise UsageError(f"{self!r} does not say what is missed of each token. Build an index with lensing index.")
        starts = self.array("starts")
        filled = np.flatnonzero(np.diff(starts) > 0)
        # the darkest token of every piece; the first of equal ones
        best = np.maximum.reduceat(share, starts[filled])
        order = filled[np.argsort(-best, kind="stable")[:n]]
        return tuple(self._dark(share, int(starts[p]) + int(share[starts[p] : starts[p + 1]].argmax())) for p in order)

    def _dark(self, share: np.ndarray, row: int) -> Example:
        piece, first, last = self._window(row)
        ids, values = self.array("tokens")[first:last], share[first:last]
        return Example(
            row=row, piece=piece, document=int(self.array("document")[piece]), value=float(share[row]),
            peak=row - first, tokens=self.words(ids), ids=tuple(ids.tolist()), values=tuple(values.tolist()),
        )  # fmt: skip

    def _window(self, row: int) -> tuple[int, int, int]:
        """The piece that a row stands in, and the first and last (exclusive) row shown around it."""
        starts = self.array("starts")
        piece = int(np.searchsorted(starts, row, side="right")) - 1
        return (
            piece, max(row - self.facts.before, int(starts[piece])),
            min(row + self.facts.after + 1, int(starts[piece + 1])),
        )  # fmt: skip

    def latent(self, i: int) -> Latent:
        """Return everything about one latent; UsageError for one that is not there."""
        if not 0 <= i < self.d_sae:
            raise UsageError(f"There is no latent {i} in {self!r}. Give 0 to {self.d_sae - 1}.")
        known, speaks = self.array("word")[i] >= 0, self.has("promoted")
        fires = [self.array(f"word{part}")[i][known] for part in ("", "_n", "_precision", "_recall")]
        return Latent(
            latent=i, **{name: self.array(name)[i].item() for name in COLUMNS},
            histogram=tuple(self.array("histogram")[i].tolist()),
            histogram_edges=tuple(self.array("histogram_edges")[i].tolist()), groups=self._groups(i),
            fires_on=tuple(zip(self.words(fires[0]), *(part.tolist() for part in fires[1:]), strict=True)),
            promoted=self._spoken("promoted", i) if speaks else (),
            suppressed=self._spoken("suppressed", i) if speaks else (),
            logit_histogram=tuple(self.array("logit_histogram")[i].tolist()) if speaks else (),
            logit_histogram_edges=tuple(self.array("logit_histogram_edges")[i].tolist()) if speaks else None,
            near={kind: self._near(kind, i) for kind in NEAR},
        )  # fmt: skip

    def _spoken(self, name: str, i: int) -> tuple[tuple[str, float], ...]:
        return tuple(zip(self.words(self.array(name)[i]), self.array(f"{name}_value")[i].tolist(), strict=True))

    def _near(self, kind: str, i: int) -> tuple[tuple[int, float], ...]:
        index, value = self.array(f"near_{kind}")[i], self.array(f"near_{kind}_value")[i]
        return tuple(zip(index[index >= 0].tolist(), value[index >= 0].tolist(), strict=True))

    def _groups(self, i: int) -> tuple[Group, ...]:
        start, stop = self.array("example_ptr")[i : i + 2].tolist()
        of = self.array("example_group")[start:stop]
        found = []
        for group, n in enumerate(self.array("group_n")[i].tolist()):
            if n:
                low, high = self.array("group_edges")[i, group].tolist()
                members = tuple(self._example(start + int(e)) for e in np.flatnonzero(of == group))
                found.append(Group(low, high, n, float(self.array("group_mass")[i, group]), members))
        return tuple(found)

    def _example(self, e: int) -> Example:
        row = int(self.array("example_row")[e])
        piece, first, last = self._window(row)
        values = np.zeros(last - first, dtype=np.float32)
        a, b = self.array("active_ptr")[e : e + 2].tolist()
        values[row - first + self.array("active_offset")[a:b]] = self.array("active_value")[a:b]
        ids = self.array("tokens")[first:last]
        return Example(
            row=row, piece=piece, document=int(self.array("document")[piece]), value=float(values[row - first]),
            peak=row - first, tokens=self.words(ids), ids=tuple(ids.tolist()), values=tuple(values.tolist()),
        )  # fmt: skip


def open_index(folder: str | Path) -> Index:
    """Open a finished index.

    Raises: UsageError: no index there, or one that is not finished. FileFormatError: a broken file.
    """
    return Index(folder)
