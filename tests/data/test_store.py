"""A store gives the rows that the running model gives, in the same order, and never a held-out one in training."""

from __future__ import annotations

import json
import os
import shutil
import threading

import numpy as np
import pytest
import torch

import lensing as ln
from lensing.data.order import Order
from lensing.errors import FileFormatError, UnknownNameError, UsageError

SITES = ["mlp_out.1", "resid_post.0"]
SETTINGS = {"seed": 3, "held_out": 0.1, "shuffle_rows": 250}


def documents(n=60, seed=0):
    g = np.random.default_rng(seed)
    return [g.integers(4, 30, size=g.integers(2, 90)).tolist() for _ in range(n)]


@pytest.fixture(scope="module")
def stored(make_model, tmp_path_factory):
    """A store of several pools, each of several shards, in full precision."""
    out = tmp_path_factory.mktemp("store") / "acts"
    model = make_model("gemma2")
    return ln.harvest(
        model, documents(), sites=SITES, out=out, dtype="float32", shard_rows=90, quiet=True, **SETTINGS
    )  # fmt: skip


@pytest.fixture(scope="module")
def live(make_model):
    return ln.live(make_model("gemma2"), documents(), sites=SITES, shard_rows=90, **SETTINGS)


def test_the_running_model_gives_the_same_rows_in_the_same_order(stored, live):
    assert stored.rows == live.rows
    assert stored.manifest.mixed > 1
    ours, theirs = stored.batches(64), live.batches(64)
    for _ in range(2 * stored.rows // 64 + 5):  # into the third epoch
        a, b = next(ours), next(theirs)
        assert all(torch.equal(a[site], b[site]) for site in SITES)


@pytest.mark.parametrize("start", [1, 63, 640, 2500, 5000])
def test_any_row_is_reached_without_those_before(stored, live, start):
    ours, theirs, whole = stored.batches(50, start=start), live.batches(50, start=start), stored.batches(1)
    for _ in range(start):
        next(whole)
    for _ in range(3):
        a, b = next(ours), next(theirs)
        c = torch.cat([next(whole)[SITES[0]] for _ in range(50)])
        assert torch.equal(a[SITES[0]], c)
        assert all(torch.equal(a[site], b[site]) for site in SITES)


def test_defaults_agree_too(model, tmp_path):
    stored = ln.harvest(model, documents(), sites=SITES[0], out=tmp_path / "acts", dtype="float32", quiet=True)
    ours, theirs = stored.batches(500), ln.live(model, documents(), sites=SITES[0]).batches(500)
    for _ in range(8):
        assert torch.equal(next(ours)[SITES[0]], next(theirs)[SITES[0]])


def test_an_epoch_holds_every_training_row_once_and_no_held_out_one(stored, model):
    held = {tuple(document) for document in stored.held_out_tokens(10**9)}
    expected, left_out = [], []
    for document in documents():
        for i in range(0, len(document), model.context - 1):
            piece = [model.bos_id, *document[i : i + model.context - 1]]
            _, cache = model.run_with_cache(piece, sites=SITES[0])
            (left_out if tuple(piece) in held else expected).append(cache[SITES[0]][0, 1:])
    assert stored.held_out_documents == 6
    assert len(left_out) == len(held)
    got = torch.cat([rows[SITES[0]] for rows, _ in zip(stored.batches(1), range(stored.rows), strict=False)])
    for ours, theirs in ((got, expected), (torch.cat([r[SITES[0]] for r in stored.held_out(10**9)]), left_out)):
        a, b = (x[np.lexsort(x.round(decimals=3).numpy().T[::-1])] for x in (ours, torch.cat(theirs)))
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)


@pytest.mark.parametrize("limit", [1, 50, 100, 10**9])
def test_held_out_parts_are_those_of_the_running_model(stored, live, limit):
    ours, theirs = (torch.cat([part[SITES[1]] for part in source.held_out(limit)]) for source in (stored, live))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert stored.held_out_tokens(limit) == live.held_out_tokens(limit)


def test_rows_and_tokens_belong_together(stored, model):
    for number in (0, len(stored.manifest.shards) - 1):
        tokens, rows = stored.tokens(number), stored.shard("resid_post.0", number)
        assert {len(rows)} == {len(column) for column in tokens.values()} == {stored.manifest.shards[number]}
        for row in range(0, len(rows), 7):
            document, pos = documents()[tokens["doc"][row]], int(tokens["pos"][row])
            begins = range(0, len(document), model.context - 1)  # a long document has several pieces
            pieces = [[model.bos_id, *document[begin:]][: pos + 1] for begin in begins]
            fitting = [p for p in pieces if len(p) == pos + 1 and p[-1] == tokens["ids"][row]]
            found = [model.run_with_cache(p, sites="resid_post.0")[1]["resid_post.0"][0, -1] for p in fitting]
            assert any(torch.allclose(here, rows[row], atol=1e-3) for here in found)


