"""An index against a dense count of everything it holds, whatever the chunks; stopped, repeated, and refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import lensing as ln
from lensing.data.forward import activations
from lensing.dictionary.base import new_dictionary
from lensing.dictionary.configs import ReLU, TopK
from lensing.errors import DictionaryError, UsageError
from lensing.index import build
from lensing.index.examples import SAME
from lensing.index.explain import explain
from lensing.index.layout import CHUNKS, NAME, PLAN
from lensing.index.report import summary
from lensing.index.table import page

TOP, QUANTILES, EACH, K, BEFORE, AFTER = 3, 4, 2, 5, 6, 3
SETTINGS = {
    "top": TOP, "quantiles": QUANTILES, "each": EACH, "neighbours": K, "words": 4, "before": BEFORE, "after": AFTER,
    "context": 12, "quiet": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("llama")


@pytest.fixture(scope="module", params=["topk", "relu"])
def dictionary(model, request):
    config = TopK(width=40, k=5) if request.param == "topk" else ReLU(width=40, l0=5.0)
    sae = new_dictionary(config, model.d_model, seed=2)
    sae.site, sae.model_name, sae.id = "resid_post.1", model.name, f"tiny/{request.param}"
    with torch.no_grad():
        sae.encoder.add_(0.3 * torch.randn(sae.encoder.shape, generator=torch.Generator().manual_seed(4)))
        sae.b_enc[7] = -1e9  # never active
        sae.b_enc[8] += 100  # active nearly everywhere
    return sae.requires_grad_(False)


@pytest.fixture(scope="module")
def documents(model):
    """Documents of several lengths, one longer than the context."""
    generator = torch.Generator().manual_seed(5)
    some = [
        torch.randint(4, 40, (n,), generator=generator).tolist()
        for n in (5, 9, 30, 7, 11, 3, 8, 10, 6, 11, 9, 4, 11, 8, 10)
    ]
    return some


@pytest.fixture(scope="module")
def built(model, dictionary, documents, tmp_path_factory):
    out = tmp_path_factory.mktemp("index") / "whole"
    return ln.build_index(model, dictionary, documents, out=out, **SETTINGS)


@pytest.fixture(scope="module")
def dense(model, dictionary, documents):
    """Activations [tokens, latents], tokens, and the piece of each token: the same passes, then everything dense."""
    bos = [] if model.bos_id is None else [model.bos_id]
    parts = [document[first : first + 11] for document in documents for first in range(0, len(document), 11)]
    pieces = [np.array([*bos, *part]) for part in parts]
    x = activations(model, pieces, [dictionary.site], batch_tokens=4096)[dictionary.site]
    codes = dictionary.encode(x)
    error = (x - dictionary.decode(codes)).norm(dim=1).numpy()
    piece = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return codes.dense().numpy(), np.concatenate(parts), piece, error


def test_the_text_and_the_statistics(built, dense, documents):
    f, tokens, piece, errors = dense
    assert built.array("tokens").tolist() == tokens.tolist()
    starts = built.array("starts")
    assert [starts[p] <= i < starts[p + 1] for i, p in enumerate(piece)] == [True] * len(tokens)
    assert built.array("document").tolist()[:4] == [0, 1, 2, 2]
    np.testing.assert_allclose(built.array("row_error"), errors, rtol=1e-6)
    on = f > 0
    assert built.array("count").tolist() == on.sum(0).tolist()
    np.testing.assert_allclose(built.array("density"), on.mean(0), rtol=1e-6)
    assert built.array("max").tolist() == f.max(0).tolist()
    np.testing.assert_allclose(built.array("total"), f.sum(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(built.array("mean"), f.sum(0, dtype=np.float64) / np.maximum(on.sum(0), 1), rtol=1e-6)
    assert built.array("count")[7] == 0
    assert built.array("count")[8] > len(tokens) / 2
    for i in range(f.shape[1]):
        page = built.latent(i)
        assert sum(page.histogram) == page.count
        if page.count and page.histogram_edges[0] < page.histogram_edges[1]:
            assert page.histogram == tuple(np.histogram(f[on[:, i], i], bins=50)[0].tolist())


def contexts(f, tokens, piece, i):
    """Peaks of the distinct contexts of a latent, strongest first, in plain loops."""
    best = {}
    for p in np.unique(piece):
        inside = [r for r in np.flatnonzero(piece == p) if f[r, i] > 0]
        if inside:
            best[p] = max(inside, key=lambda r: (f[r, i], -r))
    found, seen = [], set()
    for r in sorted(best.values(), key=lambda r: (-f[r, i], r)):
        tail = tuple(tokens[q] for q in range(r, r - SAME, -1) if q >= 0 and piece[q] == piece[r])
        if tail not in seen:
            seen.add(tail)
            found.append(r)
    return found


def test_examples_are_distinct_contexts_in_true_quantiles(built, dense):
    f, tokens, piece, _ = dense
    starts = built.array("starts")
    groups = 0
    for i in range(f.shape[1]):
        wanted, page = contexts(f, tokens, piece, i), built.latent(i)
        assert sum(group.n for group in page.groups) == len(wanted)
        if not wanted:
            assert page.groups == ()
            continue
        # contexts that end alike may be equal but for the last bits: the value is what counts
        assert [e.row for e in page.groups[0].examples] == wanted[:TOP]
        parts = [part.tolist() for part in np.array_split(wanted[TOP:], QUANTILES) if len(part)]
        assert [group.n for group in page.groups[1:]] == [len(part) for part in parts]
        for group, part in zip(page.groups, [wanted[:TOP], *parts], strict=True):
            groups += 1
            values = [f[r, i] for r in part]
            assert (group.low, group.high) == (min(values), max(values))
            inside = f[(f[:, i] >= group.low) & (f[:, i] <= group.high), i]
            assert group.mass == pytest.approx(inside.sum(dtype=np.float64) / f[:, i].sum(dtype=np.float64), rel=1e-6)
            most = TOP if group is page.groups[0] else EACH
            assert len({e.row for e in group.examples}) == len(group.examples) == min(most, group.n)
            assert {e.row for e in group.examples} <= set(part)
            for e in group.examples:
                first, last = max(e.row - BEFORE, starts[e.piece]), min(e.row + AFTER + 1, starts[e.piece + 1])
                assert e.ids == tuple(tokens[first:last].tolist())
                assert e.peak == e.row - first
                assert e.values == tuple(f[first:last, i].tolist())
                assert e.value == e.values[e.peak]
                assert piece[e.row] == e.piece
    assert groups > 60


def nearest(value, i, alive, k=K):
    order = [j for j in np.argsort(-value, kind="stable") if j != i and alive[j] and np.isfinite(value[j])]
    return [(int(j), value[j]) for j in order[:k]]


def same(found, wanted):
    """The same values, and the same latents but where values are equal to float32's precision."""
    assert [v for _, v in found] == pytest.approx([v for _, v in wanted], rel=1e-6, abs=1e-6)
    apart = [j for j, (_, v) in enumerate(wanted) if sum(abs(v - w) < 1e-6 for _, w in wanted) == 1]
    assert [found[j][0] for j in apart[:-1]] == [wanted[j][0] for j in apart[:-1]]


