"""Columns of a text against plain runs; contexts against sorting by hand."""

from __future__ import annotations

import pytest
import torch
from walking import documents, tiny_dictionary

from lensing.measure.contexts import SAME, Passages, latent_columns, read_columns, strongest


@pytest.fixture
def text(model):
    rows = documents(model)
    return Passages.of(model, [row[: 5 + n % 9] for n, row in enumerate(rows)], "text")


def test_columns_are_those_of_single_runs(model, text):
    sae = tiny_dictionary(model)
    latents = [7, 0, 12]
    first, second = read_columns(
        model,
        text,
        [(sae.site, latent_columns(sae, latents)), ("mlp_post.2", lambda rows: rows[:, :2])],
        batch_tokens=40,
    )
    assert float(first.abs().sum()) > 0
    for n in range(text.documents):
        row = text.document(n)
        _, cache = model.run_with_cache([row], sites=[sae.site, "mlp_post.2"])
        span = slice(text.starts[n] + 1, text.starts[n + 1])
        wanted = sae.encode(cache[sae.site][0, 1:]).dense()[:, latents]
        assert torch.allclose(first[span], wanted, atol=1e-4)
        assert torch.allclose(second[span], cache["mlp_post.2"][0, 1:, :2], atol=1e-4)
        assert first[text.starts[n]].tolist() == [0, 0, 0]  # BOS


def test_one_read_of_the_same_site_twice(model, text):
    reads = [("mlp_post.1", lambda rows: rows[:, :1]), ("mlp_post.1", lambda rows: rows[:, 1:3])]
    first, second = read_columns(model, text, reads)
    assert first.shape[1] == 1
    assert second.shape[1] == 2


@pytest.mark.parametrize("sign", [1, -1])
def test_strongest_contexts_are_the_best_of_their_documents(model, text, sign):
    values = torch.randn(len(text.ids), generator=torch.Generator().manual_seed(0))
    values[~text.counted] = sign * 100.0  # BOS never is one
    found = strongest(model, text, values, 6, sign=sign)
    best = []
    for n in range(text.documents):
        span = values[text.starts[n] + 1 : text.starts[n + 1]] * sign
        if float(span.max()) > 0:
            best.append((float(span.max()) * sign, n, int(span.argmax()) + 1))
    best.sort(key=lambda row: -sign * row[0])
    assert [(c.document, c.position) for c in found] == [(n, at) for _, n, at in best[:6]]
    for c in found:
        assert c.value == pytest.approx(float(values[text.starts[c.document] + c.position]))
        assert c.values[c.peak] == pytest.approx(c.value, abs=1e-4)
        assert c.tokens[c.peak] == model.tok_str(text.ids[[text.starts[c.document] + c.position]])[0]
        assert len(c.tokens) == len(c.values)
        assert "<bos>" not in c.tokens


def test_contexts_that_say_the_same_are_one(model):
    same, other = [model.bos_id, *range(5, 5 + SAME + 2)], [model.bos_id, *range(12, 12 + SAME + 2)]
    text = Passages.of(model, [same, same, other], "text")
    values = torch.zeros(len(text.ids))
    values[[len(same) - 1, 2 * len(same) - 1, 3 * len(same) - 1]] = torch.tensor([1.0, 3.0, 2.0])
    assert [c.document for c in strongest(model, text, values, 5)] == [1, 2]


def test_an_empty_text_has_no_context(model):
    text = Passages.of(model, [], "nothing")
    (columns,) = read_columns(model, text, [("mlp_post.1", lambda rows: rows[:, :1])])
    assert len(columns) == 0
