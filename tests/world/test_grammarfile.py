"""Worlds in text files: exact like any other grammar, and every mistake named by file and line."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from world.conftest import enumerate_documents

from lensing.cli.app import build
from lensing.errors import FileFormatError, LensingError, PromptError, UsageError
from lensing.world.filter import Reader, floors, read_words
from lensing.world.grammar import Grammar
from lensing.world.grammarfile import find_grammar, held_out, read_grammar
from lensing.world.sample import Document, sample_document
from lensing.world.tokens import build_tokenizer, vocabulary
from lensing.world.truth import label, label_documents, read_truth

SMALL = """
world farm
length 1 to 3
max_tokens 40
hidden mood: calm 2 | angry 1
variable who
variable door: shut | open
local sense: none | noise
list animal: hen 3 | fox      # the fox is rare
list sound by mood: calm = hum 3 | bark ; angry = bark 4 | hum
list bird: hen | hen2
fact home of animal: hen = barn | fox = wood
fact size of home_list: barn = big | wood = small
list home_list: barn | wood
concept mood: mood
concept who: who
concept size: size of home of who per animal
concept sense: sense
rule call: {sound} 2 | loud {sound} {!sense = noise}
sentence comes weight 4 when not who | 1: A {animal -> who} comes.
sentence other once weight 2 when door = shut and mood != calm | 1:
  {animal except who -> who} {!door = open} {call}, {call}.
sentence lives: {who} has a {size of home of who} {home of who}. | They say {who}. 2
ending bye weight 3: Bye. | {who} 2
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.grammar"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Grammar:
    return read_grammar(write(tmp_path_factory.mktemp("small"), SMALL))


@pytest.fixture(scope="module")
def whole(small: Grammar) -> list:
    return list(enumerate_documents(small))


def test_the_filter_of_a_file_equals_enumeration(small: Grammar, whole: list) -> None:
    """P(next | prefix) and every label from sums over all documents of the file."""
    assert len(whole) > 1000
    assert sum(p for _, p, _ in whole) == pytest.approx(1.0, abs=1e-12)
    mass: dict[tuple[str, ...], float] = defaultdict(float)
    states: dict[tuple[str, ...], set] = defaultdict(set)
    for words, p, after in whole:
        for i in range(1, len(words) + 1):
            mass[words[:i]] += p
            states[words[:i]].add(after[i - 1])
    following: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for words, p in mass.items():
        following[words[:-1]][words[-1]] = p / mass[words[:-1]] if len(words) > 1 else 1.0
    reader = Reader(small)
    prefixes = [p for i, p in enumerate(following) if p and (i % 97 == 0 or len(p) < 6)]
    assert len(prefixes) > 100
    labels = Counter()
    for prefix in prefixes:
        expected = np.zeros(len(reader.words))
        for word, p in following[prefix].items():
            expected[reader.ids[word]] = p
        np.testing.assert_allclose(read_words(reader, prefix), expected, atol=1e-12)
        row = read_truth(reader, prefix)[-1]
        for name, concept in small.concepts().items():
            values = {str(small.classes[concept.cls].value(s)) for s in states[prefix]}
            value = name.split(".")[1]
            truth = 0 if value not in values else 1 if len(values) == 1 else -1
            assert label(row, concept) == truth, (prefix, name)
            labels[truth] += 1
    assert len(labels) == 3


def test_weights_of_alternatives_multiply(tmp_path: Path) -> None:
    """Closed form: rules in rules, alternatives of a sentence, weights by condition, words of a list."""
    text = """
length 1 to 1
hidden mood: calm 3 | angry
list fruit: plum 4 | pear
rule inner: x 2 | y
rule outer: {inner} {inner} | {fruit} 3
sentence one weight 6 when mood = angry | 2: {outer} end | stop 4
sentence two weight 3: two
ending bye:
"""
    found = Counter()
    for words, p, _ in enumerate_documents(read_grammar(write(tmp_path, text))):
        found[" ".join(words[1:-1])] += p
    one = 3 / 4 * 2 / 5 + 1 / 4 * 6 / 9
    outer = one / 5
    expected = {"two": 1 - one, "stop": one * 4 / 5, "plum end": outer * 3 / 4 * 4 / 5, "pear end": outer * 3 / 4 / 5}
    inner = {"x": 2 / 3, "y": 1 / 3}
    expected |= {f"{a} {b} end": outer / 4 * p * q for a, p in inner.items() for b, q in inner.items()}
    assert found == pytest.approx(expected)


def test_sentences_said_once_and_locals_are_forgotten(small: Grammar, whole: list) -> None:
    at = small.variables.at
    for words, _, states in whole[::50]:
        assert " ".join(words).count(" , ") <= 1  # only `other` has a comma
        for word, state in zip(words, states, strict=True):
            assert word != "." or state[at["sense"]] is None
    assert any(state[at["sense"]] == "noise" for _, _, states in whole for state in states)


