"""The Triton kernels against plain torch, run by Triton's interpreter: no GPU is needed, and none is tried."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

SCRIPT = """
import torch
from lensing.dictionary import kernels, triton_kernels
from lensing.dictionary.codes import Codes

def made(rows, columns, d, share, dtype, seed):
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, columns, generator=g) < share
    mask[1:, 2], mask[:, 3] = True, False  # a latent that is nearly always active, and one that never is
    mask[rows // 2] = False  # a row without any place
    draw = lambda *shape: torch.randn(*shape, generator=g).to(dtype)
    codes = Codes.from_dense(torch.where(mask, draw(rows, columns), 0))
    return codes, draw(rows, d), draw(columns, d), draw(columns), draw(rows, d), draw(len(codes.index))

def run(codes, x, weight, bias, up, along):
    # both products and all gradients
    pattern = kernels.Pattern(codes.indptr, codes.index, codes.d_sae)
    value, x, weight, bias = (t.detach().clone().requires_grad_() for t in (codes.value, x, weight, bias))
    mixed, dotted = kernels.sparse_mix(value, weight, pattern), kernels.sparse_dot(x, weight, bias, pattern)
    first = torch.autograd.grad((mixed * up).sum(), [value, weight])
    second = torch.autograd.grad((dotted * along).sum(), [x, weight, bias])
    return [tensor.detach() for tensor in (mixed, dotted, *first, *second)]

kernels.DENSE = 2.0  # always the sparse products
triton_kernels.WIDEST = 8  # so that vectors of 5 and 20 numbers take one part and several
for dtype, near, d in (
    (torch.float64, 1e-10, 1), (torch.float64, 1e-10, 20), (torch.float32, 1e-5, 5), (torch.bfloat16, 3e-2, 5)
):
    given = made(5, 9, d, 0.25, dtype, d)
    kernels._gpu_kernels = lambda tensor: triton_kernels
    ours = run(*given)
    if dtype == torch.float32:
        assert all(torch.equal(a, b) for a, b in zip(ours, run(*given)))
    kernels._gpu_kernels = lambda tensor: None
    # bfloat16 is compared with the same numbers in float32: torch's own sums would round on the way
    wide = [t.float() if isinstance(t, torch.Tensor) and dtype == torch.bfloat16 else t for t in given]
    if dtype == torch.bfloat16:
        codes = given[0]
        wide[0] = Codes(codes.indptr, codes.index, codes.value.float(), codes.shape)
    for number, (a, b) in enumerate(zip(ours, run(*wide), strict=True)):
        error = float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-3))
        assert a.dtype == dtype and a.shape == b.shape and error < near, (dtype, d, number, error)
empty = torch.zeros(0, dtype=torch.int32)
pointer = torch.zeros(3, dtype=torch.int64)
assert triton_kernels.bag(torch.zeros(0), torch.ones(4, 3), empty, pointer).tolist() == [[0.0] * 3] * 2
assert triton_kernels.dots(torch.ones(2, 3), torch.ones(4, 3), empty, pointer).shape == (0,)
print("the same")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_kernels_agree_with_plain_torch() -> None:
    # whether kernels are interpreted is decided when triton is imported
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.stdout.strip() == "the same", done.stderr


def test_without_a_gpu_plain_torch_is_used() -> None:
    import torch

    from lensing.dictionary import kernels

    assert kernels._gpu_kernels(torch.zeros(1)) is None
