"""Search, table, labels and inference against dense tables made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import lensing as ln
from lensing.causal.dose import dose_response
from lensing.causal.slide import slide
from lensing.dictionary.splice import Splice
from lensing.errors import UnknownNameError, UsageError
from lensing.index.compare import compare
from lensing.index.explain import explain
from lensing.index.inference import activations_of, infer
from lensing.index.map import decoder_map
from lensing.index.search import by_example, by_word
from lensing.index.table import COLUMNS, _first, column, page
from lensing.measure.auroc import auroc
from lensing.measure.contexts import Passages
from lensing.measure.unit import unit
from lensing.registry import shipped_indexes

PROMPT = "The reliability of the Almanac is very"


@pytest.fixture(scope="module")
def model():
    return ln.load_model("almanac")


@pytest.fixture(scope="module")
def sae(model):
    return ln.load_dictionary("almanac/resid_post.5/w1024", model=model)


@pytest.fixture(scope="module")
def index():
    return ln.open_index(shipped_indexes()["almanac/resid_post.5/w1024"])


@pytest.fixture(scope="module")
def dense(model, sae):
    """Activations of the prompt, [tokens, latents], BOS as zeros."""
    _, cache = model.run_with_cache(PROMPT, sites=["resid_post.5"])
    f = sae.encode(cache["resid_post.5"][0]).dense()
    f[0] = 0
    return f


def test_the_first_of_a_column_are_those_of_a_full_sort():
    draw = np.random.default_rng(0)
    for n in (1, 5, 100, 1000):
        keys = draw.integers(0, 20, n).astype(np.float64)
        keys[draw.random(n) < 0.1] = np.nan
        want = sorted(range(n), key=lambda i: (math.isnan(keys[i]), keys[i] if keys[i] == keys[i] else 0, i))
        for k in (1, 3, n // 10, n):
            assert _first(keys, k).tolist() == want[:k]


def test_pages_hold_what_passes_in_order(index):
    density, top = index.array("density"), index.array("max")
    found = page(index, sort="max", where=[("density", 0.001, None), ("max", None, 30.0)], limit=1000)
    want = [i for i in range(index.d_sae) if density[i] >= 0.001 and top[i] <= 30]
    assert found.total == len(want)
    assert list(found.latents) == sorted(want, key=lambda i: (top[i], i))
    second = page(index, sort="max", where=[("density", 0.001, None), ("max", None, 30.0)], offset=10, limit=5)
    assert second.latents == found.latents[10:15]
    assert page(index, among=[3, 1, 5000], sort="latent").latents == (1, 3)
    with pytest.raises(UnknownNameError, match="density"):
        page(index, sort="densty")
    for name in COLUMNS:
        assert column(index, name).shape == (index.d_sae,)


def test_inference_is_the_dense_encoding_and_the_splice(model, sae, dense):
    read = infer(model, sae, PROMPT, top=sae.d_sae)
    for position, row in enumerate(read.latents):
        want = dense[position]
        assert dict(row) == {i: float(want[i]) for i in want.nonzero()[:, 0].tolist()}
        assert [v for _, v in row] == sorted((v for _, v in row), reverse=True)
    fired = {f.latent: f for f in read.fired(10_000)}
    assert set(fired) == set(dense.any(0).nonzero()[:, 0].tolist())
    for latent, f in fired.items():
        assert f.max == float(dense[:, latent].max())
        assert f.total == pytest.approx(float(dense[:, latent].sum()), rel=1e-6)
        assert f.at == int(dense[:, latent].argmax())
    tokens = model.encode(PROMPT)
    clean = model.logits(tokens)[0].double().log_softmax(-1)
    with model.edit(Splice(sae)):
        spliced = model.logits(tokens)[0].double().log_softmax(-1)
    assert read.kl[3] == pytest.approx(float((clean[3].exp() * (clean[3] - spliced[3])).sum()), abs=1e-9)
    assert read.loss[3] == pytest.approx(-float(clean[2, tokens.ids[0, 3]]), abs=1e-9)
    fall = clean[3].exp() - spliced[3].exp()
    assert read.lost[3][0][0] == model.tok_str([int(fall.argmax())])[0]
    assert activations_of(model, sae, PROMPT, [192, 7])[1] == dense[:, 7].tolist()


def test_examples_rank_by_auroc(model, sae, dense):
    hits = by_example(model, sae, [(PROMPT, [2, 5])], n=sae.d_sae)
    labels = torch.tensor([False, True, False, False, True, False, False])  # BOS left out
    for hit in [*hits[:20], *hits[-5:]]:
        assert hit.auroc == pytest.approx(auroc(dense[1:, hit.latent], labels), abs=1e-9)
        assert hit.n == int((dense[[2, 5], hit.latent] > 0).sum())
    assert [h.auroc for h in hits] == sorted((h.auroc for h in hits), reverse=True)
    for wrong in ([(PROMPT, [99])], [(PROMPT, [])], []):
        with pytest.raises(UsageError):
            by_example(model, sae, wrong)


def test_words_are_found_where_they_stand(index):
    strings = index.strings
    for hit in by_word(index, " River "):
        assert hit.word.strip().lower() == "river"
        name = {"fires on": "word", "promotes": "promoted", "suppresses": "suppressed"}[hit.how]
        assert any(strings[i].strip().lower() == "river" for i in index.array(name)[hit.latent] if i >= 0)
    assert by_word(index, "no-such-word") == []
    with pytest.raises(UsageError):
        by_word(index, "  ")


def test_labels_say_what_was_counted(index):
    labels = list(explain(index))
    assert len(labels) == index.d_sae
    for i, label in enumerate(labels):
        one = index.latent(i)
        if not one.count:
            assert label == "never fires on this text"
            continue
        assert label.startswith("fires on")
        clear = [w.strip() for w, _, _, recall in one.fires_on if recall >= 0.5]
        for word in clear:
            assert f"“{word}”" in label
    assert next(explain(index, [5])) == labels[5]


def test_the_map_is_the_singular_value_decomposition(sae):
    unit_rows = torch.nn.functional.normalize(sae.W_dec.float(), dim=1).double()
    u, s, _ = torch.linalg.svd(unit_rows - unit_rows.mean(0), full_matrices=False)
    found = decoder_map(sae)
    want = (u[:, :2] * s[:2]).abs()
    torch.testing.assert_close(found.places.double().abs(), want, atol=1e-5, rtol=1e-4)
    assert found.share == pytest.approx(float((s[:2] ** 2).sum() / (s**2).sum()), rel=1e-6)


def test_comparison_is_the_cosine(sae):
    found = compare(sae, 3, sae, 8)
    a, b = sae.W_dec[3].double(), sae.W_dec[8].double()
    assert found.decoder == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-5)
    assert 3 not in [i for i, _ in found.nearest]


def test_slide_is_the_first_part_of_a_dose_response(model, sae):
    strengths = [0.0, 1.0, 4.0]
    fast = slide(model, sae, 192, PROMPT, strengths)
    slow = dose_response(model, sae, 192, PROMPT, strengths=strengths, new_tokens=1, seeds=2)
    assert [d.name for d in fast.directions] == [d.name for d in slow.directions]
    for a, b in zip(fast.directions, slow.directions, strict=True):
        for x, y in zip(a.notches, b.doses, strict=True):
            assert x.share_of_norm == pytest.approx(y.share_of_norm, rel=1e-5)
            assert [g.id for g in x.table[:3]] == [g.id for g in y.table[:3]]
            assert x.table[0].p == pytest.approx(y.table[0].p, abs=1e-6)


def test_a_unit_is_its_column(model):
    text = Passages.of(
        model,
        [model.encode(PROMPT).ids[0].tolist(), model.encode("In the pantry there is a broom").ids[0].tolist()],
        "two",
    )
    found = unit(model, text, "mlp_post.2", 5)
    values = [model.run_with_cache(text.document(i), sites=["mlp_post.2"])[1]["mlp_post.2"][0, 1:, 5] for i in range(2)]
    want = torch.cat(values).double()
    assert found.tokens == len(want)
    assert found.mean == pytest.approx(float(want.mean()), abs=1e-6)
    assert (found.min, found.max) == pytest.approx((float(want.min()), float(want.max())), abs=1e-5)
    assert found.std == pytest.approx(float(want.std(correction=0)), abs=1e-6)
    assert sum(found.histogram) == len(want)
    assert found.top[0].value == pytest.approx(float(want.max()), abs=1e-5)
    with pytest.raises(UsageError):
        unit(model, text, "mlp_post.2", 10_000)
