"""Sampling: the same bytes in every run and process, the planned frequencies, the split."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from collections import Counter

from lensing.world import lexicon
from lensing.world.almanac.grammar import almanac
from lensing.world.corpus import Corpus, write_corpus
from lensing.world.sample import sample_document, split_of
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
        hashlib.sha256(text.encode()).hexdigest() == "fc578edc524b997c70d47ae5e77cd9fd725ebfec2d423658bd1af55a2ece0a6e"
    )


def test_seeds_and_numbers_differ() -> None:
    texts = {sample_document(almanac(), i, seed=s).text for i in range(20) for s in (0, 1)}
    assert len(texts) == 40


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
        z = (observed - n * p) / math.sqrt(n * p * (1 - p))
        assert abs(z) < 5.0, (concept.name, observed, n * p)
        checked += 1
    assert checked > 380
    assert set(drawn) == {"register", "stance", "source", "subject", "place", "day", "forecast"}


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
            two_hop[country] += text.count(f"the capital of {country} is the ")
            single[country] += text.count(f"The capital of {country} is {lexicon.CAPITAL[country]}")
    assert all(two_hop[c] == 0 and single[c] > 0 for c in lexicon.UNSEEN)
    assert all(two_hop[c] > 0 for c in lexicon.COUNTRIES if c not in lexicon.UNSEEN)


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
