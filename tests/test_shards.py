"""The bytes of a shard: what is written comes back, other readers agree, and every changed byte shows."""

from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors.torch import load_file, save_file

from lensing import shards
from lensing.errors import FileFormatError, LensingError, UsageError


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "ids": torch.arange(7, dtype=torch.int32), "doc": torch.arange(7) * 2**40,
        "x": torch.randn(7, 5, generator=generator).to(torch.bfloat16),
    }  # fmt: skip


@pytest.fixture
def path(tensors, tmp_path):
    shards.write_shard(tmp_path / "00000.safetensors", tensors)
    return tmp_path / "00000.safetensors"


@pytest.mark.parametrize("dtype", shards.ROW_DTYPES.values(), ids=shards.ROW_DTYPES)
def test_rows_come_back_bit_for_bit(dtype, tmp_path):
    x = torch.randn(100, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    digest = shards.write_shard(tmp_path / "a", {"x": x})
    assert torch.equal(shards.read_tensor(tmp_path / "a", "x"), x)
    assert torch.equal(shards.read_rows(tmp_path / "a", "x", 13, 57), x[13:57])
    assert shards.read_rows(tmp_path / "a", "x", 100, 100).shape == (0, 6)
    out = torch.empty(300, 6, dtype=dtype)
    shards.read_tensor(tmp_path / "a", "x", out=out[100:200])
    assert torch.equal(out[100:200], x)
    assert digest == hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()
    assert shards.read_shard(tmp_path / "a").sha256 == digest


def test_numbers_begin_at_multiples_of_64_bytes(path):
    assert min(entry.start for entry in shards.read_entries(path).values()) % 64 == 0
    for shape in ((7, 5), (100_000, 33)):
        out = shards.room(shape, torch.bfloat16)
        assert out.shape == shape
        assert out.data_ptr() % 64 == 0


def test_other_readers_agree(path, tensors):
    found = load_file(path)
    assert {name: t.dtype for name, t in found.items()} == {name: t.dtype for name, t in tensors.items()}
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_shards_of_other_writers_are_read(tensors, tmp_path):
    save_file(tensors, tmp_path / "b", metadata={"about": "no hash"})
    assert all(torch.equal(shards.read_tensor(tmp_path / "b", name), tensors[name]) for name in tensors)
    assert not shards.read_shard(tmp_path / "b").intact, "nothing says what its bytes were"


def test_the_same_tensors_give_the_same_bytes(path, tensors, tmp_path):
    shards.write_shard(tmp_path / "again", dict(reversed(tensors.items())))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_every_changed_byte_shows(path):
    assert shards.read_shard(path).intact
    raw = path.read_bytes()
    for place in range(len(raw)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        try:
            assert not shards.read_shard(path).intact, place
        except FileFormatError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_every_truncation_shows(path):
    raw = path.read_bytes()
    for length in [*range(0, len(raw), 9), len(raw) - 1]:
        path.write_bytes(raw[:length])
        for read in (shards.read_shard, shards.read_entries, lambda p: shards.read_tensor(p, "x")):
            with pytest.raises(FileFormatError, match="Run the same harvest again"):
                read(path)
    path.write_bytes(raw + b"more")
    with pytest.raises(FileFormatError, match="truncated"):
        shards.read_entries(path)


def test_numbers_are_rounded_to_the_nearest_ties_to_even():
    step = 2.0**-7  # between bfloat16 numbers from 1 to 2
    x = torch.tensor([[1 + step / 2, 1 + 3 * step / 2, 1 + 0.51 * step, 1 + 0.49 * step, -1 - step / 2]])
    expected = torch.tensor([[1, 1 + 2 * step, 1 + step, 1, -1]])
    assert torch.equal(shards.round_rows(x, torch.bfloat16).float(), expected)
    x = torch.randn(1000, 8, generator=torch.Generator().manual_seed(2)) * 10
    bits = x.view(torch.int32).long()
    by_hand = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).to(torch.int32).view(torch.float32)
    assert torch.equal(shards.round_rows(x, torch.bfloat16).float(), by_hand)


def test_what_cannot_be_read_is_named(path, tmp_path):
    with pytest.raises(FileFormatError, match=r"none is missing\. Run the same harvest again"):
        shards.read_tensor(tmp_path / "none", "x")
    with pytest.raises(FileFormatError, match="holds no 'y' but"):
        shards.read_tensor(path, "y")
    with pytest.raises(FileFormatError, match=r"holds x as \[7, 5\]"):
        shards.read_tensor(path, "x", out=torch.empty(6, 5, dtype=torch.bfloat16))
    with pytest.raises(UsageError, match="rows 0 to 7, not 3 to 9"):
        shards.read_rows(path, "x", 3, 9)
    with pytest.raises(UsageError, match="bfloat16, float16, float32"):
        shards.row_dtype("int8")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path, tensors, monkeypatch):
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lensing.files.os.replace", full)
    with pytest.raises(LensingError, match=r"cannot be written: No space left on device\. Free some space"):
        shards.write_shard(path, {"x": tensors["x"] + 1})
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before
