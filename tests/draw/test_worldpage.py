"""The page on the world holds every number, says what is not met or not measured, and its pictures are legible."""

from __future__ import annotations

import json
import re

import pytest
from draw.fake_report import fake_report
from draw.test_charts import overlaps

from lensing.draw.worldpage import world_page
from lensing.draw.worldsections import sections
from lensing.evaluation.bars import BARS

PARTS = ("floor", "probes", "dictionaries", "doubt", "letter", "seeds", "wide", "examples", "bars")


def blank(value):
    """The same report with every fraction unknown."""
    if isinstance(value, dict):
        return {k: blank(v) for k, v in value.items()}
    if isinstance(value, list):
        return [blank(v) for v in value]
    return None if isinstance(value, float) else value


def test_every_kind_of_number_is_on_the_page():
    text, _ = world_page(fake_report())
    for part in (
        "46,311", "1.901", "1.795", "| 0.191 | 0.041 |", "98.7%",
        "two-hop, combinations never read | 10 | 10.0%", "0.939",
        "82.2% ± 2.1%", "| 1e-5 | 82.2% ± 12.9% |",
        "| resid\\_post.2 | 1,204 | 610 | 0.2% | 2.4% |", "250,117", "377 | 71", "16,000,000 | 601",
        "61.2% ± 1.6%", "0.3512", "81.2% ± 5.1%", "52.1% ± 4.0%", "never", "7.41", "0.943", "77.8%", "917 522",
        "| 12.60 |", "0.097 ± 0.002",
        "| trusting, said | 0.949 | 0.952 |", "| latent | 33 | 34 | – |", "after the same 1,000,000 tokens",
        "| d_model 576 | concepts | 1,003 | 576 |", "song", "Count your eggs", "the_Gazette",
        "on in fewer than 4 documents",
    ):  # fmt: skip
        assert part.replace("\\_", "_") in text, part


def test_a_bar_that_is_not_met_is_said_in_the_table_and_where_it_belongs():
    text, _ = world_page(fake_report())
    assert "14 bars: 10 met, 3 not met, 1 not measured." in text
    assert "| two-hop, combinations read | at least 0.9 | 0.8837 | not met |" in text
    assert "- Bar: two-hop, combinations read: at least 0.9. It is 0.8837: not met." in text
    assert "| shipped files, MB | under 30 | – | not measured |" in text


def test_every_bar_stands_in_one_section():
    told = [sentence.split(":")[0] for section in sections(fake_report()) for sentence in section.bars]
    assert sorted([*told, "shipped files, MB"]) == sorted(BARS)


def test_the_page_links_all_of_its_pictures():
    text, pictures = world_page(fake_report())
    assert re.findall(r"!\[[^]]+\]\(world/([^)]+)\)", text) == list(pictures)
    assert set(pictures) == {
        "gap.svg", "recall.svg", "concepts.svg", "revisions.svg", "words.svg", "fvu.svg", "letter.svg"
    }  # fmt: skip


def test_texts_in_the_pictures_do_not_meet():
    for name, svg in world_page(fake_report())[1].items():
        assert overlaps(svg) == ([], []), name


def test_tables_are_square_and_text_of_the_world_is_no_markup():
    text, _ = world_page(fake_report())
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) >= 18
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert r"\[Margate\] \| Eskholm" in text
    assert r"\[odd\]" in text


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("absent", [None, "gone"])
def test_what_is_absent_is_said_to_be_not_measured(part, absent):
    report = fake_report()
    report[part] = None
    if absent:
        del report[part]
    text, _ = world_page(report)
    assert {"examples": "None were written", "bars": "No bar was measured."}.get(part, "\n\nNot measured.\n") in text


def test_an_empty_report_is_a_page_of_what_was_not_measured():
    text, pictures = world_page({})
    assert text.count("\n\nNot measured.\n") == len(sections({})) == 14
    assert pictures == {}


def test_unknown_fractions_and_json_s_nulls_are_drawn():
    text, pictures = world_page(blank(fake_report()))
    assert len(pictures) == 7
    assert "nan" not in text
    assert world_page(json.loads(json.dumps(fake_report())))[1] == world_page(fake_report())[1]
