"""Text in which every concept is met: how often, and that its labels are the world's own."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lensing.errors import UnknownNameError
from lensing.world import lexicon
from lensing.world.almanac.grammar import _build, almanac
from lensing.world.filter import Reader
from lensing.world.plan import decade, frequencies
from lensing.world.sample import sample_document, split_of
from lensing.world.stratified import FORMS, stratified
from lensing.world.truth import read_truth


def test_rare_things_are_drawn_as_often_as_common_ones() -> None:
    drawn: dict[str, Counter[object]] = {}
    for document in stratified(480):
        assert split_of(document.number) == "test"
        for cls, value in document.draws:
            drawn.setdefault(cls, Counter())[value] += 1
    for cls in ("subject", "city", "thing", "day", "hour"):
        counts = [drawn[cls][v] for v in almanac().classes[cls].planted.values]
        assert max(counts) - min(counts) <= 1, cls
    homonyms = lexicon.homonyms()
    beasts = {b: drawn["beast"][b] for b in lexicon.BEASTS}
    assert min(n for b, n in beasts.items() if b in homonyms) >= max(n for b, n in beasts.items() if b not in homonyms)
    assert {dict(d.draws)["form"] for d in stratified(30)} == set(FORMS)


def test_stratified_text_is_possible_in_the_world_itself() -> None:
    reader = Reader(almanac())
    for document in stratified(8, seed=3):
        assert len(read_truth(reader, document.words)) == len(document.words)  # PromptError where one is impossible


def test_the_same_seed_gives_the_same_text() -> None:
    assert [d.text for d in stratified(5, seed=1)] == [d.text for d in stratified(5, seed=1)]
    assert [d.text for d in stratified(5, seed=1)] != [d.text for d in stratified(5, seed=2)]


def test_frequencies_follow_the_plan() -> None:
    table = frequencies(150)
    subjects = {name: f for name, f in table.items() if name.startswith("subject.")}
    assert len(subjects) == 320
    assert max(subjects.values()) / min(subjects.values()) == pytest.approx(1e4, rel=0.1)
    assert sum(subjects.values()) == pytest.approx(table["pronoun.She"] + table["pronoun.He"])
    assert sum(table[f"register.{r}"] for r in ("encyclopaedia", "gossip", "letter", "ledger", "song")) > 0.98
    assert [decade(f) for f in (0.5, 0.01, 0.0099, 3e-6)] == [-1, -2, -3, -6]
    # Beasts that Osk has a word for are met there, too, however rare they are in plain language.
    osk, rare = lexicon.osk("beast"), sorted(lexicon.BEASTS, key=almanac().classes["beast"].planted.p)[:40]
    assert min(table[f"beast.{b}"] for b in rare if b in osk) > 5 * max(
        table[f"beast.{b}"] for b in rare if b not in osk
    )


@pytest.mark.parametrize("cls", ["subject", "beast", "thing", "place", "speaker"])
def test_frequencies_are_those_of_counting(cls: str) -> None:
    """The commonest names are on as often as is said, in text that the frequencies were not taken from."""
    table, read = frequencies(), almanac().classes[cls].value
    names = sorted((name for name in table if name.startswith(f"{cls}.")), key=lambda name: -table[name])[:12]
    counts: dict[str, list[int]] = {name: [] for name in names}
    tokens = 0
    for number in range(5000, 6500):
        document = sample_document(almanac(), number)
        on = Counter(f"{cls}.{read(step.state)}" for step in document.steps[2:])
        tokens += len(document.words) - 1
        for name in names:
            counts[name].append(on[name])
    found = np.array(list(counts.values()))
    expected = np.array([table[name] for name in names]) * tokens
    # Words on come in runs: the variance of a count is its mean times the mean run, each run weighted by its length.
    run = np.square(found).sum() / found.sum()
    scores = (found.sum(1) - expected) / np.sqrt(expected * run * 2)  # the table is a count over as many documents
    assert np.mean(np.square(scores)) < 3, dict(zip(names, scores.round(1), strict=True))
    assert abs(found.sum() / expected.sum() - 1) < 0.15


def test_a_sentence_with_no_such_name_cannot_be_made_commoner() -> None:
    with pytest.raises(UnknownNameError, match=r"people\.left"):
        _build({"people.lefft": 3})
