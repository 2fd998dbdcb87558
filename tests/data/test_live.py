from typing import Any

import numpy as np
import pytest
import torch

import lensing as ln
from lensing.data.live import group_by_length
from lensing.data.rows import TensorRows
from lensing.errors import TrainingError, UnknownNameError, UsageError

SITES = ["mlp_out.1", "resid_post.0"]


def _documents(n: int = 60, seed: int = 0) -> list[list[int]]:
    g = np.random.default_rng(seed)
    return [g.integers(4, 30, size=g.integers(2, 20)).tolist() for _ in range(n)]


def _take(source: Any, batch: int, n: int, start: int = 0) -> dict[str, torch.Tensor]:
    stream = source.batches(batch, start=start)
    parts = [next(stream) for _ in range(n)]
    assert all(len(part[source.sites[0]]) == batch for part in parts)
    return {site: torch.cat([part[site] for part in parts]) for site in source.sites}


def _sorted(rows: torch.Tensor) -> torch.Tensor:
    return rows[np.lexsort(rows.round(decimals=3).numpy().T[::-1])]


def test_an_epoch_holds_every_training_row_once_and_no_held_out_one(model: Any) -> None:
    documents = _documents()
    source = ln.live(model, documents, sites=SITES, shuffle_rows=100, batch_tokens=64)
    assert (source.documents, source.held_out_documents) == (60, 3)
    got = _take(source, 1, source.rows)
    held = {tuple(d) for d in source.held_out_tokens(10**6)}
    expected: dict[str, list[torch.Tensor]] = {site: [] for site in SITES}
    for document in documents:
        if (model.bos_id, *document) in held:
            continue
        _, cache = model.run_with_cache(document, sites=SITES)
        for site in SITES:
            expected[site].append(cache[site][0, 1:])
    assert len(held) == 3
    assert source.rows == sum(map(len, expected[SITES[0]]))
    for site in SITES:
        assert torch.allclose(_sorted(got[site]), _sorted(torch.cat(expected[site])), atol=2e-3)


def test_rows_of_several_sites_belong_together(model: Any) -> None:
    source = ln.live(model, _documents(8), sites=["resid_pre.1", "resid_mid.1", "attn_out.1"], shuffle_rows=50)
    rows = _take(source, 7, 5)
    assert torch.allclose(rows["resid_pre.1"] + rows["attn_out.1"], rows["resid_mid.1"], atol=1e-5)


def test_order_depends_on_the_seed_alone(model: Any) -> None:
    def source(**other: Any) -> Any:
        return ln.live(model, _documents(), sites=SITES[0], shuffle_rows=100, **other)

    first = _take(source(), 16, 20)[SITES[0]]
    assert torch.equal(first, _take(source(), 16, 20)[SITES[0]])
    assert torch.equal(first, _take(source(), 32, 10)[SITES[0]])
    assert torch.allclose(first, _take(source(batch_tokens=30), 16, 20)[SITES[0]], atol=1e-4)
    assert not torch.allclose(first, _take(source(seed=1), 16, 20)[SITES[0]])


@pytest.mark.parametrize("skip", [1, 9, 40, 95])
def test_a_later_row_is_reached_without_the_earlier_ones(model: Any, skip: int) -> None:
    source = ln.live(model, _documents(), sites=SITES, shuffle_rows=100)
    assert source.rows < 16 * 100, "more than two epochs are read"
    whole = _take(source, 16, 100)
    late = _take(ln.live(model, _documents(), sites=SITES, shuffle_rows=100), 16, 100 - skip, start=16 * skip)
    for site in SITES:
        assert torch.equal(late[site], whole[site][16 * skip :])


def test_rows_of_many_documents_are_mixed(model: Any) -> None:
    source = ln.live(model, [[4 + i] * 10 for i in range(20)], sites="embed", shuffle_rows=1000)
    rows = next(source.batches(40))["embed"]
    assert len(rows.round(decimals=4).unique(dim=0)) > 10, "one document's rows are all alike here"