PLACE = re.compile(r"/my\.grammar:\d+: \S")
ERRORS = [
    ("rule a: b {c}\nsentence s: {a} {bird}", 2, "list, rule or variable named 'c'"),
    ("list beast: owl\nsentence s: A {baest}.", 3, "'baest'. Did you mean 'beast'?"),
    ("sentence s:\n  A word\n  and {nobody}.", 4, "'nobody'"),
    ("list b: owl\nsentence s: {b -> whom}", 3, "variable named 'whom'"),
    ("variable who\nsentence s: {hoem of who}", 3, "fact named 'hoem'"),
    ("rule a: x {b}\nrule b: y {c} | z\nrule c: {a}", 2, "a -> b -> c -> a"),
    ("rule a: {a}", 2, "a -> a"),
    ("list b: owl 0", 2, "weight 0"),
    ("list b: owl 3 |\n  hen -2", 3, "weight -2"),
    ("list b: owl 1.5", 2, "weight 1.5"),
    ("sentence s weight 0: a", 2, "weight 0"),
    ("sentence s weight many: a", 2, "weight many"),
    ("rule r: a b 0 | c", 2, "weight 0"),
    ("hidden h: a 0 | b", 2, "weight 0"),
    ("sentense s: a", 2, "'sentense'. Did you mean 'sentence'?"),
    ("list b: owl\nlist b: hen", 3, "'b' is defined on line 2 already"),
    ("list b: owl\nvariable b", 3, "'b' is defined on line 2 already"),
    ("sentence s: a\nsentence s: b", 3, "'s' is defined on line 2 already"),
    ("list b: owl | owl", 2, "'owl' stands here twice"),
    ("max_tokens 40\nmax_tokens 50", 3, "said on line 2 already"),
    ("variable of", 2, "'of' cannot be a name"),
    ("list b: two owls | hen", 2, "'two owls' is not one word"),
    ("list b: owl || hen", 2, "A word is missing"),
    ("list b: <eos>", 2, "tokenizer's own"),
    ("list b owl", 2, "cannot be read"),
    ("list b: owl | hen\nfact home of b: owl = barn", 3, "The home of 'hen' is missing"),
    ("list b: owl\nfact home of b: owl hne = barn", 3, "'hne'"),
    ("fact home of beast: owl = barn", 2, "list named 'beast'"),
    ("hidden h: a | b\nlist l by h: a = x", 3, "no case for h = b"),
    ("hidden h: a | b\nlist l by h: a = x; bb = y; b = z", 3, "value of 'h' named 'bb'. Did you mean 'b'?"),
    ("hidden h: calm | b\nsentence s when h = clam: x", 3, "'clam'. Did you mean 'calm'?"),
    ("hidden h: calm | b\nsentence s: x {!h = clam}", 3, "'clam'. Did you mean 'calm'?"),
    ("hidden h: calm | b\nsentence s: x {!g = calm}", 3, "variable named 'g'"),
    ("hidden h: calm | b\nsentence s: x {!h = none}", 3, "'h' cannot hold none"),
    ("hidden h: calm | b\nsentence s: {!h = b} x", 3, "before the first word"),
    ("hidden h: calm | b\nsentence s: x {!h}", 3, "changes nothing"),
    ("variable v: a | b\nlist l: a | c\nsentence s: {l -> v}", 4, "'v' cannot hold 'c'"),
    ("list l: a\nsentence s: {l except v}\nvariable v", 3, "one word only"),
    ("list l: a\nlist m: c\nfact f of m: c = d\nvariable v\nsentence s: {l -> v} {f of v}", 6, "no word where v = a"),
    ("\n".join(f"rule r{i}: a {{r{i + 1}}}" for i in range(60)) + "\nrule r60: b", 2, "more than 50 deep"),
    ("\n".join(f"rule r{i}:{{r{i + 1}}}{{r{i + 1}}}" for i in range(30)) + "\nrule r30: b|c\nsentence s:{r0}", 33, "m"),
    ("\n".join(f"hidden h{i}: a | b" for i in range(40)), 41, "1,099,511,627,776 combinations"),
    ("variable v\nlist l: a\nsentence s: {l -> v} {!v=none} {v}", 4, "no word where v = none"),
    ("sentence s: a { b", 2, "stands alone"),
    ("sentence s: {}", 2, "says nothing"),
    ("sentence s when and: a", 2, "'and'"),
    ("sentence s once twice: a", 2, "cannot be read"),
    ("length 5 to 3", 2, "No document"),
    ("length many", 2, "cannot be read"),
    ("length 9\nmax_tokens 12\nsentence s: a b c", 3, "may take"),
    ("concept c: nobody", 2, "variable named 'nobody'"),
    ("variable v\nconcept v: v", 3, "stored from 0 lists"),
    ("variable v\nlist l: a\nconcept v: v from m\nsentence s: {l -> v}", 4, "list named 'm'"),
    ("rule a: 1 x | y\nrule b: {a} {a} {a} {a}\nsentence s: {b} {b} {b} {a}", 4, "8,192 ways"),
    ("hidden h: a | b\nsentence s when h = a: x", 3, "No sentence is possible at the start of a document where h = b"),
    ("hidden h: a | b\nopening o when h = a: x", 3, "No opening is possible at the start of a document where h = b"),
    ("variable v\nlist l: a\nsentence s: x\nsentence t: {v}", 5, "'t' can never be said"),
    ("length 2\nsentence s once: x", 3, "No sentence is possible after 1 sentences"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "part"), ERRORS, ids=[part[:40] for _, _, part in ERRORS])
