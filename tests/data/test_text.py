"""Documents come out as they were written, and every broken file is named in one sentence."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace

import pytest
import torch

from lensing.data.text import read_documents, sample_documents
from lensing.errors import FileFormatError, UsageError


def test_txt_is_parted_at_blank_lines(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("one\nstill one\n\n \t\n\ntwo\n\n", encoding="utf-8")
    assert read_documents(file) == ["one\nstill one", "two"]


def test_txt_without_blank_lines_is_one_document(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\n", encoding="utf-8")
    assert read_documents(file) == ["one\ntwo"]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_jsonl_round_trip(tmp_path, ending):
    texts = ["a\n\nb", "caf\u00e9 \u2028 line", "c"]
    raw = "\n".join(json.dumps({"id": i, "text": t}, ensure_ascii=False) for i, t in enumerate(texts)).encode()
    file = tmp_path / f"a.{ending}"
    file.write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
    assert read_documents(file) == texts


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("a.csv", b"x", UsageError, "no kind of file that is read: .txt, .jsonl, .parquet"),
        ("a.txt", b" \n\n ", UsageError, "holds no text"),
        ("a.txt", b"\xff\xfe\x00", FileFormatError, "not UTF-8 text"),
        ("a.txt.gz", b"no gzip", FileFormatError, "not a whole gzip file"),
        ("a.txt.gz", gzip.compress(b"hello" * 1000)[:-12], FileFormatError, "not a whole gzip file"),
        ("a.jsonl", b'{"text": "x"}\n{"text": ', FileFormatError, "line 2 is not JSON"),
        ("a.jsonl", b'{"texts": "x"}', FileFormatError, "no text field 'text'. Did you mean 'texts'?"),
        ("a.jsonl", b"[1]", FileFormatError, "no text field 'text'"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, error, words):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(error, match=words.replace("?", r"\?").replace(".", r"\.")) as caught:
        read_documents(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="There is no file"):
        read_documents(tmp_path / "none.txt")


class Scripted:
    """Stands in for a model: writes fixed rows, so that cutting and counting can be checked by hand."""

    name, bos_id, eos_ids, context = "scripted", 1, (2,), 6

    def __init__(self, row):
        self.row, self.seeds = row, []

    def generate(self, ids, *, max_new_tokens, temperature, seed, stop_ids):
        assert max_new_tokens == 5
        assert temperature == 1.0
        assert stop_ids == [1, 2]
        self.seeds.append(seed)
        return SimpleNamespace(ids=torch.tensor([self.row] * len(ids)))


def test_samples_are_cut_at_the_end_and_counted():
    model = Scripted([7, 8, 9, 2, 0])
    documents = sample_documents(model, 100, seed=5)
    assert documents == [[1, 7, 8, 9]] * 34  # the first count of threes that reaches 100
    assert model.seeds == [5, 6]  # a new seed for each batch: 17 at once, as 100 tokens in documents of 6 need at least


def test_a_model_that_says_nothing_is_refused():
    with pytest.raises(UsageError, match="ends every text at once"):
        sample_documents(Scripted([2, 0, 0, 0, 0]), 10)
    with pytest.raises(UsageError, match="at least 1"):
        sample_documents(Scripted([7, 7, 7, 7, 7]), 0)


def test_a_real_model_writes_documents_of_its_own(model):
    documents = sample_documents(model, 60, seed=3)
    assert sum(len(d) - 1 for d in documents) >= 60
    assert all(d[0] == model.bos_id and 1 < len(d) <= model.context for d in documents)
    assert not any(model.bos_id in d[1:] or set(model.eos_ids) & set(d) for d in documents)
    assert documents == sample_documents(model, 60, seed=3)
    assert documents != sample_documents(model, 60, seed=4)
