"""The report in the terminal: 100 columns, no number cut, nothing silent about what is missing."""

from __future__ import annotations

import io

from draw.fake_report import fake_report
from draw.test_worldpage import blank
from rich.console import Console

from lensing.draw.world import draw_document, draw_report
from lensing.draw.worldbars import bar_grid
from lensing.draw.worldsections import sections


def drawn(report, width=100):
    out = io.StringIO()
    draw_report(report, Console(file=out, width=width))
    return out.getvalue()


def test_every_number_of_every_table_is_shown_in_100_columns():
    report = fake_report()
    text = drawn(report)
    assert max(map(len, text.splitlines())) <= 100
    for grid in [bar_grid(report), *(grid for section in sections(report) for grid in section.grids)]:
        for row in grid.rows:
            line = [cell for i, cell in enumerate(row) if i != grid.wrapped]
            assert any(all(cell in shown for cell in line) for shown in text.splitlines()), row


def test_missing_concepts_are_counted_by_class():
    assert "4 concepts were probed and are not had: day 1, faith_of 1, subject 2." in drawn(fake_report())


def test_what_was_not_measured_is_named_once():
    report = {"model": "almanac", "floor": fake_report()["floor"]}
    text = " ".join(drawn(report).split())
    assert "Not measured: Concepts that can be read off; When concepts arrive;" in text
    assert text.count("Not measured") == 1
    assert "0.191" in text


def test_unknown_fractions_are_dashes():
    assert "nan" not in drawn(blank(fake_report()))
    assert "Not measured" in drawn({})


def test_a_document_shows_labels_where_they_change():
    out = io.StringIO()
    draw_document(Console(file=out, width=100), "one", ["A", "B"], [{"day": "Monday"}, {"day": "Monday"}])
    assert out.getvalue().count("Monday") == 1
