"""Documents come out as they were written, and every broken file is named in one sentence."""

from __future__ import annotations

import gzip
import json
import sys
from types import SimpleNamespace

import pytest
import torch

from lensing.data.readers import READERS, Row
from lensing.data.text import Text, read_documents, sample_documents
from lensing.errors import FileFormatError, UnknownNameError, UsageError


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


def table(path, texts):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs lensing[text]")
    parquet.write_table(__import__("pyarrow").table({"id": range(len(texts)), "body": texts}), path)
    return path


def test_parquet_gives_the_named_column(tmp_path):
    file = table(tmp_path / "a.parquet", ["one", "", "two\n\nlines", "three"])
    assert read_documents(file, field="body") == ["one", "two\n\nlines", "three"]
    with pytest.raises(UnknownNameError, match=r"no column named 'text'\. .*a\.parquet has: id, body"):
        read_documents(file)
    with pytest.raises(FileFormatError, match="line 1 has no text in 'id': int there"):
        read_documents(file, field="id")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(FileFormatError, match="not a whole parquet file"):
        read_documents(file, field="body")


def test_zstd_is_read_and_a_cut_off_file_is_not(tmp_path):
    zstandard = pytest.importorskip("zstandard", reason="needs lensing[text]")
    raw = b"".join(zstandard.ZstdCompressor().compress(part) for part in (b"one\n\ntw" * 9000, b"o\n\nthree"))
    file = tmp_path / "a.txt.zst"
    file.write_bytes(raw)
    assert read_documents(file)[-2:] == ["two", "three"]
    for broken in (raw[:-3], raw[: len(raw) // 2], b"no zstd at all"):
        file.write_bytes(broken)
        with pytest.raises(FileFormatError, match="is not a whole zstd file"):
            read_documents(file)


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.jsonl").write_text('{"text": "two"}')
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one"))
    (tmp_path / "c.txt").write_text("three")
    (tmp_path / "README.md").write_text("not text to read")
    (tmp_path / ".hidden.txt").write_text("nor this")
    assert read_documents(tmp_path) == ["one", "two", "three"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no file that is read"):
        read_documents(tmp_path / "empty")


def test_unusable_rows_are_counted_and_left_out_only_by_choice(tmp_path):
    lines = [b'{"text": "a"}', b'{"text": 3}', b"\xff\xfe", b"not json", b'{"text": "b\\u0000"}', b"[" * 100_000, b"\0"]
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(FileFormatError, match=r"a\.jsonl, line 2 has no text field.*So are 4 of the next 5 rows"):
        read_documents(file)
    text = Text(file, skip_bad=True)
    assert list(text) == ["a", "b\0"]
    assert text.skipped == 5
    assert list(text) == ["a", "b\0"]
    assert text.skipped == 5, "counted anew at each reading"


def test_a_bad_line_spoils_its_own_document_only(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfone\n\ntwo\ncaf\xe9 latin\nstill two\n\n\nthree")
    with pytest.raises(FileFormatError, match=r"line 4 is not UTF-8 text: .* Correct it, or leave such rows out"):
        read_documents(file)
    assert read_documents(file, skip_bad=True) == ["one", "three"]
    file.write_bytes("one".encode("utf-16"))
    with pytest.raises(FileFormatError, match="line 1 is binary: not UTF-8 text"):
        read_documents(file)
    with pytest.raises(UsageError, match=r"holds no text \(1 rows that cannot be used were left out\)"):
        read_documents(file, skip_bad=True)


def test_a_reader_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr(READERS, "_items", dict(READERS._items))
    READERS.register("csv")(lambda file, path, field: (Row(n, row.decode()) for n, row in enumerate(file, start=1)))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"x\ny\n"))
    assert read_documents(tmp_path / "a.csv.gz") == ["x", "y"]


@pytest.mark.parametrize("module", ["zstandard", "pyarrow.parquet", "datasets"])
def test_a_missing_library_is_named_with_the_line_that_installs_it(tmp_path, monkeypatch, module):
    name = {"zstandard": "a.txt.zst", "pyarrow.parquet": "a.parquet", "datasets": "someone/corpus"}[module]
    if module != "datasets":
        name = tmp_path / name
        name.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, module, None)
    extra = "hub" if module == "datasets" else "text"
    with pytest.raises(UsageError, match=rf"is not installed\. Install it with: pip install 'lensing\[{extra}\]'"):
        read_documents(name)


def test_saved_datasets(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs lensing[hub]")
    one = datasets.Dataset.from_dict({"body": ["one", "two", None]})
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": one.select([0]), "test": one}).save_to_disk(tmp_path / "many")
    assert read_documents(tmp_path / "one", field="body", skip_bad=True) == ["one", "two"]
    assert read_documents(tmp_path / "many", field="body") == ["one"]
    with pytest.raises(FileFormatError, match="one, line 3 has no text in 'body': nothing there"):
        read_documents(tmp_path / "one", field="body")
    with pytest.raises(UnknownNameError, match="one has: body"):
        read_documents(tmp_path / "one")
    with pytest.raises(UsageError, match=r"The dataset someone/corpus cannot be opened: .*check its name and the net"):
        read_documents("someone/corpus")