def test_neighbours_over_all_latents(built, dense, dictionary):
    f, *_ = dense
    on, alive = (f > 0).astype(np.float64), (f > 0).any(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.corrcoef(f.T.astype(np.float64))
        both = on.T @ on
        jaccard = np.where(both > 0, both / (on.sum(0)[:, None] + on.sum(0)[None] - both), -np.inf)
        conditional = np.where(both > 0, both / on.sum(0)[:, None], -np.inf)
    cosines = {}
    for name, matrix in (("decoder", dictionary.W_dec), ("encoder", dictionary.W_enc.T)):
        unit = torch.nn.functional.normalize(matrix.detach(), dim=1)
        cosines[name] = (unit @ unit.T).numpy()
    kinds = {"correlation": correlation, "jaccard": jaccard, "conditional": conditional, **cosines}
    for i in range(f.shape[1]):
        page = built.latent(i)
        for kind, value in kinds.items():
            same(page.near[kind], nearest(value[i], i, alive) if alive[i] else [])


def test_words(built, dense, dictionary, model):
    f, tokens, *_ = dense
    from lensing.lens.words import direct_words

    logits = direct_words(model, dictionary.W_dec).numpy()
    for i in range(f.shape[1]):
        page, fires = built.latent(i), tokens[f[:, i] > 0]
        counts = {int(t): int((fires == t).sum()) for t in fires}
        wanted = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:4]
        names = model.tok_str([t for t, _ in wanted]) if wanted else []
        assert [(word, n) for word, n, *_ in page.fires_on] == list(zip(names, [n for _, n in wanted], strict=True))
        for (t, n), (_, _, precision, recall) in zip(wanted, page.fires_on, strict=True):
            assert precision == pytest.approx(n / (tokens == t).sum(), rel=1e-6)
            assert recall == pytest.approx(n / len(fires), rel=1e-6)
        order = np.sort(logits[i])
        assert [v for _, v in page.promoted] == pytest.approx(order[::-1][:4].tolist(), abs=1e-5)
        assert [v for _, v in page.suppressed] == pytest.approx(order[:4].tolist(), abs=1e-5)
        assert sum(page.logit_histogram) == model.d_vocab
    json.dumps(built.latent(0).to_json())


