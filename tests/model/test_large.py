"""Models that are quantised, or spread over memory and disk: the same sites and sums, and weights as they count."""

import pytest
import torch

import lensing as ln
from lensing.causal.weights import ov
from lensing.data.identity import weights_digest
from lensing.errors import UsageError
from lensing.model.edit import Add, Replace
from lensing.model.matrices import matrix

pytest.importorskip("accelerate")
IDS = [[5, 9, 3, 17, 4, 11]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama with grouped queries whose numbers are large enough that quantising shows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, bos_token_id=1,
        )  # fmt: skip
        path = tmp_path_factory.mktemp("models") / "llama"
        LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.mark.parametrize("kind", ["int8", "nf4", "fp4"])
def test_quantised_models_are_read_and_edited_and_their_heads_sum(folder, kind):
    pytest.importorskip("bitsandbytes")
    model = ln.load_model(folder, quantize=kind, dtype="float32")
    tokens = model.encode(IDS, bos=False)
    logits, cache = model.run_with_cache(tokens, sites="*")
    assert torch.equal(logits, model.hf(tokens.ids).logits)
    torch.testing.assert_close(cache["resid_pre.1"] + cache["attn_out.1"], cache["resid_mid.1"])
    with model.edit(*(Replace(f"attn_z.{i}", cache[f"attn_z.{i}"]) for i in range(3))):
        assert torch.equal(model.logits(tokens), logits)
    close = 2e-2  # what is multiplied is rounded too, to 8 or 16 bits, so that heads sum no better
    for by in ("head", "neuron", "source"):
        found = ln.direct_logit_attribution(model, tokens, 7, by=by)
        assert found.error < close * sum(abs(p.value) for p in found.parts)
    plain = ln.load_model(folder)
    down, exact = (m.adapter.blocks[1].linears["down"] for m in (model, plain))
    assert matrix(down).shape == (128, 64)
    difference = (matrix(down) - matrix(exact)).norm() / matrix(exact).norm()
    assert 0 < difference < {"int8": 0.01, "nf4": 0.12, "fp4": 0.15}[kind]
    s, t = ov(model, 1, 2), ov(plain, 1, 2)
    assert 0 < abs(s.norm() / t.norm() - 1) < 0.1
    assert weights_digest(model) != weights_digest(plain)


def test_models_spread_over_memory_and_disk(folder, tmp_path):
    spread = {
        "model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk",
        "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu",
    }  # fmt: skip
    model, plain = ln.load_model(folder, device_map=spread), ln.load_model(folder, device="cpu")
    assert model.spread
    assert next(model.adapter.blocks[1].module.parameters()).device.type == "meta"
    tokens = model.encode(IDS, bos=False)
    for sites in ("*", "resid_post.*"):
        logits, cache = model.run_with_cache(tokens, sites=sites)
        expected, other = plain.run_with_cache(tokens, sites=sites)
        assert torch.equal(logits, expected)
        assert all(torch.equal(cache[s], other[s]) for s in other)
    with model.edit(Add("attn_z.1", torch.ones(4, 16))), plain.edit(Add("attn_z.1", torch.ones(4, 16))):
        assert torch.equal(model.logits(tokens), plain.logits(tokens))
    found, wanted = (ln.direct_logit_attribution(m, tokens, 7, by="neuron") for m in (model, plain))
    assert found.to_json() == wanted.to_json()
    assert torch.equal(ov(model, 2, 1).right, ov(plain, 2, 1).right)
    assert weights_digest(model) == weights_digest(plain)
    assert (
        model.generate(tokens, max_new_tokens=4).ids.tolist() == plain.generate(tokens, max_new_tokens=4).ids.tolist()
    )


def test_one_device_by_map(folder):
    model = ln.load_model(folder, device_map="auto")
    assert not model.spread
    assert torch.equal(model.logits(IDS[0]), ln.load_model(folder).logits(IDS[0]))


def test_what_cannot_be_loaded_so(folder, monkeypatch):
    with pytest.raises(UsageError, match=r"no quantisation 'int3'. Give 'int8'"):
        ln.load_model(folder, quantize="int3")
    with pytest.raises(UsageError, match=r"no device map 'best'. Give one of auto"):
        ln.load_model(folder, device_map="best")
    monkeypatch.setattr("lensing.model.large.find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"needs accelerate, which is not installed. Run: pip install 'lensing\[large\]'"
    ):
        ln.load_model(folder, device_map="auto")
