"""Weights stored in fewer bits: what is read again is what was measured, to the last bit."""

from __future__ import annotations

import pytest
import torch

import lensing as ln
from lensing.dictionary.configs import BatchTopK
from lensing.dictionary.rounding import pack, rounded, unpack, whole_rows

TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int8)


def matrix(rows=50, d=24, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, d, generator=draw) * torch.logspace(-6, 6, rows)[:, None]


@pytest.mark.parametrize("dtype", TYPES)
def test_rounding_twice_is_rounding_once(dtype):
    once = rounded(matrix(), dtype)
    assert torch.equal(rounded(once, dtype), once)


def test_whole_numbers_use_their_bits_and_miss_by_half_a_step_at_most():
    weight = matrix()
    whole, scale = whole_rows(weight)
    assert ((whole.abs().amax(1) >= 64) & (whole.abs().amax(1) <= 127)).all()
    assert torch.equal(torch.frexp(scale)[0], torch.full_like(scale, 0.5))  # powers of two
    assert ((whole * scale[:, None] - weight).abs() <= scale[:, None] / 2).all()


@pytest.mark.parametrize("value", [0.0, 127.0, 127.5, 63.5, 64.0, -127.0, 2.0**-120])
def test_edges_of_the_range(value):
    whole, scale = whole_rows(torch.tensor([[value, 0.0]]))
    expected = torch.tensor([[value, 0.0]])
    assert scale.isfinite().all()
    assert ((whole * scale[:, None] - expected).abs() <= scale[:, None] / 2).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_what_was_packed_is_what_rounding_said(dtype):
    weights = {"W_enc": matrix(), "W_dec": matrix(seed=1), "b_enc": matrix(seed=2)[0]}
    packed = pack(weights, dtype)
    packed = {name: t.t() if name == "W_enc" else t for name, t in packed.items()}
    found = unpack(packed)
    assert set(found) == set(weights)
    for name, weight in weights.items():
        expected = rounded(weight, dtype)
        assert torch.equal(found[name].float(), expected.t() if name == "W_enc" else expected), name


@pytest.mark.parametrize("dtype", TYPES)
def test_codes_of_a_trained_dictionary_do_not_flip_when_it_is_read_again(tmp_path, dtype):
    x = torch.randn(4000, 16, generator=torch.Generator().manual_seed(3))
    trained = ln.train(x, BatchTopK(width=64, k=4), tokens=20_000, batch=512, dtype=dtype, quiet=True)
    again = ln.load_dictionary(trained.save(tmp_path / "d"))
    assert again.stored_dtype == dtype
    here, there = trained.encode(x), again.encode(x)
    assert torch.equal(here.index, there.index)
    assert torch.equal(here.value, there.value)
    assert trained.statistics.fvu == again.statistics.fvu


def test_int8_takes_a_quarter_of_the_room_and_costs_little(tmp_path):
    x = torch.randn(6000, 32, generator=torch.Generator().manual_seed(4))
    both = {
        dtype: ln.train(x, BatchTopK(width=128, k=4), tokens=30_000, batch=512, dtype=dtype, quiet=True)
        for dtype in (torch.float32, torch.int8)
    }
    sizes = [(d.save(tmp_path / str(dtype)) / "weights.safetensors").stat().st_size for dtype, d in both.items()]
    assert sizes[1] < 0.35 * sizes[0]  # biases and scales are whole floats
    fvu = [d.statistics.fvu for d in both.values()]
    assert fvu[1] == pytest.approx(fvu[0], rel=0.01)
    assert fvu[1] != fvu[0]
