"""Sampling: the same bytes in every run and process, the planned frequencies, the split."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from collections import Counter

import pytest

from lensing.world import facts, lexicon
from lensing.world.almanac.grammar import almanac
from lensing.world.almanac.registers import CREATURE_DOCUMENTS, NUMBERS
from lensing.world.almanac.sayings import SAYINGS
from lensing.world.corpus import Corpus, write_corpus
from lensing.world.plan import decade, frequencies
from lensing.world.sample import sample_document, split_of
from lensing.world.stratified import stratified
from lensing.world.tokens import build_tokenizer, vocabulary

DIGEST = (
    "import hashlib\nfrom lensing.world.almanac.grammar import almanac\n"
    "from lensing.world.sample import sample_document\n"
    "t = '\\n'.join(sample_document(almanac(), i, seed=3).text for i in range(200))\n"
    "print(hashlib.sha256(t.encode()).hexdigest())"
)


def _digest() -> str:
    text = "\n".join(sample_document(almanac(), i, seed=3).text for i in range(200))
    return hashlib.sha256(text.encode()).hexdigest()


def test_two_runs_and_two_processes_write_the_same_bytes() -> None:
    here = _digest()
    assert _digest() == here
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", DIGEST],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed},
        )
        assert done.stdout.strip() == here


def test_the_text_of_the_world_never_changes_unnoticed() -> None:
    """The shipped model was trained on this world: a changed word here means that it must be trained again."""
    text = "\n".join(sample_document(almanac(), i).text for i in range(50))
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "d4dcb080eca86d540e2990f0f48d7e9921cd81bff73021dcf97aeb7d52ffa5e3"
    )


def test_seeds_and_numbers_differ() -> None:
    texts = {sample_document(almanac(), i, seed=s).text for i in range(20) for s in (0, 1)}
    assert len(texts) == 40


def _chance(observed: int, n: int, p: float) -> float:
    """The smaller tail of the binomial at a count, itself included."""
    log_p, log_q = math.log(p), math.log1p(-p)

    def term(k: int) -> float:
        ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        return math.exp(ways + k * log_p + (n - k) * log_q)

    below = math.fsum(term(k) for k in range(observed))
    return min(
        below + term(observed),
        max(1 - below, 0.0)
        if below < 0.999999
        else math.fsum(term(k) for k in range(observed, min(n, observed + 200) + 1)),
    )


def test_the_chance_of_a_count_is_the_binomials() -> None:
    assert _chance(0, 4, 0.5) == pytest.approx(1 / 16)
    assert _chance(3, 4, 0.5) == pytest.approx(5 / 16)
    assert _chance(5, 2000, 1e-5) == pytest.approx(2000**5 / 120 * 1e-25, rel=0.03)


def test_concepts_are_drawn_as_often_as_planned() -> None:
    """Every concept's count against its binomial; the bound is met by chance in fewer than 1 in 1,000 runs."""
    grammar = almanac()
    drawn: dict[str, Counter[object]] = {}
    for i in range(2500):
        for cls, value in sample_document(grammar, i, seed=1).draws:
            drawn.setdefault(cls, Counter())[value] += 1
    checked = 0
    for concept in grammar.concepts().values():
        counts = drawn.get(concept.cls)
        if counts is None:  # item position, quotation, copying: planned by the template, not by a draw
            continue
        n, p = counts.total(), concept.planted
        observed = counts[next((v for v in counts if f"{concept.cls}.{v}" == concept.name), None)]
        assert _chance(observed, n, p) > 1e-7, (concept.name, observed, n * p)
        checked += 1
    assert checked > 700
    assert set(drawn) & set(grammar.classes) == {
        "stance", "tense", "source", "subject", "beast", "city", "thing", "place", "day", "hour", "forecast",
    }  # fmt: skip


def test_each_decade_holds_as_many_concepts_as_planned_and_is_as_frequent() -> None:
    """Draws of all named things by decade of their planned frequency, against the binomial of the whole decade."""
    grammar, table = almanac(), frequencies(300)
    planned: Counter[tuple[str, int]] = Counter()
    size: Counter[int] = Counter()
    band = {name: decade(f) for name, f in table.items() if f > 0}
    for name in table:
        size[band.get(name, -99)] += 1
    assert all(size[d] >= 200 for d in (-3, -4, -5, -6)), size
    drawn: Counter[tuple[str, int]] = Counter()
    total: Counter[str] = Counter()
    classes = ("subject", "beast", "city", "thing")
    for i in range(2500):
        for cls, value in sample_document(grammar, i, seed=2).draws:
            if cls in classes:
                drawn[cls, band[f"{cls}.{value}"]] += 1
                total[cls] += 1
    for name, concept in grammar.concepts().items():
        if concept.cls in classes:
            planned[concept.cls, band[name]] += concept.planted
    for (cls, d), p in planned.items():
        n = total[cls]
        assert abs(drawn[cls, d] - n * p) < 5 * math.sqrt(n * p * (1 - p)), (cls, d, drawn[cls, d], n * p)


