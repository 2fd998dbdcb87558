"""Charts put marks where their numbers say, keep texts apart, and are SVG that any page can hold."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest

from lensing.draw.charts import (
    GREEN,
    GREY,
    MISSING,
    WIDTH,
    Bar,
    Series,
    Stack,
    bars,
    dots,
    lines,
    measure,
    numbered,
    shorten,
    spread,
    stacks,
    wrap,
)  # fmt: skip

NAME = "{http://www.w3.org/2000/svg}"


def parse(svg):
    root = ET.fromstring(svg)
    assert root.tag == f"{NAME}svg"
    assert root.get("width") == str(WIDTH)
    assert root.get("viewBox") == f"0 0 {WIDTH} {root.get('height')}"
    return root


def texts(root):
    return [t.text for t in root.iter(f"{NAME}text")]


def place(root, text):
    return next(float(t.get("x")) for t in root.iter(f"{NAME}text") if t.text == text)


def rects(root, fill=None):
    return [
        (float(r.get("x")), float(r.get("width"))) for r in root.iter(f"{NAME}rect") if fill in (None, r.get("fill"))
    ]


def overlaps(svg):
    """Texts that leave the picture, and pairs whose boxes meet."""
    root, boxes = parse(svg), []
    for t in root.iter(f"{NAME}text"):
        width = measure(t.text or "") * 0.95  # measured in the widest font, and a little more
        x, y, anchor = float(t.get("x")), float(t.get("y")), t.get("text-anchor", "start")
        left = x - {"start": 0, "middle": width / 2, "end": width}[anchor]
        boxes.append((left, left + width, y - 9, y + 2, t.text))
    height = float(root.get("height"))
    bad = [b[4] for b in boxes if b[0] < 0 or b[1] > WIDTH or b[2] < 0 or b[3] > height]
    pairs = [(a[4], b[4]) for i, a in enumerate(boxes) for b in boxes[:i]
             if a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]]  # fmt: skip
    return bad, pairs


def test_bars_are_as_long_as_their_values():
    svg = bars(
        "t", {"": [Bar("a", 0.2, 0.1, "0.2"), Bar("b", 0.1), Bar("c", None), Bar("d", math.nan)]}, "x", mark=0.15
    )
    root = parse(svg)
    (x, a), (other, b) = rects(root)
    assert x == other
    assert a == pytest.approx(2 * b, abs=0.2)
    dashed = [line for line in root.iter(f"{NAME}line") if line.get("stroke-dasharray")]
    assert [float(line.get("x1")) for line in dashed] == [pytest.approx(x + 0.75 * a, abs=0.2)]
    ends = [(float(n.get("x1")), float(n.get("x2"))) for n in root.iter(f"{NAME}line")]
    assert any(p == pytest.approx(x + a / 2, abs=0.2) and q == pytest.approx(x + 1.5 * a, abs=0.2) for p, q in ends)
    assert texts(root).count(MISSING) == 2


def test_a_bar_below_zero_ends_at_zero():
    root = parse(bars("t", {"": [Bar("a", -0.1), Bar("b", 0.2)]}, "x"))
    (x, width), (zero, long) = rects(root)
    assert x + width == pytest.approx(zero, abs=0.2)
    assert long == pytest.approx(2 * width, abs=0.3)
    assert place(root, "0") == pytest.approx(zero, abs=0.1)


def test_stacks_hold_what_was_had_and_the_rest():
    root = parse(stacks("t", {"one": [Stack("a", 30, 40), Stack("b", 5, 20)], "two": [Stack("c", 1, 2)]}))
    had, rest = rects(root, GREEN), rects(root, GREY)
    assert [a[1] / (a[1] + b[1]) for a, b in zip(had, rest, strict=True)] == pytest.approx([0.75, 0.25, 0.5], abs=1e-3)
    assert [b[0] - a[0] - a[1] for a, b in zip(had, rest, strict=True)] == pytest.approx([0, 0, 0], abs=0.2)
    totals = [a[1] + b[1] for a, b in zip(had, rest, strict=True)]
    assert totals[0] == pytest.approx(2 * totals[1], abs=0.3)  # one scale within a group
    assert totals[0] == pytest.approx(totals[2], abs=0.2)  # each group its own
    assert "30 of 40" in texts(root)


def test_a_logarithmic_axis_sets_equal_ratios_equally_apart():
    root = parse(lines("t", [Series("", [(1e6, 10.0), (1e7, 20.0), (1e8, 40.0)])], "x", "y", log=True))
    xs, ys = zip(*((float(c.get("cx")), float(c.get("cy"))) for c in list(root.iter(f"{NAME}circle"))[:3]), strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[1] - ys[2] == pytest.approx(2 * (ys[0] - ys[1]), abs=0.3)
    assert place(root, "1 M") == pytest.approx(xs[0], abs=0.1)
    assert place(root, "100 M") == pytest.approx(xs[2], abs=0.1)


def test_a_gap_in_a_series_breaks_its_line():
    root = parse(lines("t", [Series("s", [(1, 1.0), (2, None), (3, 2.0), (4, 3.0)])], "x", "y", shown="{:.1f}"))
    (path,) = [p.get("d") for p in root.iter(f"{NAME}path")]
    assert re.sub(r"[^ML]", "", path) == "MML"
    assert "s 3.0" in texts(root)


def test_dots_of_one_value_stand_under_one_another():
    svg = dots("t", {"p": {"a": 0.01, "b": 0.1}, "q": {"a": 0.1, "b": None}, "r": {"a": 1.0, "b": 0.0}}, "x")
    root = parse(svg)
    circles = [float(c.get("cx")) for c in root.iter(f"{NAME}circle")][1:]  # the first is beside the name
    assert circles[1] - circles[0] == pytest.approx(circles[2] - circles[1], abs=0.2)
    squares = [x + w / 2 for x, w in rects(root)][1:]
    assert squares == [pytest.approx(circles[1], abs=0.2)]


def test_panels_under_numbered_lines_share_their_numbers():
    one, two = Series("a", [(1.0, 1.0), (2.0, 0.5)]), Series("long name", [(1.0, 3.0), (2.0, None)])
    root = parse(numbered("t", [("First line.", "calm"), ("Second.", "not")], {"p": [one], "q": [two]}, "line"))
    circles = [(float(c.get("cx")), c.get("r")) for c in root.iter(f"{NAME}circle")]
    firsts = [x for x, r in circles if r == "3"]
    assert firsts[0] == firsts[2]
    assert texts(root)[:3] == ["1", "calm", "First line."]


@pytest.mark.parametrize(
    "svg",
    [
        bars("t", {}, "x"),
        bars("t", {"": [Bar("a", None)]}, "x", mark=0.5, top=1.0),
        stacks("t", {"g": [Stack("a", 0, 0)]}),
        lines("t", [Series("a", [])], "x", "y", log=True),
        lines("t", [Series("a", [(5.0, 0.0)])], "x", "y"),
        dots("t", {"a": {"b": None}}, "x"),
        dots("t", {}, "x"),
        dots("t", {f"row {i}": {"a": 0.3, "b": 0.31, "c": 0.32, "d": 0.33} for i in range(3)}, "x"),
        numbered("t", [], {}, "x"),
        stacks("t", {"a heading": [Stack("a", 0, 1000)]}),
        stacks("t", {"a heading": [Stack("a", 0, 1000), Stack("a label too long to be shown " * 4, 1, 1)]}),
    ],
)
def test_little_or_much_is_drawn_without_overlaps(svg):
    assert overlaps(svg) == ([], [])


def test_names_are_escaped_and_nothing_runs():
    svg = bars("a < b & c", {"<g>": [Bar("<script>x</script>", 1.0, None, "<1>")]}, "x & y", mark=1.0)
    root = parse(svg)
    assert root.find(f"{NAME}title").text == "a < b & c"
    assert "<script>x</script>" in texts(root)
    assert not list(root.iter(f"{NAME}script"))
    assert "currentColor" in svg


def test_wrap_keeps_every_word_and_the_room():
    text = "one twenty three hundred and a supercalifragilistic word"
    parts = wrap(text, 90)
    assert " ".join(parts) == text
    assert all(measure(p) <= 90 or " " not in p for p in parts)
    assert shorten("abc", 500) == "abc"
    assert measure(shorten("a" * 200, 100)) <= 100


def test_spread_moves_only_what_overlaps():
    assert spread([10, 50, 90], [20, 20, 20], 0, 100) == [10, 50, 90]
    assert spread([50, 51, 52], [20, 20, 20], 0, 100) == [50, 70, 90]
    assert spread([1, 2], [20, 20], 0, 100) == [10, 30]
    assert spread([95, 96], [10, 20], 0, 100) == [75, 90]
