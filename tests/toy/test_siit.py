"""A model trained to a known circuit holds it there and nowhere else, and finders are scored against it."""

import pytest
import torch

from lensing.errors import UsageError
from lensing.toy.rasp import frac_prevs, histogram, reverse
from lensing.toy.siit import METHODS, _Texts, circuit_scores, train_known


@pytest.fixture(scope="module")
def known():
    return train_known(reverse(3, 4), steps=500, n_heads=2, batch=64, lr=4e-3, quiet=True)


def test_the_program_lives_where_it_was_put(known):
    ((layer, head),) = known.circuit
    assert layer == 0
    assert head in (0, 1)
    assert known.circuit[layer, head] == ("out",)
    assert len(known.components) == known.model.n_layers * 3
    assert min(known.accuracy, known.interchange, known.idle) > 0.97


@pytest.mark.parametrize("method", ["patch", "ig"])
def test_finders_rank_the_circuit_first(known, method):
    scores = circuit_scores(known, method, pairs=24)
    assert set(scores) == set(known.components)
    assert max(scores, key=scores.get) in known.circuit


def test_the_gradient_is_small_where_the_model_is_sure(known):
    """Why one gradient alone finds this circuit badly: at answers that are certain it all but vanishes."""
    (inside,) = known.circuit
    assert circuit_scores(known, "gradient", pairs=24)[inside] < 0.1 * circuit_scores(known, "patch", pairs=24)[inside]


def test_answers_under_a_change_are_the_programs():
    program = histogram(3, 3)
    texts = _Texts(program, {(0, 0): ("mine",)}, 0)
    words, other = (torch.tensor([row]) for row in ([0, 1, 1], [2, 2, 0]))
    mine = {("mine", p): v for p, v in enumerate(program.run([2, 2, 0])["mine"]) if v is not None}
    wanted = [int(a or 0) for a in program.answers([0, 1, 1], mine)]
    assert texts.answers(words, other, (0, 0)).tolist() == [wanted]
    assert texts.answers(words, other, (1, None)).tolist() == texts.answers(words).tolist() == [[1, 2, 2]]
    held = {tuple(w) for w in texts.held.tolist()}
    assert held.isdisjoint({tuple(w) for w in texts.shown.tolist()})
    assert len(held) + len(texts.shown) == 27


def test_refusals(known):
    with pytest.raises(UsageError, match="answers with shares"):
        train_known(frac_prevs(), steps=1)
    with pytest.raises(UsageError, match=rf"no method 'acdc'. Give one of {', '.join(METHODS)}"):
        circuit_scores(known, "acdc")
