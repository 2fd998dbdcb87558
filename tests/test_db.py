"""Notes: what is written is found, by many threads, in any order, and nothing else is."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from lensing.db import Notes
from lensing.errors import FileFormatError, LensingError, UsageError


@pytest.fixture
def notes(tmp_path):
    return Notes(tmp_path / "deep" / "notes.sqlite")


def test_labels_come_in_order_persons_first(notes):
    notes.fill("s", [(1, "fires on river"), (2, "fires on stone")], method="automatic")
    notes.add_label("s", 1, "rivers", method="detection", by="a model", score=0.8, n=50)
    notes.add_label("s", 1, "bodies of water")
    assert [label.text for label in notes.labels("s", 1)] == ["bodies of water", "rivers", "fires on river"]
    best = notes.best("s", [1, 2, 3])
    assert {i: label.text for i, label in best.items()} == {1: "bodies of water", 2: "fires on stone"}
    assert notes.labels("other", 1) == []


def test_search_takes_beginnings_and_nothing_as_syntax(notes):
    notes.fill("s", enumerate(["doubting a source", "trust in it", "doubtful weather"]), method="automatic")
    assert {label.latent for label in notes.search("s", "doubt")} == {0, 2}
    assert [label.latent for label in notes.search("s", "doubting sour")] == [0]
    for odd in ("a OR b", "NEAR(", "text:x", "doubt AND"):
        assert notes.search("s", odd) == []
    for empty in ('"', "*", " "):
        with pytest.raises(UsageError, match="no word"):
            notes.search("s", empty)
    assert notes.search("other", "doubt") == []


def test_filling_again_replaces_and_the_search_forgets(notes):
    notes.fill("s", [(0, "old words")], method="automatic")
    notes.fill("s", [(0, "new words")], method="automatic")
    assert notes.count("s", "automatic") == 1
    assert notes.search("s", "old") == []


def test_lists_tags_and_notes(notes):
    notes.put_item("mine", "s", 3)
    notes.put_item("mine", "t", 4, "why")
    assert notes.lists() == [("mine", 2)]
    assert notes.items("mine") == [("s", 3, ""), ("t", 4, "why")]
    notes.remove_item("mine", "s", 3)
    assert notes.items("mine") == [("t", 4, "why")]
    notes.remove_list("mine")
    assert notes.lists() == []
    with pytest.raises(UsageError):
        notes.remove_list("mine")
    notes.put_tags("s", 3, ["b", "a", "a"])
    assert notes.tags("s", 3) == ["a", "b"]
    assert notes.tagged("s") == {"a": [3], "b": [3]}
    notes.put_note("s", 3, "look")
    assert notes.note("s", 3) == "look"
    notes.put_note("s", 3, "  ")
    assert notes.note("s", 3) == ""


@pytest.mark.parametrize("text", ["", "   ", "x" * 5000])
def test_empty_and_endless_labels_are_refused(notes, text):
    with pytest.raises(UsageError):
        notes.add_label("s", 1, text)


def test_many_threads_lose_nothing(notes):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: notes.add_label("s", i, f"label {i}"), range(200)))
    assert notes.count("s", "person") == 200


def test_a_second_opening_sees_the_first(tmp_path):
    path = tmp_path / "n.sqlite"
    Notes(path).add_label("s", 1, "kept")
    assert Notes(path).labels("s", 1)[0].text == "kept"


def test_other_databases_and_newer_ones_are_refused(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("create table x (y)")
    with pytest.raises(FileFormatError, match="something else"):
        Notes(path)
    newer = tmp_path / "newer.sqlite"
    Notes(newer).close()
    with sqlite3.connect(newer) as other:
        other.execute("pragma user_version = 99")
    with pytest.raises(FileFormatError, match="version 99"):
        Notes(newer)
    with pytest.raises(LensingError):
        Notes(tmp_path)
