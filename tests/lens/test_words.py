"""Direct words against the norm's own weights and against a small step along the direction."""

from __future__ import annotations

import pytest
import torch

from lensing.lens.words import direct_words, speaks_in_stream
from lensing.model.norms import describe


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_gain_and_unembedding_are_applied(make_model, family):
    model = make_model(family)
    d = torch.randn(3, model.d_model, generator=torch.Generator().manual_seed(0))
    norm = model.adapter.final_norm
    gain = 1 + norm.weight if family == "gemma2" else norm.weight
    centred = d - d.mean(-1, keepdim=True) if family == "gpt2" else d
    logits = (centred * gain) @ model.W_U
    wanted = logits - logits.mean(-1, keepdim=True)
    assert torch.allclose(direct_words(model, d), wanted, atol=1e-3)


def test_an_odd_width_has_a_gain_too(make_model):
    from types import SimpleNamespace

    for norm in (torch.nn.LayerNorm(7), torch.nn.RMSNorm(7)):
        norm.weight.data = torch.linspace(-1, 2, 7)
        model = SimpleNamespace(
            d_model=7, device=torch.device("cpu"), dtype=torch.float32, W_U=torch.eye(7),
            adapter=SimpleNamespace(
                final_norm=norm, project_out=None, norm=lambda m: describe(m, 7, torch.zeros(1)),
            ),
        )  # fmt: skip
        d = torch.arange(7.0)[None] ** 2
        inner = (d - d.mean() if isinstance(norm, torch.nn.LayerNorm) else d) * norm.weight
        assert torch.allclose(direct_words(model, d), inner - inner.mean(), atol=1e-2)  # type: ignore[arg-type]


def test_only_the_stream_speaks(model):
    assert speaks_in_stream(model, "resid_post.1")
    assert speaks_in_stream(model, "blocks.1.hook_mlp_out")
    assert not speaks_in_stream(model, "mlp_post.1")
    assert not speaks_in_stream(model, "mlp_out_raw.1")