def test_chunks_change_nothing(built, model, dictionary, documents, tmp_path, monkeypatch):
    """Merging is exact: the same files from many chunks, and from few places at a time."""
    monkeypatch.setattr("lensing.index.collect.PLACES", 50)
    monkeypatch.setattr("lensing.index.neighbours.AT_ONCE", 7)
    monkeypatch.setattr("lensing.index.neighbours.HELD", 40 * 16 * 3)
    many = ln.build_index(model, dictionary, documents, out=tmp_path / "many", chunk_rows=10, **SETTINGS)
    names = sorted(path.name for path in built.folder.glob("*.npy"))
    assert names == sorted(path.name for path in many.folder.glob("*.npy"))
    for name in names:
        a, b = (np.load(ix.folder / name) for ix in (built, many))
        assert a.dtype == b.dtype
        if a.dtype.kind == "f":  # batches of other shapes round otherwise
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
        elif not name.startswith(("near", "histogram", "example_row", "active_offset")):
            assert np.array_equal(a, b), name
    assert not (many.folder / CHUNKS).exists()


def test_a_stopped_build_goes_on(built, model, dictionary, documents, tmp_path, monkeypatch):
    out, made = tmp_path / "stopped", []
    real = build._chunk

    def counted(*args):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(1)
        return real(*args)

    monkeypatch.setattr(build, "_chunk", counted)
    from lensing.errors import Interrupted

    with pytest.raises(Interrupted, match="Run the same command to continue"):
        ln.build_index(model, dictionary, documents, out=out, chunk_rows=20, **SETTINGS)
    assert not (out / NAME).exists()
    with pytest.raises(UsageError, match="unfinished one: run the same lensing index again"):
        ln.open_index(out)
    (out / CHUNKS / "..junk.part").write_text("half")
    monkeypatch.setattr(build, "_chunk", lambda *args: made.append(1) or real(*args))
    done = ln.build_index(model, dictionary, documents, out=out, chunk_rows=20, **SETTINGS)
    assert len(made) == -(-len(done.array("tokens")) // 20) or len(made) < 12
    assert done.array("count").tolist() == built.array("count").tolist()
    monkeypatch.setattr(build, "_chunk", lambda *args: pytest.fail("a finished index is not built again"))
    assert ln.build_index(model, dictionary, documents, out=out, chunk_rows=20, **SETTINGS).rows == done.rows


def test_refusals(built, model, dictionary, documents, tmp_path):
    with pytest.raises(UsageError, match=r"another index \(text: digest .*, now .*; top: 3, now 4\)"):
        ln.build_index(model, dictionary, documents[1:], out=built.folder, **SETTINGS | {"top": 4})
    other = new_dictionary(TopK(width=40, k=5), model.d_model, seed=9)
    other.site = "resid_post.1"
    with pytest.raises(UsageError, match=r"another index \(dictionary: id"):
        ln.build_index(model, other, documents, out=built.folder, **SETTINGS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files and no index"):
        ln.build_index(model, dictionary, documents, out=tmp_path / "full", **SETTINGS)
    with pytest.raises(UsageError, match="documents are empty"):
        ln.build_index(model, dictionary, [[], []], out=tmp_path / "a", **SETTINGS)
    with pytest.raises(UsageError, match=r"top is 0\. Give 1 or more"):
        ln.build_index(model, dictionary, documents, out=tmp_path / "a", **SETTINGS | {"top": 0})
    wide = new_dictionary(TopK(width=8, k=2), model.d_model + 1)
    wide.site = "resid_post.1"
    with pytest.raises(DictionaryError):
        ln.build_index(model, wide, documents, out=tmp_path / "a", **SETTINGS)
    with pytest.raises(UsageError, match="no latent 40"):
        built.latent(40)
    with pytest.raises(UsageError, match="holds no finished index but none: run lensing index"):
        ln.open_index(tmp_path / "nowhere")
    assert not (tmp_path / "a" / PLAN).exists()


def test_a_dictionary_that_is_silent(model, documents, tmp_path):
    sae = new_dictionary(ReLU(width=8, l0=2.0), model.d_model)
    sae.site = "mlp_out.0"
    with torch.no_grad():
        sae.b_enc.fill_(-1e9)
    silent = ln.build_index(model, sae.requires_grad_(False), documents, out=tmp_path / "silent", **SETTINGS)
    page = silent.latent(3)
    assert (page.count, page.max, page.groups, page.fires_on) == (0, 0.0, (), ())
    assert all(near == () for near in page.near.values())
    assert len(page.promoted) == 4


def test_a_transcoder_is_indexed_by_what_it_reads(model, documents, tmp_path):
    sae = new_dictionary(TopK(width=8, k=2), model.d_model, d_out=model.d_model, seed=3)
    sae.site, sae.target = "mlp_in.0", "mlp_out.0"
    index = ln.build_index(model, sae.requires_grad_(False), documents, out=tmp_path / "t", **SETTINGS)
    _, cache = model.run_with_cache([documents[0]], sites=["mlp_in.0", "mlp_out.0"])
    x, y = (cache[site][0, -len(documents[0]) :] for site in ("mlp_in.0", "mlp_out.0"))
    error = (y - sae.reconstruct(x)).norm(dim=1)
    np.testing.assert_allclose(index.array("row_error")[: len(x)], error.numpy(), rtol=1e-4)
    np.testing.assert_allclose(index.array("row_norm")[: len(x)], y.norm(dim=1).numpy(), rtol=1e-4)


def test_the_darkest_tokens_are_those_of_each_piece(built, dense, model, documents):
    _, tokens, piece, errors = dense
    norms = built.array("row_norm")
    share = (errors / norms) ** 2
    want = sorted(((share[piece == p].max(), p) for p in np.unique(piece)), key=lambda x: -x[0])
    found = built.darkest(5)
    assert [e.value for e in found] == pytest.approx([v for v, _ in want[:5]], rel=1e-5)
    for e in found:
        assert e.ids[e.peak] == tokens[e.row]
        assert e.values[e.peak] == e.value == max(e.values)


def test_a_dictionary_whose_latents_are_all_dead(model, documents, tmp_path):
    sae = new_dictionary(ReLU(width=20, l0=5.0), model.d_model, seed=2)
    sae.site, sae.model_name, sae.id = "resid_post.1", model.name, "tiny/dead"
    with torch.no_grad():
        sae.b_enc.fill_(-1e9)
    index = ln.build_index(model, sae.requires_grad_(False), documents, out=tmp_path / "i", **SETTINGS)
    found = summary(index)
    assert (found.dead, found.l0, found.densities) == (20, 0.0, ())
    assert set(explain(index)) == {"never fires on this text"}
    assert page(index, sort="-max").total == 20
    one = index.latent(3)
    assert (one.count, one.groups, one.fires_on) == (0, (), ())
    assert all(near == () for near in one.near.values())
    assert "never fires" in one._repr_html_()
