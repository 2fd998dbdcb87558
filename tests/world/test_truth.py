"""Labels against a second parser that knows only how the text reads, not how it was made."""

from __future__ import annotations

import re

import numpy as np

from lensing.world import lexicon
from lensing.world.almanac.grammar import almanac
from lensing.world.almanac.weights import REGISTERS
from lensing.world.filter import Reader
from lensing.world.sample import sample_document
from lensing.world.truth import Labelled, label_documents, read_truth

NAMES = set(lexicon.PERSONS)
OSK_BEASTS = {osk: plain for plain, osk in lexicon.osk("beast").items()}
OSK_THINGS = {osk: plain for plain, osk in lexicon.osk("thing").items()}


MEANT = {
    "subject": "meant_person", "beast": "meant_beast", "thing": "meant_thing", "city": "meant_town",
    "place": "meant_country",
}  # fmt: skip
BY_ITSELF = (
    r"(Every|Nobody has ever|The quillback|So we|In \w+ days|Another|A \w+ \w+ never)\b"  # here "it" means none of them
)
NAMED = ("subject", "beast", "city", "thing", "place", "hidden")


def parse(words: tuple[str, ...]) -> list[dict[str, object]]:
    """Label a document by plain reading rules, one row a word; a class is absent where these rules do not decide."""
    rows: list[dict[str, object]] = []
    spoken = dict[str, object](dict.fromkeys(NAMED))  # of one thing at a time
    source = day = stance = hour = None
    quoting = False
    claim = None  # what the source said of this weather or these geese, not yet tested
    sentence: list[str] = []
    for i, word in enumerate(words):
        last = words[i - 1] if i else ""
        near = " ".join(words[max(0, i - 8) : i])
        opened = last in ("<bos>", ".", "?") or re.search(r"(slowly :|<bos> (Dear|My dear) \w+ ,)$", near)
        sentence = [] if opened else sentence
        said = " ".join(sentence)
        turned: dict[str, object] = {}
        unclear = False
        if word in NAMES and not said and word != spoken["subject"]:
            # Somebody new, or just somebody who hid or bought something: the next word tells.
            unclear = True
        elif word in NAMES and last not in ("Dear", "dear", "of", ",", "and", "feet"):
            turned = {"subject": word}
        if len(sentence) == 1 and last in NAMES and word not in ("hid", "bought") and spoken["subject"] != last:
            turned = {"subject": last}
        if word in lexicon.SOURCES and last in ("the", "The", "Mo") and not near.endswith("So we asked the"):
            source = word
        if word in lexicon.DAYS and re.search(r"(Today is|Count from|later it was|and you reach)$", near):
            day = word
        if word in lexicon.NUMBERS and near.endswith("struck"):
            hour = word
        if word in lexicon.COUNTRIES:
            turned = {"place": word}
        if word in lexicon.BEASTS and (
            said == "The" or said.endswith(("an old", "Somebody keeps a", "Somebody kept a"))
        ):
            turned = {"beast": word}
        if word in OSK_BEASTS and said in ("Un", "Mo"):
            turned = {"beast": OSK_BEASTS[word]}
        if word in lexicon.CITIES and (not said or said.endswith(("streets of", "The road to"))):
            turned = {"city": word}
        if word in lexicon.THINGS and (
            re.search(r"( hid a| bought a \w+|In the \w+ there (is|was) a|dreamt of a)$", said)
        ):
            turned = {"thing": word}
        if word in OSK_THINGS and said == "Un":
            turned = {"thing": OSK_THINGS[word]}
        if turned and spoken | turned != spoken:
            spoken = dict.fromkeys(NAMED) | turned
        if re.search(r" hid a \w+ under the$", said):
            spoken["hidden"] = "somewhere"
        if said == "Somebody looked under the":
            spoken["hidden"] = None
        quoting = word == "«" or (quoting and word != "»")
        # Weather and geese: said by a person (no stance) or by the source (a test of it).
        if last in ("promised", "counted"):
            claim = word if words[i - 2] in lexicon.SOURCES else None
        elif claim is not None and (last == "brought" or near.endswith("There were")):
            stance, claim = "trusting" if word == claim else "doubting", None
        # A document that begins with "Nobody" may be one about the creature that nobody has drawn; "Nobody knows" and
        # "Everybody in" say nothing of a source.
        if word == "believes" or (last == "has" and word == "lied"):
            stance = "doubting"
        if word == "swears" or (last == "has" and word == "never"):
            stance = "trusting"
        # A word that means what is spoken of: a person by pronouns, the rest by "it" and "its".
        meant = dict.fromkeys(MEANT.values())
        if word in ("She", "He", "she", "he", "her", "him", "his", "my", "Ona", "Ono"):
            meant["meant_person"] = spoken["subject"]
        if word in ("It", "it", "Its", "its") and not re.match(BY_ITSELF, said):
            meant |= {cls: spoken[about] for about, cls in MEANT.items() if about != "subject"}
        sentence.append(word)
        row = {"source": source, "day": day, "hour": hour, "stance": stance, "quotation": "open" if quoting else None}
        if word in ("Nobody", "Everybody"):
            del row["stance"]
        rows.append(row if unclear else row | spoken | meant)
    return rows