def test_every_epoch_reads_every_shard_once():
    order = Order((5, 7, 3, 9, 4, 4, 8), 3, seed=2)
    epochs = [order.pools(epoch) for epoch in range(4)]
    assert epochs[0][0].shards == (0, 1, 2)
    for pools in epochs:
        assert sorted(shard for pool in pools for shard in pool.shards) == list(range(7))
        assert sum(pool.rows for pool in pools) == order.rows == 40
    assert len({tuple(pool.shards for pool in pools) for pools in epochs}) == 4
    seen = [(pool, skip) for (pool, skip), _ in zip(order.visits(15 + 2 * 40), range(3), strict=False)]
    assert seen[0][0].epoch == 2
    before = sum(pool.rows for pool in epochs[2][: seen[0][0].number])
    assert before + seen[0][1] == 15


def test_statistics_are_those_of_all_rows(stored):
    x = torch.cat([stored.shard(SITES[0], number) for number in range(len(stored.manifest.shards))]).double()
    found = stored.moments(SITES[0])
    assert found.n == len(x)
    torch.testing.assert_close(found.mean, x.mean(0), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.variance, x.var(0, correction=0), rtol=1e-9, atol=1e-12)


def test_some_sites_are_read_alone(stored):
    one = stored.select(SITES[1])
    assert one.sites == (SITES[1],)
    assert torch.equal(next(one.batches(40))[SITES[1]], next(stored.batches(40))[SITES[1]])
    assert one.fingerprint() != stored.fingerprint()
    with pytest.raises(UnknownNameError, match=r"no stored site named 'mlp_out\.0'. Did you mean 'mlp_out\.1'"):
        ln.open_store(stored.folder, sites="mlp_out.0")


def test_the_reader_leaves_no_thread(stored):
    before = threading.active_count()
    stream = stored.batches(10)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_a_missing_or_cut_off_shard_is_named_when_it_is_read(stored, tmp_path):
    acts = shutil.copytree(stored.folder, tmp_path / "acts")
    hurt = acts / SITES[0] / "00003.safetensors"
    os.truncate(hurt, 500)
    for fault in ("is truncated", "is missing"):
        with pytest.raises(FileFormatError, match=rf"00003\.safetensors {fault}.* Run the same harvest again"):
            for _ in zip(ln.open_store(acts).batches(64), range(100), strict=False):
                pass
        hurt.unlink(missing_ok=True)


def test_half_precision_is_the_rounded_full_one(stored, model, tmp_path):
    half = ln.harvest(model, documents(), sites=SITES, out=tmp_path / "half", shard_rows=90, quiet=True, **SETTINGS)
    assert half.shard(SITES[0], 1).dtype == torch.bfloat16
    assert torch.equal(half.shard(SITES[0], 1), stored.shard(SITES[0], 1).bfloat16())
    assert next(half.batches(8))[SITES[0]].dtype == torch.float32


def test_training_on_a_store_is_training_on_the_model(stored, live):
    settings = {"site": SITES[0], "tokens": 512, "batch": 64, "quiet": True}
    ours, theirs = (ln.train(source, ln.TopK(width=16, k=2), **settings) for source in (stored, live))
    assert torch.equal(ours.W_dec, theirs.W_dec)
    assert ours.statistics.n == theirs.statistics.n
    assert ours.sample.documents() == theirs.sample.documents()


def test_what_is_no_store_or_not_finished_is_named(stored, tmp_path):
    with pytest.raises(UsageError, match=r"is no store: it has no store\.json"):
        ln.open_store(tmp_path)
    record = json.loads((stored.folder / "store.json").read_text())
    (tmp_path / "store.json").write_text(json.dumps(record))
    with pytest.raises(FileFormatError, match=r"the harvest was not finished\. Run the same harvest again"):
        ln.open_store(tmp_path)
    for broken in ("{", "[]", json.dumps({**record, "version": 2}), json.dumps({**record, "train_shards": "many"})):
        (tmp_path / "store.json").write_text(broken)
        with pytest.raises(FileFormatError, match=r"store\.json"):
            ln.open_store(tmp_path)
