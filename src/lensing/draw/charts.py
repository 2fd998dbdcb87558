"""Small charts as SVG text, each a pure function of numbers: readable on light and dark pages, 720 wide, no scripts.

Text and axes take the page's colour (`currentColor`); a chart that stands in a file of its own follows the system's
light or dark. Marks have mid-tone fills that show on both. A value of None, or one that is not finite, is drawn as the
words "not measured".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 720
BLUE, ORANGE, GREEN, PURPLE, GREY = "#4a90d9", "#d97b29", "#2f9e77", "#9b72cf", "#8b929c"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE)  # of dots, by shape
ROW, HEAD, AXIS = 20, 28, 40  # heights of a row, of a heading, of an axis with its label
NARROW, BROAD = frozenset("iljtfr.,:;'|!()[] 1"), frozenset("mwMWOQGD%+±~")
MISSING = "not measured"


@dataclass(frozen=True)
class Bar:
    """One row: label, value (None where not measured), half the length of its whisker, and the value as text."""

    label: str
    value: float | None
    error: float | None = None
    shown: str = ""


@dataclass(frozen=True)
class Stack:
    """One row of things tried, of which a part was had."""

    label: str
    had: int
    tried: int


@dataclass(frozen=True)
class Series:
    """Points (x, y) in order of x, with the name that stands right of the last one; a y of None breaks the line."""

    name: str
    points: Sequence[tuple[float, float | None]]
    colour: str = BLUE


def bars(
    title: str, groups: Mapping[str, Sequence[Bar]], axis: str, *, mark: float | None = None, named: str = "bar",
    top: float | None = None,
) -> str:  # fmt: skip
    """Draw bars from zero with whiskers, under headings, and a dashed line at `mark`; the axis ends at `top`."""
    rows = [bar for group in groups.values() for bar in group]
    ends = [v + s * (b.error or 0) for b in rows if (v := finite(b.value)) is not None for s in (-1, 1)]
    low, high = min([0.0, *ends]), max([*ends, *([mark * 1.1] if mark else []), 0.0]) or 1.0
    left, right = _columns([b.label for b in rows], [b.shown for b in rows])
    scale, ticks = _linear(low, top if top is not None else high, left, right)
    out, y = [], 20.0 if mark is not None else 6.0
    begin = y
    for heading, group in groups.items():
        if heading:
            out.append(_text(8, y + 19, heading, weight="bold"))
            y += HEAD
        for bar in group:
            middle = y + ROW / 2
            out.append(_text(left - 8, middle + 4, shorten(bar.label, left - 16), anchor="end"))
            value = finite(bar.value)
            if value is None:
                out.append(_text(left + 6, middle + 4, MISSING, opacity=0.7))
            else:
                a, b = sorted((scale(0.0), scale(value)))
                out.append(f'<rect x="{a:.1f}" y="{y + 3:.1f}" width="{max(b - a, 1):.1f}" height="14" fill="{BLUE}"/>')
                out += _whisker(scale(value - (bar.error or 0)), scale(value + (bar.error or 0)), middle, bar.error)
                out.append(_text(WIDTH - 8, middle + 4, bar.shown, anchor="end"))
            y += ROW
    if mark is not None:
        x = scale(mark)
        out.append(_line(x, begin - 4, x, y, dash=True))
        out.append(_text(x, begin - 8, f"{named} {mark:g}", anchor="middle"))
    out += _horizontal_axis(ticks, scale, y + 2, axis)
    return _svg(title, y + AXIS, _grid(ticks, scale, begin, y) + out)


def stacks(title: str, groups: Mapping[str, Sequence[Stack]], *, had: str = "had", rest: str = "not had") -> str:
    """Draw rows of what was had and what was not, each group of rows on a scale of its own."""
    rows = [row for group in groups.values() for row in group]
    shown = {id(r): f"{r.had:,} of {r.tried:,}" for r in rows}
    left, right = _columns([r.label for r in rows], list(shown.values()))
    out, y, first = [], 4.0, True
    for heading, group in groups.items():
        most = max([r.tried for r in group], default=1) or 1
        out.append(_text(8, y + 19, heading, weight="bold"))
        y += HEAD + 16 * first
        for row in group:
            a, b = ((right - left) * n / most for n in (row.had, row.tried))
            if first:  # the two names stand above the first row's parts
                at = max(left + a, left + measure(had) + 14)
                out += [_text(left, y - 4, had), _text(min(at, right - measure(rest)), y - 4, rest)]
                first = False
            out.append(_text(left - 8, y + 14, shorten(row.label, left - 16), anchor="end"))
            out.append(f'<rect x="{left:.1f}" y="{y + 3:.1f}" width="{a:.1f}" height="14" fill="{GREEN}"/>')
            out.append(
                f'<rect x="{left + a:.1f}" y="{y + 3:.1f}" width="{b - a:.1f}" height="14" fill="{GREY}" '
                'fill-opacity="0.45"/>'
            )
            out.append(_text(WIDTH - 8, y + 14, shown[id(row)], anchor="end"))
            y += ROW
        y += 6
    return _svg(title, y + 4, out)


def lines(
    title: str, series: Sequence[Series], across: str, up: str, *, log: bool = False, height: int = 240,
    shown: str = "{:,.0f}",
) -> str:  # fmt: skip
    """Draw lines with their points over x (of powers of ten with `log`), y from zero; the last point says its value."""
    return _svg(title, height, _panel(series, across, up, 0, height, _edge(series, shown), log=log, shown=shown))


def dots(title: str, rows: Mapping[str, Mapping[str, float | None]], axis: str) -> str:
    """Draw for each row one dot a name on a logarithmic axis; the names stand over the first row that has them all."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    found = [v for row in rows.values() for x in row.values() if (v := finite(x)) is not None and v > 0]
    low, high = (min(found), max(found)) if found else (0.1, 1.0)
    left, right = _columns(list(rows), [])
    scale, ticks = _powers(low, high, left, right)
    top = 44.0
    first = max(rows.values(), key=lambda row: sum(finite(v) is not None for v in row.values()), default={})
    at = {n: scale(v) for n in names if (v := finite(first.get(n))) is not None and v > 0}
    ordered = sorted(at, key=lambda n: at[n])
    out = []
    places = spread([at[n] for n in ordered], [measure(n) + 26 for n in ordered], left, WIDTH - 8)
    for name, x in zip(ordered, places, strict=True):
        start = x - measure(name) / 2 - 9
        out += [_shape(names.index(name), start, 12), _text(start + 10, 16, name)]
        out.append(_line(x, 22, at[name], top - 2, opacity=0.4))
    y = top
    for label, row in rows.items():
        out.append(_text(left - 8, y + 14, shorten(label, left - 16), anchor="end"))
        out.append(_line(left, y + 10, right, y + 10, opacity=0.15))
        for name in names:
            if (value := finite(row.get(name))) is not None and value > 0:
                out.append(_shape(names.index(name), scale(value), y + 10))
        y += ROW
    out += _horizontal_axis(ticks, scale, y + 2, axis)
    return _svg(title, y + AXIS, _grid(ticks, scale, top, y) + out)


