"""A harvest ends with the same bytes whatever happens on the way, and refuses what cannot end well before it starts."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections import namedtuple

import numpy as np
import pytest
import torch

import lensing as ln
from lensing.data.harvest import make_shard, missing_shards
from lensing.data.plan import plan_harvest
from lensing.errors import Interrupted, LensingError, PromptError, SiteError, TrainingError, UsageError
from lensing.model.run import Model

SITES = ["mlp_out.1", "resid_post.0"]
SMALL = {"sites": SITES, "shuffle_rows": 200, "shard_rows": 60, "quiet": True}


def documents(n=40, seed=0):
    g = np.random.default_rng(seed)
    return [g.integers(4, 30, size=g.integers(2, 40)).tolist() for _ in range(n)]


def hashes(folder):
    """Hash of every file but run.json, which holds versions and the command line."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "run.json"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "acts"


@pytest.fixture(scope="module")
def undisturbed(make_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "acts"
    ln.harvest(make_model("gemma2"), documents(), out=folder, **SMALL)
    return hashes(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="a copy of this process is killed")
def test_killed_at_any_moment_it_ends_with_the_same_bytes(model, out, undisturbed):
    threads, draw = torch.get_num_threads(), random.Random(5)
    torch.set_num_threads(1)  # a copied process has none of the threads of the first
    try:
        started = time.monotonic()
        ln.harvest(model, documents(), out=out.with_name("timed"), **SMALL)
        took, killed = time.monotonic() - started, 0
        for _ in range(6):
            child = os.fork()
            if not child:
                try:
                    ln.harvest(model, documents(), out=out, **SMALL)
                finally:
                    os._exit(0)
            time.sleep(draw.uniform(0.1, 0.7) * took)
            os.kill(child, signal.SIGKILL)
            killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    finally:
        torch.set_num_threads(threads)
    assert killed
    ln.harvest(model, documents(), out=out, **SMALL)
    assert hashes(out) == undisturbed


def test_killed_in_the_middle_of_a_file_it_has_no_final_name(model, out, undisturbed, monkeypatch):
    calls = []

    def cut_off(self, *args, **more):
        calls.append(self)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return original(self, *args, **more)

    original = Model.run_with_cache
    monkeypatch.setattr(Model, "run_with_cache", cut_off)
    with pytest.raises(Interrupted, match=r"finished shards are in .*acts\. Run the same command to continue"):
        ln.harvest(model, documents(), out=out, **SMALL)
    monkeypatch.undo()
    there = hashes(out)
    assert 1 < len(there) < len(undisturbed)
    assert all(undisturbed[name] == digest for name, digest in there.items())
    (out / "mlp_out.1" / ".00009.safetensors.x.part").write_bytes(b"half")
    ln.harvest(model, documents(), out=out, **SMALL)
    assert hashes(out) == undisturbed


def test_a_rerun_keeps_what_is_whole(model, out, undisturbed, monkeypatch):
    ln.harvest(model, documents(), out=out, **SMALL)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    (out / "resid_post.0" / "00002.safetensors").unlink()
    made = []
    monkeypatch.setattr("lensing.data.harvest.write_shard", lambda p, t: made.append(p) or write_shard(p, t))
    from lensing.shards import write_shard

    ln.harvest(model, documents(), out=out, **SMALL)
    assert [str(path.relative_to(out)) for path in made] == ["resid_post.0/00002.safetensors"]
    assert hashes(out) == undisturbed
    changed = {p for p in before if p.stat().st_mtime_ns != before[p]}
    assert changed == {out / "resid_post.0" / "00002.safetensors"}


def test_a_shard_depends_on_its_number_alone(model, out):
    stored = ln.harvest(model, documents(), out=out, **SMALL)
    plan = plan_harvest(
        model, documents(), sites=SITES, tokens=None, dtype="bfloat16", seed=0, held_out=0.05, context=None,
        batch_tokens=4096, shuffle_rows=200, shard_rows=60, include_special=False, field="text", skip_bad=False,
    )  # fmt: skip
    assert plan.manifest == stored.manifest
    assert missing_shards(plan.manifest, [(site, 4) for site in (*SITES, "tokens")]).keys() == set(
        range(len(plan.manifest.shards))
    ) - {4}
    for number in reversed(range(len(plan.members))):
        made = make_shard(model, plan, number, ["tokens", SITES[1]])
        assert torch.equal(made[SITES[1]]["x"], stored.shard(SITES[1], number))
        assert all(torch.equal(made["tokens"][name], column) for name, column in stored.tokens(number).items())


def test_another_harvest_is_refused_and_what_differs_is_listed(model, make_model, make_hf, tokenizer, out):
    ln.harvest(model, documents(), out=out, **SMALL)
    before = hashes(out)
    retrained = make_hf("gemma2")
    next(iter(retrained.parameters())).data[3, 5] += 1e-3
    for other, words in [
        (
            {"sites": ["mlp_out.1", "mlp_out.2"]},
            "site resid_post.0: 32 x bfloat16, now none; site mlp_out.2: none",
        ),
        ({"seed": 1}, "seed: 0, now 1"),
        ({"dtype": "float32"}, "site mlp_out.1: 32 x bfloat16, now 32 x float32"),
        ({"text": documents(seed=1)}, "text digest: "),
        ({"include_special": True}, "special included: False, now True"),
        ({"model": make_model("llama")}, "model name: tiny-gemma2, now tiny-llama"),
        ({"model": Model(retrained, tokenizer, name=model.name)}, "holds another harvest (model weights: "),
        ({"model": Model(make_hf("gemma2"), None, name=model.name)}, "tokenizer: "),
    ]:
        call = {"model": model, "text": documents(), "out": out, **SMALL, **other}
        with pytest.raises(UsageError) as caught:
            ln.harvest(**call)
        assert words in str(caught.value)
        assert "Give another folder with --out" in str(caught.value)
    assert hashes(out) == before


def test_too_little_room_is_said_before_the_first_pass(model, out, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("lensing.data.harvest.shutil.disk_usage", lambda _: usage(0, 0, 123_000))
    monkeypatch.setattr("lensing.data.harvest.make_shard", lambda *_: pytest.fail("a forward pass was made"))
    rows = sum(map(len, documents()))
    with pytest.raises(LensingError, match=r"needs ([\d.e-]+) GB and the disk has 0\.000123 GB left") as caught:
        ln.harvest(model, documents(), out=out, **SMALL)
    assert float(str(caught.value).split("needs ")[1].split()[0]) == pytest.approx(rows * (2 * 64 + 16) / 1e9, rel=0.01)
    assert not out.exists()


def test_special_tokens_have_rows_only_by_choice(model, out):
    given = [[model.bos_id, 5, 6, model.bos_id, 7], [8, 9]]
    plain = ln.harvest(model, given, sites="embed", out=out, held_out=0, quiet=True)
    every = ln.harvest(
        model, given, sites="embed", out=out.with_name("all"), held_out=0, include_special=True, quiet=True
    )
    assert sorted(plain.tokens(0)["ids"].tolist()) == [5, 6, 7, 8, 9]
    assert sorted(every.tokens(0)["ids"].tolist()) == [1, 1, 1, 5, 6, 7, 8, 9]
    assert plain.manifest.special == {"included": False, "ids": [1]}
    assert every.manifest.special == {"included": True, "ids": [1]}
    assert plain.rows == 5


def test_tokens_are_whole_documents_from_the_start(model, out):
    stored = ln.harvest(model, documents(), sites="embed", out=out, tokens=100, quiet=True)
    lengths = np.cumsum([len(d) for d in documents()])
    assert sum(stored.manifest.shards) == lengths[lengths >= 100][0]
    with pytest.raises(UsageError, match=rf"gives {lengths[-1]} rows, fewer than the 5,000 asked for"):
        ln.harvest(model, documents(), sites="embed", out=out.with_name("b"), tokens=5000, quiet=True)


def test_a_shorter_context_cuts_documents(model, out):
    stored = ln.harvest(model, documents(), sites="embed", out=out, context=8, quiet=True)
    assert int(stored.tokens(0)["pos"].max()) == 7
    assert stored.manifest.context == 8
    ours, theirs = (source.held_out_tokens(10**9) for source in (stored, ln.live(model, documents(), sites="embed")))
    assert ours != theirs
    assert ours == ln.live(model, documents(), sites="embed", context=8).held_out_tokens(10**9)


def test_numbers_that_do_not_fit_are_refused(make_hf, out):
    hf = make_hf("llama")
    hf.get_input_embeddings().weight.data[9] *= 1e6
    with pytest.raises(TrainingError, match="embed has a number that float16 cannot hold, in document 1"):
        ln.harvest(Model(hf), [[5], [7, 9]], sites="embed", held_out=0, out=out, dtype="float16", quiet=True)
    assert not list((out / "embed").glob("*"))


def test_an_edited_model_is_refused(model, out):
    class Twice(ln.Edit):
        site = "resid_post.0"

        def apply(self, x, context):
            return x * 2

    with model.edit(Twice()), pytest.raises(UsageError, match="Harvest outside of model"):
        ln.harvest(model, documents(), out=out, **SMALL)


def test_bad_calls_are_refused(model, out):
    (out.parent / "full").mkdir()
    (out.parent / "full" / "letter.txt").write_text("dear")
    for other, error, words in [
        ({"sites": []}, SiteError, "at least one site"),
        ({"sites": "module:model.rotary_emb"}, SiteError, "no row of one length"),
        ({"dtype": "int8"}, UsageError, "bfloat16, float16, float32"),
        ({"tokens": 0}, UsageError, "tokens is 0"),
        ({"held_out": 1.0}, UsageError, "held_out 1.0"),
        ({"context": 1}, UsageError, "context is 1"),
        ({"context": 1000}, UsageError, "Give 2 to 48 tokens"),
        ({"text": [[]]}, UsageError, "All documents are empty"),
        ({"text": [[5, 99]]}, PromptError, "99 is not a token id"),
        ({"text": [[5]], "held_out": 0.0, "out": out.parent / "full"}, UsageError, "holds other files and no store"),
        ({"text": "none.txt"}, UsageError, r"no file none\.txt"),
    ]:
        with pytest.raises(error, match=words):
            ln.harvest(model, **{"text": documents(), "out": out, **SMALL, **other})
    assert not out.exists()


def test_the_record_says_what_was_read(model, tmp_path, out):
    (tmp_path / "corpus.jsonl").write_text('{"text": "the old book"}\n{"no": 1}\n{"text": "a bird sang"}\n')
    stored = ln.harvest(model, tmp_path / "corpus.jsonl", sites="embed", out=out, held_out=0, skip_bad=True, quiet=True)
    record = json.loads((out / "store.json").read_text())
    assert record["text"] == {
        "source": "corpus.jsonl", "digest": stored.manifest.text["digest"], "documents": 2, "held_out_documents": 0,
        "skipped": 1,
    }  # fmt: skip
    assert (record["model"]["name"], record["model"]["dtype"]) == ("tiny-gemma2", "float32")
    assert stored.corpus == "corpus.jsonl"
    assert json.loads((out / "run.json").read_text())["what"] == "harvest"
