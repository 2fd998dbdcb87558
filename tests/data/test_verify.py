"""Verify names every file that is missing, cut off or changed; the same harvest again makes exactly these anew."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

import lensing as ln
from lensing.data.verify import verify_folder
from lensing.errors import FileFormatError, UsageError
from lensing.shards import read_tensor, write_shard


@pytest.fixture(scope="module")
def call(make_model, tmp_path_factory):
    g = np.random.default_rng(0)
    documents = [g.integers(4, 30, size=20).tolist() for _ in range(20)]
    settings = {"sites": ["mlp_out.0"], "shuffle_rows": 100, "shard_rows": 60, "quiet": True}
    pristine = tmp_path_factory.mktemp("pristine") / "acts"
    ln.harvest(make_model("llama"), documents, out=pristine, **settings)
    return lambda out: ln.harvest(make_model("llama"), documents, out=out, **settings), pristine


@pytest.fixture
def acts(call, tmp_path):
    return shutil.copytree(call[1], tmp_path / "acts")


def flip(path, place):
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


def swap(acts):
    site = acts / "mlp_out.0"
    (site / "00001.safetensors").write_bytes((site / "00002.safetensors").read_bytes())


def replace(acts):
    """A shard that is whole in itself, with other numbers."""
    path = acts / "mlp_out.0" / "00001.safetensors"
    write_shard(path, {"x": read_tensor(path, "x") + 1})


DAMAGE = {
    "flipped": (lambda acts: flip(acts / "mlp_out.0" / "00001.safetensors", -5), "its bytes are not those"),
    "flipped header": (lambda acts: flip(acts / "mlp_out.0" / "00001.safetensors", 30), "mlp_out.0"),
    "truncated": (lambda acts: os.truncate(acts / "mlp_out.0" / "00001.safetensors", 600), "truncated"),
    "empty": (lambda acts: (acts / "mlp_out.0" / "00001.safetensors").write_bytes(b""), "truncated"),
    "removed": (lambda acts: (acts / "mlp_out.0" / "00001.safetensors").unlink(), "missing"),
    "swapped": (swap, "stats.json lists another hash"),
    "replaced": (replace, "stats.json lists another hash"),
    "flipped tokens": (lambda acts: flip(acts / "tokens" / "00000.safetensors", -5), "its bytes are not those"),
    "no statistics": (lambda acts: (acts / "mlp_out.0" / "stats.json").unlink(), "was not finished"),
    "other statistics": (
        lambda acts: (acts / "mlp_out.0" / "stats.json").write_text(
            json.dumps({**json.loads((acts / "mlp_out.0" / "stats.json").read_text()), "n": 7})
        ),
        "not what the shards say",
    ),
}


def test_an_undamaged_store_is_whole(acts):
    report = ln.verify_store(acts, quiet=True)
    assert (report.whole, report.findings, report.advice) == (True, (), "")
    assert report.files == len([p for p in acts.rglob("*") if p.is_file()]) - 2  # all but store.json and run.json


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_mended_by_the_same_harvest(damage, acts, call):
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in acts.rglob("*") if p.is_file()}
    hurt, words = DAMAGE[damage]
    hurt(acts)
    report = ln.verify_store(acts, quiet=True)
    assert len(report.findings) == 1
    assert words in f"{report.findings[0].file} {report.findings[0].fault}"
    assert report.advice.startswith("Run the same harvest again")
    harvest, _ = call
    harvest(acts)
    assert ln.verify_store(acts, quiet=True).whole
    after = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in acts.rglob("*") if p.is_file()}
    assert {p: raw for p, (raw, _) in before.items()} == {p: raw for p, (raw, _) in after.items()}
    assert [str(p.relative_to(acts)) for p in before if after[p][1] != before[p][1]] == [report.findings[0].file]


def test_dictionaries_are_checked_by_their_hashes(tmp_path):
    from lensing.registry import shipped_dictionaries

    folder = shutil.copytree(shipped_dictionaries()["almanac/resid_post.2/w1024"], tmp_path / "d")
    report = verify_folder(folder)
    assert (report.kind, report.whole) == ("dictionary", True)
    assert report.files == 3
    flip(folder / "weights.safetensors", -9)
    (folder / "sample.safetensors").unlink()
    report = verify_folder(folder)
    assert {f.file: f.fault.split()[0] for f in report.findings} == {
        "weights.safetensors": "changed", "sample.safetensors": "missing",
    }  # fmt: skip
    assert report.to_json()["whole"] is False


def test_what_cannot_be_verified_is_named(tmp_path):
    with pytest.raises(UsageError, match="neither a store nor a dictionary"):
        verify_folder(tmp_path)
    for broken in ("{", "{}", '{"format": "lensing-dictionary"}'):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(FileFormatError, match=r"config\.json"):
            verify_folder(tmp_path)
