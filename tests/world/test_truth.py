"""Labels against a second parser that knows only how the text reads, not how it was made."""

from __future__ import annotations

import re

import numpy as np

from lensing.world import lexicon
from lensing.world.almanac.grammar import almanac
from lensing.world.filter import Reader
from lensing.world.sample import sample_document
from lensing.world.truth import Labelled, label_documents, read_truth

NAMES = set(lexicon.PERSONS)
DOUBT, TRUST = ("Nobody", "has lied"), ("Everybody", "has never")


def parse(words: tuple[str, ...]) -> list[dict[str, object]]:
    """Label a document by plain reading rules, one row a word; a class is absent where these rules do not decide."""
    rows: list[dict[str, object]] = []
    subject = source = day = stance = place = forecast = None
    quoting, item, copying, hidden = False, None, None, None
    source_claim = None  # what the source said of this weather or these geese, not yet tested
    for i, word in enumerate(words):
        before, last = words[max(0, i - 8) : i], words[i - 1] if i else ""
        near = " ".join(before)
        if word in NAMES and last not in ("Dear", "dear") and not near.endswith(("Yours ,", "Accounts of")):
            subject = word
        if word in lexicon.SOURCES and last in ("the", "The"):
            source = word
        if (
            word in lexicon.DAYS
            and "reach" not in before[-1:]
            and re.search(r"(Today is|Count from|later it was)$", near)
        ):
            day = word
        if word in lexicon.DAYS and last == "reach":
            day = word
        if word in lexicon.COUNTRIES:
            place = word
        quoting = word == "«" or (quoting and word != "»")
        # Weather and geese: said by a person (no stance) or by the source (a test of it).
        if last in ("promised", "counted"):
            by_source = words[i - 2] in lexicon.SOURCES
            source_claim = word if by_source else None
            forecast = word if last == "promised" else forecast
        elif last == "brought" or near.endswith("There were"):
            forecast = None if last == "brought" else forecast
            if source_claim is not None:
                stance = "trusting" if word == source_claim else "doubting"
                source_claim = None
        if word == "Nobody" or (last == "has" and word == "lied"):
            stance = "doubting"
        if word == "Everybody" or (last == "has" and word == "never"):
            stance = "trusting"
        # Lists: position counts things named since the list began.
        if word in ("Bought", "Sold") or (word == "Then" and last == "."):
            copying = "list" if word in ("Sold", "Then") else None
            item = None
        if word == "shelf":
            item = None
        if word in lexicon.THINGS:
            listing = near.endswith(("lay a", "Bought : a", "took the", "Sold : the"))
            listing |= last in ("a", "the") and words[i - 2] == "," and item is not None
            item = (item or 0) + 1 if listing else item
        # A list ends with its sentence; "Sold : ... . Paid ." is one.
        if word == "." and not (copying and words[i + 1 : i + 2] == ("Paid",)):
            item, copying = None, None
        if near.endswith("hid a"):
            hidden = "somewhere"
        if word == "there" and "found" in before:
            hidden = None
        rows.append(
            {"subject": subject, "source": source, "day": day, "place": place, "stance": stance, "forecast": forecast,
             "quotation": "open" if quoting else None, "item": item, "copying": copying, "hidden": hidden}
        )  # fmt: skip
    return rows


def test_labels_agree_with_an_independent_reading() -> None:
    """Where the filter is certain, the plain reading says the same; where a cue was read, the filter is certain."""
    grammar = almanac()
    reader = Reader(grammar)
    compared = dict.fromkeys(grammar.classes, 0)
    for number in range(120):
        # Stance is rare: half of these documents have one.
        fixed = {"stance": ("doubting", "trusting", "neutral", "neutral")[number % 4]}
        document = sample_document(grammar, number, seed=11, fixed=fixed)
        read = parse(document.words)
        for i, (row, mine) in enumerate(zip(read_truth(reader, document.words), read, strict=True)):
            for cls, value in mine.items():
                possible = row[cls]
                if cls == "stance" and value is None:
                    # No cue yet: neither trust nor doubt may be settled as on.
                    assert possible == {"neutral"} or len(possible) > 1, (document.text, i)
                    continue
                assert possible == {value}, (cls, value, possible, " ".join(document.words[: i + 1]))
                compared[cls] += 1
    assert all(n > 300 for cls, n in compared.items() if cls != "register"), compared


def test_registers_are_read_from_their_first_words() -> None:
    reader = Reader(almanac())
    for start, register in (("Dear Anda ,", "letter"), ("Accounts of", "ledger"), ("Have you", "gossip")):
        assert read_truth(reader, start.split())[-1]["register"] == {register}
    assert read_truth(reader, ["The"])[-1]["register"] == {"encyclopaedia", "gossip"}


def test_labelled_text_round_trip(tmp_path) -> None:
    grammar = almanac()
    documents = [sample_document(grammar, i, seed=5) for i in range(12)]
    labelled = label_documents(grammar, documents)
    labelled.save(tmp_path / "text.npz")
    again = Labelled.load(tmp_path / "text.npz")
    reader = Reader(grammar)
    for concept in ("stance.doubting", "register.gossip", "subject.Anda", "item.2"):
        assert (labelled.truth(concept) == again.truth(concept)).all()
        cls, _, value = concept.partition(".")
        direct = []
        for d in documents:
            for row in read_truth(reader, d.words):
                inside = value in {str(v) for v in row[cls]}
                direct.append(1 if inside and len(row[cls]) == 1 else -1 if inside else 0)
        assert (again.truth(concept) == np.array(direct)).all()
