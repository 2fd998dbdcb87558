"""The drawing of a triviality report holds its numbers and keeps to 100 columns."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from lensing.draw.triviality import draw_triviality
from lensing.evaluation.senses import Homonyms, Meaning, SensePair, Translations
from lensing.evaluation.triviality import TrivialityReport
from lensing.measure.detectors import WordDetectors, WordLatent
from lensing.measure.information import ConceptInformation
from lensing.measure.superposition import Covers, Geometry


@pytest.fixture
def report() -> TrivialityReport:
    latents = (WordLatent(3, 90, 0.95, 4, 0.5, 7, 0.75), WordLatent(5, 80, 0.25, 0, 0.125, 8, 0.25))
    pairs = (SensePair("seal", "beast", "[bold]", 30, 40, 11, None, 0.875, 0.5),)
    meanings = (Meaning("dog", "hund", 50, 60, 17, 19, 0.97, 0.96, 0.5, 0.5, 23, 0.91),)
    one = np.array([[0.25]])
    return TrivialityReport(
        "almanac", "almanac/mlp_out.2/w1024", "mlp_out.2", 340, 40_071, WordDetectors(latents, 0.9, 20),
        ConceptInformation(np.array([3]), np.array([90]), ("stance",), one, one * 0, np.array([0.5])),
        {"dictionary": 0.021, "token table": 0.291, "bigram table": 0.13}, 7317, 32_414,
        (Covers("neurons", (1, 4, None), (9, 9, 9)), Covers("latents", (None,), (9,)), Covers("none", (), ())), 39_731,
        (Geometry("latents", 941, 144, 0.119, 7.41, 111.1),), Homonyms(pairs, 0.0625), Translations(meanings, 0, 0, 1),
    )  # fmt: skip


def drawn(report: TrivialityReport) -> str:
    out = io.StringIO()
    draw_triviality(report, Console(file=out, width=100))
    return out.getvalue()


def test_every_number_is_shown(report):
    text = drawn(report)
    for part in (
        "almanac/mlp_out.2/w1024", "40,071", "50.0% ± 35.4%", "0.021", "0.291", "0.130", "7,317", "32,414", "stance",
        "never", "0.119", "7.41", "seal", "[bold]", "0.88", "6.2%", "hund", "17", "0.91",
    ):  # fmt: skip
        assert part in text, part
    assert max(map(len, text.splitlines())) <= 100


def test_what_was_not_measured_is_not_drawn(report):
    bare = dataclasses.replace(report, covers=(), homonyms=None, translations=None)
    text = drawn(bare)
    for part in ("neurons", "seal", "hund"):
        assert part not in text
