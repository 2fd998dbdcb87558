"""Bars: written down once, and held against what was measured."""

from __future__ import annotations

import pytest

from lensing.evaluation.bars import BARS, check
from lensing.evaluation.world_report import checks, examples, pairs
from lensing.world import lexicon
from lensing.world.almanac.grammar import almanac
from lensing.world.almanac.weights import REGISTERS
from lensing.world.sample import sample_document, split_of


def test_a_bar_is_met_or_not_or_not_measured() -> None:
    name = "share of latents that only detect a word, middle layer"
    assert check(name, 0.49).met is True
    assert check(name, 0.5).met is False
    assert check(name, None).met is None
    assert check("copying", 0.9).met is True
    with pytest.raises(KeyError):
        check("copying well", 1.0)


def test_what_was_not_measured_is_said() -> None:
    found = checks(d_model=144, megabytes=12.0)
    assert [c["bar"]["name"] for c in found] == list(BARS)
    assert [c["met"] for c in found] == [None] * (len(BARS) - 1) + [True]


def test_the_worst_group_and_the_worst_middle_dictionary_count() -> None:
    gap = [{"gap": 0.05}, {"gap": 0.2}]
    floor = {
        "by_register": gap, "by_language": [], "by_position": [], "by_frequency": [], "overall": {"gap": 0.06},
        "skills": [{"skill": "copying", "accuracy": 0.95}], "recall": [{"decade": -5, "accuracy": 0.7}],
    }  # fmt: skip
    dictionaries = [
        {"site": site, "word_detectors": share, "homonyms": {"share": h}, "translations": {"share": None}}
        for site, share, h in (("resid_post.2", 0.6, 0.1), ("mlp_out.2", 0.2, 0.3), ("resid_post.4", 0.9, 0.7))
    ]
    found = {c["bar"]["name"]: c for c in checks(d_model=144, floor=floor, dictionaries=dictionaries)}
    assert found["gap to the reader's floor, nats a token, every group"]["met"] is False
    assert found["gap to the reader's floor, nats a token, all"]["met"] is True
    assert found["share of latents that only detect a word, middle layer"]["measured"] == 0.6
    assert found["homonyms whose senses have different top latents"]["measured"] == 0.7
    assert found["meanings with the same latent in both languages"]["met"] is None
    assert found["recall of facts at 1e-5, the rarest of coverage"]["met"] is False
    assert found["calendar"]["met"] is None


def test_the_latent_of_doubt_is_chosen_by_the_half_it_was_chosen_on() -> None:
    doubt = [
        {"auroc_chosen_on": a, "auroc": b, "p_steered": p, "ablation_closed": 0.6}
        for a, b, p in ((0.97, 0.99, 0.9), (0.98, 0.96, 0.4), (0.98, 0.95, 0.85))
    ]
    found = {c["bar"]["name"]: c for c in checks(d_model=144, doubt=doubt)}
    assert found["AUROC of the doubt latent on held-out documents"]["measured"] == 0.95
    assert found["P(doubt) when the doubt latent is turned up, before babble"]["measured"] == 0.85


def test_examples_are_the_test_splits_own_documents() -> None:
    found = examples()
    assert [e["register"] for e in found] == [*REGISTERS, *REGISTERS]
    for e in found:
        assert split_of(e["number"]) == "test"
        document = sample_document(almanac(), e["number"])
        assert document.text == e["text"]
        assert dict(document.draws)["form"] == e["register"]


def test_pairs_of_words_mean_one_thing() -> None:
    found = pairs()
    assert len(found) > 80
    assert len(set(found.values())) == len(found)
    assert not set(found) & set(lexicon.homonyms())
