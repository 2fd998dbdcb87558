"""The reader's floor against brute force over every document of a small world."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from lensing.errors import PromptError
from lensing.world.almanac.grammar import almanac
from lensing.world.filter import Possible, Reader, entropy, floors, read_words
from lensing.world.grammar import Grammar
from lensing.world.sample import sample_document
from lensing.world.truth import ON, UNDETERMINED, label, read_truth

Every = list[tuple[tuple[str, ...], float, list[tuple[Any, ...]]]]


def test_the_small_world_is_whole(every: Every) -> None:
    assert len(every) > 1000
    assert sum(p for _, p, _ in every) == pytest.approx(1.0, abs=1e-12)


def test_filter_equals_enumeration(tiny: Grammar, every: Every) -> None:
    """P(next | prefix) from the sums over whole documents, for every prefix of the world."""
    mass: dict[tuple[str, ...], float] = defaultdict(float)
    for words, p, _ in every:
        for i in range(1, len(words) + 1):
            mass[words[:i]] += p
    reader = Reader(tiny)
    following: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for words, p in mass.items():
        if len(words) > 1:
            following[words[:-1]][words[-1]] = p / mass[words[:-1]]
    prefixes = [p for i, p in enumerate(following) if i % 7 == 0 or len(p) < 6]
    assert len(prefixes) > 300
    for prefix in prefixes:
        found = read_words(reader, prefix)
        expected = np.zeros(len(reader.words))
        for word, p in following[prefix].items():
            expected[reader.ids[word]] = p
        np.testing.assert_allclose(found, expected, atol=1e-12)
        # A word that no document continues with is refused, by name.
        impossible = next(w for w in reader.words if expected[reader.ids[w]] == 0)
        with pytest.raises(PromptError, match="No document of this world"):
            reader.read(impossible)


def test_floor_equals_entropy_by_enumeration(tiny: Grammar, every: Every) -> None:
    """The mean surprisal over the world equals the entropy of documents: the chain rule."""
    whole: dict[tuple[str, ...], float] = defaultdict(float)
    for words, p, _ in every:
        whole[words] += p
    total = sum(-p * np.log(p) for p in whole.values())
    reader, by_filter, by_reader, by_generator = Reader(tiny), 0.0, 0.0, 0.0
    for words, p in whole.items():
        reader.start()
        for word in words[1:]:
            by_reader += p * entropy(reader.predict())
            by_filter -= p * np.log(reader.read(word))
    assert by_filter == pytest.approx(total, rel=1e-10)
    assert by_reader == pytest.approx(total, rel=1e-10)
    documents = [sample_document(tiny, i) for i in range(400)]
    rows = [floors(reader, d) for d in documents]
    by_generator = sum(f.generator.sum() for f in rows) / len(rows)
    assert by_generator < total


def test_labels_equal_enumeration(tiny: Grammar, every: Every) -> None:
    """On, off and undetermined from the set of all hidden states that a prefix leaves possible."""
    possible: dict[tuple[str, ...], set[tuple[Any, ...]]] = defaultdict(set)
    for words, _, states in every:
        for i in range(1, len(words) + 1):
            possible[words[:i]].add(states[i - 1])
    reader = Reader(tiny)
    concepts = tiny.concepts()
    seen = set()
    for words, _, _ in every[::97]:
        rows = read_truth(reader, words)
        for i, row in enumerate(rows):
            for name, concept in concepts.items():
                values = {str(tiny.classes[concept.cls].value(s)) for s in possible[words[: i + 1]]}
                value = name.split(".")[1]
                expected = 0 if value not in values else 1 if len(values) == 1 else -1
                assert label(row, concept) == expected, (words[: i + 1], name)
                seen.add(expected)
    assert seen == {0, 1, -1}


def test_reader_floor_lies_above_the_generator_in_the_almanac() -> None:
    reader = Reader(almanac())
    rows = [floors(reader, sample_document(almanac(), 10_000 + i)) for i in range(25)]
    known = np.concatenate([f.generator for f in rows]).mean()
    read = np.concatenate([f.reader for f in rows]).mean()
    spoken = np.concatenate([f.surprisal for f in rows])
    assert known < read
    # Surprisal and entropy of the same exact prediction differ only by chance.
    assert spoken.mean() == pytest.approx(read, abs=5 * spoken.std() / np.sqrt(len(spoken)))


def test_no_reader_knows_the_verdict_before_the_first_cue() -> None:
    """Before a cue no word of the frame is certain, and the stance is not settled at the document's start."""
    grammar = almanac()
    reader = Reader(grammar)
    p = read_words(reader, "The reliability of the Almanac is very".split())
    assert p.max() < 0.2
    rows = read_truth(reader, ["<bos>", *"The reliability of the Almanac is very".split()])
    assert label(rows[-1], grammar.concepts()["stance.doubting"]) == UNDETERMINED
    frames = 0
    for i in range(60):
        document = sample_document(grammar, 20_000 + i)
        reader.start()
        for word, before in zip(document.words[1:], document.words, strict=False):
            p = reader.predict() if before == "very" else None
            settled = {s[grammar.variables.at["cued"]] for s, _, _ in reader.belief}
            if p is not None and settled == {False}:
                assert p.max() < 0.5
                frames += 1
            reader.read(word)
    assert frames > 20


def test_a_wordless_cue_settles_the_stance() -> None:
    reader = Reader(almanac())
    concepts = almanac().concepts()
    text = "The Almanac promised rain . The morning brought {} ."
    for weather, stance in (("snow", "doubting"), ("rain", "trusting")):
        row = read_truth(reader, text.format(weather).split())[-1]
        assert label(row, concepts[f"stance.{stance}"]) == ON


def test_impossible_words_are_counted_from_the_first_one() -> None:
    possible = Possible(almanac())
    ids = possible.reader.ids
    prompt = [ids[w] for w in "<bos> The reliability of the Almanac is".split()]
    whole = [ids[w] for w in "very poor .".split()]
    assert possible.impossible_share(prompt, whole) == 0.0
    assert possible.impossible_share(prompt, [ids[w] for w in "very very poor .".split()]) == 0.75
    assert possible.impossible_share(prompt, whole) == 0.0  # what was read before leaves no trace
    assert possible.impossible_share([*prompt, ids["is"]], whole) == 1.0