def numbered(title: str, texts: Sequence[tuple[str, str]], panels: Mapping[str, Sequence[Series]], across: str) -> str:
    """Draw numbered lines of text, each with a word at the right, and under them small panels over their numbers."""
    out, y = [], 8.0
    margin = max([measure(word) for _, word in texts], default=0) + 24
    for number, (text, word) in enumerate(texts, start=1):
        out.append(_text(30, y + 12, f"{number}", anchor="end", weight="bold"))
        out.append(_text(WIDTH - 8, y + 12, word, anchor="end", opacity=0.75))
        for part in wrap(text, WIDTH - 40 - margin):
            out.append(_text(40, y + 12, part))
            y += 16
        y += 5
    shown, height = "{:.2f}", 136
    edge = min([_edge(series, shown) for series in panels.values()], default=WIDTH)
    for up, series in panels.items():
        out += _panel(series, across, up, y, height, edge, shown=shown, whole=len(texts))
        y += height
    return _svg(title, y, out)


def finite(value: float | None) -> float | None:
    """Return `value`, or None where it is None, infinite or not a number."""
    return value if value is not None and math.isfinite(value) else None


def measure(text: str) -> float:
    """Return about how wide `text` is at 12 pixels in the widest of the usual sans-serif fonts, in pixels."""
    return sum(4.6 if c in NARROW else 10.5 if c in BROAD else 8.2 if c.isupper() else 7.5 for c in text)