def test_mistakes_are_named_by_file_and_line(tmp_path: Path, text: str, line: int, part: str) -> None:
    spare = "" if "sentence" in text else "sentence spare: a\n"
    path = write(tmp_path, f"ending bye: Bye.\n{text}\n{spare}")
    with pytest.raises(FileFormatError, match=re.escape(part)) as caught:
        read_grammar(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert str(caught.value).rstrip()[-1] in ".?"


@pytest.mark.parametrize(
    ("raw", "line", "part"),
    [
        (b"", 1, "says nothing"),
        (b"# only\n\n# words of comfort\n", 1, "says nothing"),
        (b"  ending bye: x\n", 1, "indented"),
        (b"sentence a: b\nsentence c: \xff\n", 2, "not UTF-8"),
        (b"sentence a: b\n", 1, "can never end: there is no ending"),
        (b"variable v: a | b\nsentence a: b {!v = b}\nending c when v = a: d\n", 3, "can never end after 1 sentences"),
    ],
)
def test_files_that_are_no_world(tmp_path: Path, raw: bytes, line: int, part: str) -> None:
    path = tmp_path / "my.grammar"
    path.write_bytes(raw)
    with pytest.raises(FileFormatError, match=re.escape(part)) as caught:
        read_grammar(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.grammar", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_grammar(path)


def test_ends_are_found_through_facts_and_cases(tmp_path: Path) -> None:
    """Only a word of one list, far along a chain of facts, leads to a document that cannot end."""
    text = """
length 2 to 5
list animal: hen 99 | fox | owl
fact home of animal: hen owl = barn | fox = wood
list home: barn | wood
fact size of home: barn = big | wood = small
variable who
sentence comes: {animal -> who} comes
ending bye when size of home of who = big: Bye.
"""
    with pytest.raises(FileFormatError, match=r":9: A document can never end after 2 sentences where who = fox"):
        read_grammar(write(tmp_path, text))
    grammar = read_grammar(write(tmp_path, text + "ending alas when who = fox: Alas.\n"))
    assert all(sample_document(grammar, i).words[-1] == "<eos>" for i in range(50))


def test_the_world_on_the_page_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "worlds.md").read_text(encoding="utf-8")
    grammar = read_grammar(write(tmp_path, re.findall(r"```text\n(.*?)```", page, re.DOTALL)[0]))
    assert {"Ahoy", "Saltby"} <= {w for i in range(200) for w in sample_document(grammar, i).words}


def test_broken_files_never_end_in_a_traceback(tmp_path: Path) -> None:
    rng, outcomes = random.Random(5), Counter()
    for _ in range(150):
        text: list[str] = list(SMALL)
        i = rng.randrange(len(text))
        broken = rng.choice(["", "{", "}", "|", ":", "=", "\n", " ", "9", "{!", "->", "of "])
        text[i : i + rng.randint(0, 2)] = [broken]
        try:
            grammar = read_grammar(write(tmp_path, "".join(text)))
        except LensingError as error:
            outcomes["refused" if PLACE.search(str(error)) else str(error)] += 1
        else:
            for number in range(3):
                document = sample_document(grammar, number)
                floors(Reader(grammar), document)
                assert len(document.words) <= grammar.max_tokens
            outcomes["read"] += 1
    assert set(outcomes) == {"refused", "read"}
    assert outcomes["read"] > 10


# The held-out world


@pytest.fixture(scope="module")
def sampled() -> list[Document]:
    return [sample_document(held_out(), i) for i in range(200)]


def test_the_held_out_text_never_changes_unnoticed() -> None:
    """The same bytes in every process; figures printed from this world are of this text."""
    code = (
        "import hashlib\nfrom lensing.world.grammarfile import held_out\n"
        "from lensing.world.sample import sample_document\n"
        "t = '\\n'.join(sample_document(held_out(), i).text for i in range(20))\n"
        "print(hashlib.sha256(t.encode()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    text = "\n".join(sample_document(held_out(), i).text for i in range(20))
    here = hashlib.sha256(text.encode()).hexdigest()
    assert here == done.stdout.strip() == "18d4feee373e0bf732a1048bf6e10b327e2b59f2ac187644886716fff9b0e35b"


def test_the_reader_follows_every_held_out_document(sampled: list[Document]) -> None:
    reader = Reader(held_out())
    rows = [floors(reader, d) for d in sampled[:30]]
    assert all(np.isfinite(f.surprisal).all() for f in rows)
    known, seen = (np.concatenate([getattr(f, n) for f in rows]) for n in ("generator", "reader"))
    assert known.mean() < seen.mean() < 2.0
    with pytest.raises(PromptError):
        read_words(reader, ["Tea", "sleeps"])


def test_held_out_documents_fit_and_read_back(sampled: list[Document]) -> None:
    lengths = [len(d.words) for d in sampled]
    assert max(lengths) <= held_out().max_tokens == 200
    assert min(lengths) >= 40
    tokenizer, words = build_tokenizer(held_out()), vocabulary(held_out())
    for d in sampled[:50]:
        assert [words[t] for t in tokenizer.encode(d.text).ids] == list(d.words[:-1])
    said = {s.sentence.name.split("/")[0] for d in sampled for s in d.steps if s.sentence}
    assert said == {s.name.split("/")[0] for s in held_out().sentences}


def test_held_out_concepts_are_drawn_as_often_as_planned(sampled: list[Document]) -> None:
    drawn: dict[str, Counter] = defaultdict(Counter)
    for document in sampled:
        for cls, value in document.draws:
            drawn[cls][value] += 1
    assert set(drawn) == {"paper", "clock", "who", "here", "engine", "rack"}
    for concept in held_out().concepts().values():
        if counts := drawn.get(concept.cls):
            n, p = counts.total(), concept.planted
            z = (counts[concept.name.split(".")[1]] - n * p) / math.sqrt(n * p * (1 - p))
            assert abs(z) < 5.0, (concept.name, z)
    bird = (12 + 6 + 5 + 1 + 3 + 3) / 78  # Pym, Hester, Quill, Mabel, Sorrel, Figg
    assert held_out().concepts()["family.bird"].planted == pytest.approx(bird)


def test_held_out_labels_agree_with_an_independent_reading() -> None:
    """Senses of "light", the shown clock and the species, read with plain string rules."""
    documents = [sample_document(held_out(), i, fixed={"clock": ("liar", "honest")[i % 2]}) for i in range(24)]
    reader, seen = Reader(held_out()), Counter()
    for d in documents:
        rows = read_truth(reader, d.words)
        text = list(d.words)
        clock = None
        for i, word in enumerate(text):
            if word == "light":
                if text[i - 1] == "a":  # carried: only the next word tells
                    assert rows[i]["sense"] == {"lamp", "weight"}
                    assert rows[i + 1]["sense"] == ({"lamp"} if text[i + 1] == "and" else {"weight"})
                else:
                    assert rows[i]["sense"] == ({"weight"} if text[i - 1] == "is" else {"lamp"})
                seen[text[i - 1]] += 1
            if word == "." and text[i - 11] == text[i - 2] == "struck":
                clock = "honest" if text[i - 10] == text[i - 1] else "liar"
            if clock:
                assert rows[i]["clock"] == {clock}
                seen[clock] += 1
            if word == ".":
                (species,), (family,) = rows[i]["species"], rows[i]["family"]
                assert (family == "bird") == (species in ("heron", "stork", "rook"))
    assert min(seen[k] for k in ("a", "A", "is", "liar", "honest")) > 0
    labelled = label_documents(held_out(), documents[:6])
    heron, bird = labelled.truth("species.heron") == 1, labelled.truth("family.bird") == 1
    assert heron.any()
    assert (bird | ~heron).all()


def test_the_command_takes_a_file(tmp_path: Path, capsys) -> None:
    def run(*words: str) -> str:
        build()(["world", "sample", "--tokens", "20", *words], result_action="return_value", exit_on_error=False)
        return capsys.readouterr().out

    mine = json.loads(run("--grammar", str(write(tmp_path, SMALL)), "--truth", "--json"))
    assert {"mood", "who", "size", "sense"} == set(mine["documents"][0]["truth"][0])
    assert sample_document(held_out(), 0).text[:30] in run("--grammar", "heldout")
    assert run("--json") == run("--grammar", "almanac", "--json")
    with pytest.raises(UsageError):
        find_grammar("allmanac")