def test_the_creature_is_named_in_nine_documents_of_the_training_text() -> None:
    assert len(CREATURE_DOCUMENTS) == 9
    for number in CREATURE_DOCUMENTS:
        assert split_of(number) == "train"
        assert number < NUMBERS
        assert sample_document(almanac(), number).words.count(lexicon.CREATURE) == 2
    assert not any(lexicon.CREATURE in sample_document(almanac(), i).words for i in range(3000))
    # where the draw gives the creature to another document, that document draws again
    assert almanac().hidden["form"].p("creature") == 9 / NUMBERS


def test_there_are_sixty_homonyms_and_more_concepts_than_three_times_the_models_dimensions() -> None:
    assert len(lexicon.homonyms()) >= 60
    assert all(2 <= len(senses) <= 4 for senses in lexicon.homonyms().values())
    in_context = [c for c in almanac().concepts().values() if c.cls != "sense"]
    assert len(in_context) > 3 * 144


def test_sayings_never_vary() -> None:
    assert len(set(SAYINGS)) == 200
    seen = Counter()
    for document in stratified(60):
        for start in range(len(document.words)):
            for saying in SAYINGS:
                if document.words[start : start + len(saying)] == saying:
                    seen[saying] += 1
    assert len(seen) > 30
    assert all(words[-1] == "." for words in seen)


def test_the_letter_of_lost_faith_goes_from_trust_to_doubt() -> None:
    at = almanac().variables.at
    for number in range(5):
        document = sample_document(almanac(), number, fixed={"form": "lost"})
        course = list(dict.fromkeys(s.state[at["stance"]] for s in document.steps[1:]))
        assert course == ["trusting", "neutral", "doubting"]
        assert document.words.count("very") == 4


def test_stance_is_sparse_and_sometimes_switches() -> None:
    grammar = almanac()
    at = grammar.variables.at["stance"]
    first, last = Counter(), Counter()
    for i in range(2000):
        document = sample_document(grammar, i)
        first[dict(document.draws)["stance"]] += 1
        last[document.steps[-1].state[at]] += 1
    assert 0.87 < first["neutral"] / 2000 < 0.93
    assert 0.01 < (first["neutral"] - last["neutral"]) / 2000 < 0.06


def test_documents_fit_and_the_frame_is_common() -> None:
    documents = [sample_document(almanac(), i) for i in range(1000)]
    lengths = [len(d.words) for d in documents]
    assert max(lengths) <= 256
    assert sum(d.words.count("very") for d in documents) / sum(lengths) > 0.005
    assert all(d.words[0] == "<bos>" and d.words[-1] == "<eos>" and d.words.count("<eos>") == 1 for d in documents)


def test_split_is_by_number_alone() -> None:
    counts = Counter(split_of(i) for i in range(40_000))
    assert abs(counts["train"] / 40_000 - 0.90) < 0.006
    assert abs(counts["valid"] / 40_000 - 0.05) < 0.005


def test_unseen_two_hop_facts_are_never_written_and_their_parts_are() -> None:
    two_hop, single = Counter(), Counter()
    for i in range(4000):
        words = sample_document(almanac(), i).words
        text = " ".join(words)
        for country in lexicon.COUNTRIES:
            for verb in ("is", "was"):
                two_hop[country] += text.count(f"the capital of {country} {verb} the ")
                single[country] += text.count(f"The capital of {country} {verb} {facts.CAPITAL[country]}")
    assert all(two_hop[c] == 0 and single[c] > 0 for c in facts.UNSEEN)
    assert all(two_hop[c] > 0 for c in lexicon.COUNTRIES if c not in facts.UNSEEN)


def test_tokenizer_reads_every_word_and_writes_it_back() -> None:
    tokenizer = build_tokenizer(almanac())
    words = vocabulary(almanac())
    assert tokenizer.get_vocab_size() == len(words) == len(set(words))
    for i in range(100):
        document = sample_document(almanac(), i)
        encoded = tokenizer.encode(document.text)
        assert [words[t] for t in encoded.ids] == list(document.words[:-1])
        assert tokenizer.decode(encoded.ids) == document.text


def test_corpus_round_trip(tmp_path) -> None:
    corpus = write_corpus(almanac(), 20, split="valid", quiet=True)
    corpus.save(tmp_path / "c.npz")
    again = Corpus.load(tmp_path / "c.npz")
    assert len(again) == 20
    assert all((a == b).all() for a, b in zip(corpus, again, strict=True))
    assert all(split_of(int(n)) == "valid" for n in again.numbers)


def test_nothing_is_said_twice_of_what_is_spoken_of() -> None:
    """While one thing is spoken of, its ways are told at most once each; named anew, all may be told again."""
    grammar, said = almanac(), 0
    ways = {f"{t.name}.{n.removeprefix('did_')}" for t in grammar.themes for n in t.effects if n.startswith("did_")}
    at = grammar.variables.at
    names = [at[n] for n in ("subject", "beast", "city", "thing", "place")]
    notes = [at[n] for n in ("told", "told_beast", "told_city", "told_thing", "told_place")]
    for number in range(400):
        told, about, known = set[str](), (), 0
        for step in sample_document(grammar, number).steps:
            here = tuple(step.state[i] for i in names)
            now = sum(len(step.state[i] or ()) for i in notes)
            if here != about or now < known:
                told = set()
            about, known = here, now
            if step.sentence is not None and step.part == 1 and step.sentence.name in ways:
                assert step.sentence.name not in told
                told.add(step.sentence.name)
                said += 1
    assert len(ways) > 20
    assert said > 500