def shorten(text: str, room: float) -> str:
    """Return `text`, cut with an ellipsis where it is wider than `room` pixels."""
    while len(text) > 1 and measure(text) > room:
        text = text[:-2].rstrip() + "…"
    return text


def wrap(text: str, room: float) -> list[str]:
    """Return `text` in lines of at most `room` pixels, broken at spaces."""
    found = [""]
    for word in text.split():
        longer = f"{found[-1]} {word}".strip()
        if measure(longer) > room and found[-1]:
            found.append(word)
        else:
            found[-1] = longer
    return found


def spread(centres: Sequence[float], widths: Sequence[float], low: float, high: float) -> list[float]:
    """Return centres, in the same order, moved as little as one sweep each way needs so that none overlaps another."""
    at = list(centres)
    for i in range(len(at)):
        least = low + widths[i] / 2 if i == 0 else at[i - 1] + (widths[i - 1] + widths[i]) / 2
        at[i] = max(at[i], least)
    for i in reversed(range(len(at))):
        last = i == len(at) - 1
        most = high - widths[i] / 2 if last else at[i + 1] - (widths[i + 1] + widths[i]) / 2
        at[i] = min(at[i], most)
    return at


class _Scale:
    """From numbers to pixels: linear, or by logarithm."""

    def __init__(self, low: float, high: float, begin: float, end: float, log: bool) -> None:
        self.low, self.high, self.begin, self.end = low, high, begin, end
        self.log = log

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.begin + min(max(share, 0.0), 1.0) * (self.end - self.begin)


def _linear(low: float, high: float, begin: float, end: float, about: int = 5) -> tuple[_Scale, list[float]]:
    """A scale from `low` to a round number, with ticks at 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]
    return _Scale(low, ticks[-1], begin, end, False), ticks


def _powers(low: float, high: float, begin: float, end: float) -> tuple[_Scale, list[float]]:
    """A logarithmic scale between 1, 2 or 5 times powers of ten that hold `low` and `high`, with ticks at those."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [m * 10.0**e for e in exponents for m in (1, 2, 5)]
    first = max(t for t in steps if t <= low * 1.0001)
    last = min(t for t in steps if t >= high * 0.9999 and t > first)
    ticks = [t for t in steps if first <= t <= last]
    return _Scale(first, last, begin, end, True), ticks


