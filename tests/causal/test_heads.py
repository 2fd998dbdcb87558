"""Scores of heads whose patterns are written by hand: each kind of head scores 1 at its own kind."""

import pytest
import torch
from conftest import HEADS, LAYERS

from lensing.causal.heads import KINDS, head_scores, repeated
from lensing.errors import UsageError
from lensing.model.edit import Replace

LENGTH, TOTAL = 6, 13


def pattern(offset):
    """Each token looks `offset` tokens back, or at BOS where there is none."""
    p = torch.zeros(TOTAL, TOTAL)
    for query in range(TOTAL):
        p[query, max(query - offset, 0)] = 1.0
    return p


def test_heads_made_by_hand_score_one_at_their_kind(model):
    heads = torch.stack([pattern(LENGTH - 1), pattern(1), pattern(LENGTH), pattern(0)])
    with model.edit(Replace("attn_pattern.1", heads.expand(4, HEADS, TOTAL, TOTAL))):
        found = head_scores(model, length=LENGTH, texts=4)
    torch.testing.assert_close(found.induction[1, 0], torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(found.previous[1, 1], torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(found.duplicate[1, 2], torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(found.current[1, 3], torch.tensor(1.0, dtype=torch.float64))
    assert not found.induction[1, 1:].any()
    assert found.heads("induction", 0.9) == [(1, 0, 1.0)]
    assert float(found.se["induction"][1, 0]) == 0.0


def test_scores_by_hand(model):
    found = head_scores(model, length=LENGTH, texts=3, seed=5)
    ids = repeated(model, LENGTH, 3, 5)
    assert ids.shape == (3, TOTAL)
    assert torch.equal(ids[:, 1 : 1 + LENGTH], ids[:, 1 + LENGTH :])
    _, cache = model.run_with_cache(ids, sites="attn_pattern.2")
    p = cache["attn_pattern.2"].double()
    for head in range(HEADS):
        want = torch.stack([p[:, head, q, q - LENGTH + 1] for q in range(1 + LENGTH, TOTAL)]).mean()
        torch.testing.assert_close(found.induction[2, head], want)
        want = torch.stack([p[:, head, q, 0] for q in range(1, TOTAL)]).mean()
        torch.testing.assert_close(found.first[2, head], want)
    assert found.induction.shape == (LAYERS, HEADS)
    logp = model.logits(ids).log_softmax(-1)
    second = torch.stack([-logp[:, q - 1].gather(1, ids[:, q, None]) for q in range(1 + LENGTH, TOTAL)]).mean()
    assert found.loss_second == pytest.approx(float(second), rel=1e-4)
    assert set(found.to_json()) > set(KINDS)
    assert found._repr_html_().count("<caption") == len(KINDS)


def test_bad_requests(model):
    with pytest.raises(UsageError, match="1 texts of 6 tokens say nothing"):
        head_scores(model, length=6, texts=1)
    with pytest.raises(UsageError, match="81 tokens are more than the context of 48"):
        head_scores(model, length=40)
    with pytest.raises(UsageError, match="There is no kind of head 'copying'"):
        head_scores(model, length=4, texts=2).of("copying")
