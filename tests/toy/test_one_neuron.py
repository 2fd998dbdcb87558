"""One neuron for four inputs: two meanings are better than one, by closed form and by a readout that is trained."""

import math

import pytest
import torch

from lensing.errors import UsageError
from lensing.toy.one_neuron import best_neuron, one_neuron_loss

ONE, TWO = (True, False, False, False), (True, True, False, False)


def test_the_published_numbers():
    assert one_neuron_loss(ONE) == pytest.approx(0.75 * math.log(3)) == pytest.approx(0.824, abs=5e-4)
    assert one_neuron_loss(TWO) == pytest.approx(math.log(2)) == pytest.approx(0.693, abs=5e-4)


@pytest.mark.parametrize("fires", [ONE, TWO])
def test_no_readout_does_better(fires):
    readout = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([readout], lr=0.1)
    x = torch.tensor(fires).long()
    for _ in range(400):
        loss = torch.nn.functional.cross_entropy(readout[x], torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) == pytest.approx(one_neuron_loss(fires), abs=1e-3)
    assert float(loss.detach()) >= one_neuron_loss(fires) - 1e-12


def test_the_best_neuron_has_half_of_the_inputs_unless_one_is_common():
    for n in (2, 4, 6):
        fires, loss = best_neuron(n)
        assert sum(fires) == n // 2
        assert loss == pytest.approx(math.log(n / 2))
    fires, _ = best_neuron(4, [0.7, 0.1, 0.1, 0.1])
    assert sum(fires) in (1, 3), "what is common enough is worth a neuron of its own"


def test_what_is_no_distribution_is_refused():
    with pytest.raises(UsageError, match="sum to 1"):
        one_neuron_loss(ONE, [0.5, 0.5, 0.5, 0.5])