def _panel(
    series: Sequence[Series], across: str, up: str, top: float, height: float, right: float, *, log: bool = False,
    shown: str, whole: int = 0,
) -> list[str]:  # fmt: skip
    """Lines in a frame that begins at `top` and ends at `right`; with `whole` x holds the numbers from 1 to it."""
    points = [(x, y) for s in series for x, v in s.points if (y := finite(v)) is not None]
    xs, ys = [x for x, _ in points] or [1.0], [y for _, y in points] or [0.0]
    left, begin, floor = 60.0, top + 30, top + height - AXIS
    vertical, up_ticks = _linear(min(0.0, *ys), max(*ys, 0.0) or 1.0, floor, begin, about=4 if height > 200 else 2)
    if whole:
        horizontal, ticks = _Scale(0.5, whole + 0.5, left, right, False), [float(n) for n in range(1, whole + 1)]
    elif log:
        horizontal, ticks = _powers(min(xs), max(xs), left, right)
    else:
        horizontal, ticks = _linear(min(xs), max(xs), left, right)
    out = [_text(8, top + 16, up, weight="bold")]
    for tick in up_ticks:
        out.append(_line(left, vertical(tick), right, vertical(tick), opacity=0.15))
        out.append(_text(left - 8, vertical(tick) + 4, _number(tick), anchor="end"))
    out += _horizontal_axis(ticks, horizontal, floor, across)
    lasts = []
    for s in series:
        path, pen, last = [], "M", 0.0
        for x, value in s.points:
            if (y := finite(value)) is None:
                pen = "M"
                continue
            path.append(f"{pen}{horizontal(x):.1f} {vertical(y):.1f}")
            pen = "L"
            out.append(f'<circle cx="{horizontal(x):.1f}" cy="{vertical(y):.1f}" r="3" fill="{s.colour}"/>')
            last = y
        if path:
            out.append(f'<path d="{" ".join(path)}" fill="none" stroke="{s.colour}" stroke-width="2"/>')
            lasts.append((vertical(last), f"{s.name} {shown.format(last)}".strip(), s.colour))
    lasts.sort()
    for y, (_, text, colour) in zip(
        spread([y for y, _, _ in lasts], [15.0] * len(lasts), top + 10, floor + 12), lasts, strict=True
    ):
        out.append(f'<circle cx="{right + 12:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        out.append(_text(right + 20, y + 4, text))
    return out


def _edge(series: Sequence[Series], shown: str) -> float:
    """Where a frame ends so that the names and values right of it have room."""
    ends = [f"{s.name} {shown.format(v)}".strip() for s in series for _, y in s.points if (v := finite(y)) is not None]
    return WIDTH - 28 - max([measure(t) for t in ends], default=0)


def _columns(labels: Sequence[str], shown: Sequence[str]) -> tuple[float, float]:
    """Where bars begin and end between labels at the left and values at the right."""
    left = 24 + min(max([measure(t) for t in labels], default=0), 230)
    return left, WIDTH - 24 - max([measure(t) for t in shown], default=0)


def _horizontal_axis(ticks: Sequence[float], scale: _Scale, y: float, name: str) -> list[str]:
    out, edge = [_line(scale.begin, y, scale.end, y)], -math.inf
    for tick in ticks:
        x, text = scale(tick), _number(tick)
        out.append(_line(x, y, x, y + 4))
        if x - measure(text) / 2 > edge:  # a number that would touch the one before is left out
            out.append(_text(x, y + 16, text, anchor="middle"))
            edge = x + measure(text) / 2 + 4
    out.append(_text((scale.begin + scale.end) / 2, y + 32, name, anchor="middle"))
    return out


def _grid(ticks: Sequence[float], scale: _Scale, top: float, bottom: float) -> list[str]:
    return [_line(scale(t), top, scale(t), bottom, opacity=0.15) for t in ticks]


def _whisker(a: float, b: float, y: float, error: float | None) -> list[str]:
    if not error:
        return []
    return [_line(a, y, b, y), _line(a, y - 3, a, y + 3), _line(b, y - 3, b, y + 3)]


def _number(value: float) -> str:
    for size, name in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= size * 10 or (abs(value) >= size and size > 1e3):
            return f"{value / size:g}{name}"
    return f"{value:g}"


def _shape(which: int, x: float, y: float) -> str:
    """A mark that shape and colour both tell apart."""
    colour = COLOURS[which % len(COLOURS)]
    if which % 4 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
    if which % 4 == 1:
        return f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" fill="{colour}"/>'
    if which % 4 == 2:
        return f'<path d="M{x:.1f} {y - 6:.1f}l5.5 10h-11z" fill="{colour}"/>'
    return f'<path d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z" fill="{colour}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "", weight: str = "", opacity: float = 1.0) -> str:
    extra = f' text-anchor="{anchor}"' * bool(anchor) + f' font-weight="{weight}"' * bool(weight)
    extra += f' fill-opacity="{opacity:g}"' * (opacity < 1)
    return f'<text x="{x:.1f}" y="{y:.1f}"{extra}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, *, dash: bool = False, opacity: float = 1.0) -> str:
    extra = ' stroke-dasharray="4 3"' * dash + f' stroke-opacity="{opacity:g}"' * (opacity < 1)
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="currentColor"{extra}/>'


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    """The whole picture; the colours hold only where the picture is a document of its own."""
    style = "svg:root{color:#1f2328}@media (prefers-color-scheme:dark){svg:root{color:#e6edf3}}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" font-family="sans-serif" font-size="12" fill="currentColor">'
    )
    body = "\n".join(part for part in parts if part)
    return f"{head}\n<title>{escape(title)}</title>\n<style>{style}</style>\n{body}\n</svg>\n"
