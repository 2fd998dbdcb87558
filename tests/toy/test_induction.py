"""Two layers of attention learn to continue what was said before, by circuits that are known: found again here."""

import pytest
import torch

from lensing.causal.attribute import attribute
from lensing.causal.heads import head_scores
from lensing.causal.metrics import LogitDifference, LogProbability
from lensing.causal.patch import ablation, patch
from lensing.causal.weights import composition
from lensing.toy.induction import said_twice, train_induction


@pytest.fixture(scope="module")
def run():
    return train_induction(quiet=True)


@pytest.fixture(scope="module")
def scores(run):
    return head_scores(run.model, length=14, texts=16)


def test_the_loss_falls_suddenly_where_it_can(run):
    assert run.phase_change is not None
    assert run.loss_second[-1] < 0.3
    assert min(run.loss_first[-5:]) > 3.0  # random words stay random: log 31 is 3.43
    drop = max(a - b for a, b in zip(run.loss_second, run.loss_second[4:], strict=False))
    assert drop > 0.25 * run.loss_second[0], "a phase change within 200 steps"


def test_previous_token_and_induction_heads_are_found(scores):
    induction, previous = scores.heads("induction", 0.5), scores.heads("previous", 0.5)
    assert induction
    assert all(layer == 1 for layer, _, _ in induction)
    assert any(layer == 0 for layer, _, _ in previous)


def test_keys_of_induction_heads_read_previous_token_heads(run, scores):
    """K-composition: of the first layer's heads the previous-token one is what induction heads' keys read most."""
    found = composition(run.model, "k")
    previous = max(scores.heads("previous", 0.0), key=lambda item: (item[0] == 0, item[2]))[1]
    for _, head, _ in scores.heads("induction", 0.5):
        assert int(found[0, :, 1, head].argmax()) == previous
        assert float(found[0, previous, 1, head]) > 0.05


def test_ablation_takes_the_skill_away_and_restores_the_loss(run, scores):
    generator = torch.Generator().manual_seed(1)
    ids = said_twice(8, d_vocab=32, shortest=16, longest=16, generator=generator)[0]
    text, target = ids[:, :-1].tolist(), LogProbability(tuple(ids[:, -1].tolist()))
    found = ablation(run.model, text, target, site="attn_z", method="zero")
    assert found.whole > -0.3
    heads = [h for _, h, _ in scores.heads("induction", 0.5)]
    previous = max(scores.heads("previous", 0.0), key=lambda item: (item[0] == 0, item[2]))[1]
    hurt = [float(found.effect[1, h]) for h in heads] + [float(found.effect[0, previous])]
    assert min(hurt) < -0.5
    every = [
        found.effect[layer, h] for layer in range(2) for h in range(4)
        if (layer, h) not in {(0, previous), *((1, head) for head in heads)}
    ]  # fmt: skip
    assert float(found.effect[0, previous]) < min(float(e) for e in every)


@pytest.mark.parametrize("site", ["attn_z", "resid_pre"])
@pytest.mark.parametrize("method", ["gradient", "ig"])
def test_attribution_ranks_nodes_as_patching_does(run, method, site):
    generator = torch.Generator().manual_seed(2)
    ids = said_twice(8, d_vocab=32, shortest=16, longest=16, generator=generator)[0][:, :25]
    clean, corrupt = ids.tolist(), ids.clone()
    # the token before the one to be said again is another: nothing tells any more what follows
    corrupt[:, 8] = (corrupt[:, 8] + 7) % 31 + 1
    target = LogitDifference(tuple(ids[:, 9].tolist()), tuple(((ids[:, 9] + 11) % 31 + 1).tolist()))
    assert torch.equal(ids[:, 8], ids[:, 24])
    truth = patch(run.model, clean, corrupt.tolist(), target, site=site)
    guess = attribute(run.model, clean, corrupt.tolist(), target, site=site, method=method, steps=10)
    used = truth.effect.abs() > 1e-3
    assert int(used.sum()) >= 5
    assert spearman(truth.effect[used], guess.effect[used]) > 0.9


def spearman(a, b):
    ranks = [x.argsort().argsort().double() for x in (a, b)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])