def test_every_epoch_has_its_own_order(model: Any) -> None:
    source = ln.live(model, _documents(), sites=SITES[0], shuffle_rows=100)
    both = _take(source, source.rows, 2)[SITES[0]]
    first, second = both[: source.rows], both[source.rows :]
    assert not torch.allclose(first, second)
    assert torch.allclose(_sorted(first), _sorted(second), atol=2e-3)


def test_texts_are_read_like_their_ids(model: Any) -> None:
    texts = ["the old book", "a bird sang by the river", "he said that it was not ever seen"]
    ids = [model.encode(text).ids[0].tolist() for text in texts]
    a, b = (ln.live(model, documents, sites="embed", held_out=0) for documents in (texts, ids))
    assert torch.equal(next(a.batches(12))["embed"], next(b.batches(12))["embed"])
    assert a.corpus == b.corpus


def test_long_documents_are_cut_and_stay_on_one_side(model: Any) -> None:
    long = [[4 + i] * (model.context * 2) for i in range(4)]
    source = ln.live(model, long, sites="embed", held_out=0.25)
    assert (source.documents, source.held_out_documents) == (4, 1)
    assert source.rows == 3 * 2 * model.context
    held = source.held_out_tokens(10**6)
    assert {document[1] for document in held}.isdisjoint({d[1] for d in source.training_tokens()})
    assert max(map(len, held)) == model.context


def test_held_out_rows_are_bounded(model: Any) -> None:
    source = ln.live(model, _documents(200), sites=SITES[0], held_out=0.3)
    some = sum(len(part[SITES[0]]) for part in source.held_out(50))
    assert 50 <= some < 50 + 20
    assert sum(len(d) for d in source.held_out_tokens(40)) <= 40


def test_groups_hold_every_document_once_within_the_limit() -> None:
    lengths = [5, 30, 2, 9, 9, 4, 50, 1]
    groups = group_by_length(lengths, 36)
    assert sorted(i for group in groups for i in group) == list(range(8))
    assert all(len(group) * max(lengths[i] for i in group) <= 36 or len(group) == 1 for group in groups)


def test_bad_sources_are_refused(model: Any) -> None:
    with pytest.raises(UsageError, match="All documents are empty"):
        ln.live(model, [[], [model.bos_id]], sites="embed")
    with pytest.raises(UnknownNameError, match=r"mlp_ot.1"):
        ln.live(model, _documents(), sites="mlp_ot.1")
    with pytest.raises(UsageError, match="held-out share is 1"):
        ln.live(model, _documents(), sites="embed", held_out=1.0)


def test_tensor_rows_cover_an_epoch_and_resume() -> None:
    x = torch.arange(100.0)[:, None].repeat(1, 2)
    source = TensorRows(x, held_out=0.1, seed=3)
    assert (source.rows, source.held_out_documents) == (90, 10)
    stream = source.batches(9)
    epoch = torch.cat([next(stream)["rows"] for _ in range(10)])[:, 0]
    held = torch.cat([part["rows"] for part in source.held_out(1000)])[:, 0]
    assert sorted([*epoch.tolist(), *held.tolist()]) == x[:, 0].tolist()
    third = [next(source.batches(9, start=9 * i))["rows"] for i in range(10, 25)]
    stream = source.batches(9, start=90)
    assert all(torch.equal(part, next(stream)["rows"]) for part in third)
    assert len(next(source.batches(250))["rows"]) == 250
    with pytest.raises(TrainingError, match="leave none to train on"):
        TensorRows(torch.zeros(1, 3))
    with pytest.raises(UsageError, match=r"must be \[rows, d_in\]"):
        TensorRows(torch.zeros(3))


def test_a_model_trained_anew_under_its_old_name_is_another_source(make_hf, tokenizer):
    """Otherwise a rerun would hand back dictionaries of weights that are gone."""
    from lensing.model.run import Model

    def source(hf):
        return ln.live(Model(hf, tokenizer, name="m"), _documents(), sites=SITES).fingerprint()

    assert source(make_hf("gemma2")) == source(make_hf("gemma2"))
    changed = make_hf("gemma2")
    next(iter(changed.parameters())).data[3, 5] += 1e-3
    assert source(changed) != source(make_hf("gemma2"))