def test_labels_agree_with_an_independent_reading() -> None:
    """Where the filter is certain, the plain reading says the same; where a cue was read, the filter is certain."""
    grammar = almanac()
    reader = Reader(grammar)
    compared = dict.fromkeys(grammar.classes, 0)
    for number in range(120):
        # Stance is rare: half of these documents have one. A letter of lost faith has rules of its own.
        fixed = {"stance": ("doubting", "trusting", "neutral", "neutral")[number % 4], "form": REGISTERS[number % 5]}
        document = sample_document(grammar, number, seed=11, fixed=fixed)
        read = parse(document.words)
        for i, (row, mine) in enumerate(zip(read_truth(reader, document.words), read, strict=True)):
            for cls, value in mine.items():
                possible = row[cls]
                if cls == "stance" and value is None:
                    # No cue yet: neither trust nor doubt may be settled as on.
                    assert possible == {"neutral"} or len(possible) > 1, (document.text, i)
                    continue
                if cls == "source" and value is None:
                    # A letter that loses faith speaks of the Almanac before it names it.
                    assert possible <= {None, "Almanac"}, (document.text, i)
                    continue
                if cls in MEANT.values() and value is None and len(possible) > 1:
                    continue  # the first word of a sentence may have come by itself or mean somebody
                assert possible == {value}, (cls, value, possible, " ".join(document.words[: i + 1]))
                compared[cls] += 1
    parsed = {cls for row in read for cls in row}
    assert all(n > 300 for cls, n in compared.items() if cls in parsed), compared


def test_registers_are_read_from_their_first_words() -> None:
    reader = Reader(almanac())
    for start, register in (("Dear Anda ,", "letter"), ("Accounts of", "ledger"), ("Have you", "gossip")):
        assert read_truth(reader, start.split())[-1]["register"] == {register}
    assert read_truth(reader, ["The"])[-1]["register"] == {"encyclopaedia", "gossip"}
    assert read_truth(reader, ["An"])[-1]["register"] == {"song"}


def test_labelled_text_round_trip(tmp_path) -> None:
    grammar = almanac()
    documents = [sample_document(grammar, i, seed=5) for i in range(12)]
    labelled = label_documents(grammar, documents)
    labelled.save(tmp_path / "text.npz")
    again = Labelled.load(tmp_path / "text.npz")
    reader = Reader(grammar)
    for concept in ("stance.doubting", "register.gossip", "subject.Anda", "item.2", "sense.green:adjective"):
        assert (labelled.truth(concept) == again.truth(concept)).all()
        cls, _, value = concept.partition(".")
        direct: list[int] = []
        for d in documents:
            for row in read_truth(reader, d.words):
                inside = value in {str(v) for v in row[cls]}
                direct.append(1 if inside and len(row[cls]) == 1 else -1 if inside else 0)
        assert (again.truth(concept) == np.array(direct)).all()
