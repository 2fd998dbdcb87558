"""The drawing of a dose response holds its numbers and keeps to 100 columns."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from lensing.causal.dose import Direction, Dose, DoseResponse, Guess
from lensing.draw.steer import draw_doses


def dose(strength: float, cost: float, verdict: str, **changes) -> Dose:
    values = {
        "strength": strength, "share_of_norm": strength / 8, "watched": {"doubt": 0.125},
        "table": tuple(Guess(i, word, 0.25) for i, word in enumerate(["doubtful", "[bold]", "shaky", "low", "firm"])),
        "text": "word " * 60, "coherence_cost": cost, "se": 0.07, "verdict": verdict, "side_effect": 0.375,
        "impossible": 0.5,
    }  # fmt: skip
    return Dose(**{**values, **changes})


def response(doses: tuple[Dose, ...], **changes) -> DoseResponse:
    names = (("latent", 271), ("difference of means", None), ("random latent", 12), ("random direction", None))
    values = {
        "model": "almanac", "dictionary": "almanac/mlp_out.2/w1024", "site": "mlp_out.2", "latent": 271,
        "prompt": "The reliability of the Almanac is very", "unit": "max", "mode": "add", "at": "all", "unit_size": 3.5,
        "mean_norm": 28.0, "new_tokens": 32, "seeds": 8, "seed": 0, "watch": {"doubt": ("doubtful", "shaky")},
        "directions": tuple(Direction(name, latent, doses) for name, latent in names),
        "left_out": ("side effect: no unrelated texts were given",),
    }  # fmt: skip
    return DoseResponse(**{**values, **changes})


def drawn(doses: DoseResponse, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=colour, color_system="standard" if colour else None)
    draw_doses(doses, console)
    return out.getvalue()


@pytest.fixture
def three() -> tuple[Dose, ...]:
    return dose(0, 0.0, "calm"), dose(0.25, 1.5, "strained"), dose(16, 4.25, "babble")


def test_every_number_is_shown(three):
    text = drawn(response(three))
    for part in (
        "271", "almanac/mlp_out.2/w1024", "The reliability of the Almanac is very", "P(doubt)", "0.125",
        "doubtful .25", "[bold] .25", "+4.25 ± 0.07", "+1.50 ± 0.07", "strained", "babble", "0.375", "50%", "2.00",
        "difference of means", "random latent 12", "random direction", "left out: side effect",
    ):  # fmt: skip
        assert part in text, part
    assert max(map(len, text.splitlines())) <= 100
    assert "firm" not in text  # four words a row


def test_what_was_not_measured_has_no_column(three):
    bare = tuple(
        dose(d.strength, 0.5, "calm", side_effect=None, impossible=None, watched={}, se=math.nan) for d in three
    )
    text = drawn(response(bare, watch={}))
    assert "50%" not in text
    assert "P(" not in text
    assert "±" not in text.replace("cost ± se", "")
    assert "doubtful .25" in text


def test_verdicts_have_colours(three):
    text = drawn(response(three), colour=True)
    assert "\x1b[31m" in text
    assert "\x1b[33m" in text
    assert "\x1b[32m" in text


def test_several_watched_lists_still_fit(three):
    many = tuple(
        dose(d.strength, 0.5, "calm", watched={"doubt": 0.1, "trust": 0.2, "neither of the two": 0.7}) for d in three
    )
    watch = dict.fromkeys(("doubt", "trust", "neither of the two"), ("one", "two"))
    text = drawn(response(many, watch=watch))
    assert max(map(len, text.splitlines())) <= 100
    assert "P(trust)" in text
