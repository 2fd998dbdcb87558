"""Tiny models built from configs, a whole-word tokenizer, and the folder of test data: nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network must fail, and fail quickly

TEST_DATA = Path(os.environ.get("LENSING_TEST_DATA", Path(__file__).resolve().parents[1] / "../shared"))

WORDS = (
    "<pad> <bos> <eos> <unk> the reliability of almanac is very doubtful certain and a bird sang by river on monday "
    "tuesday he she said that it was not ever seen in north south . , kept old book letter reader trusts doubts"
).split()
VOCAB, D_MODEL, LAYERS, HEADS, D_HEAD, D_MLP, CONTEXT = len(WORDS), 32, 3, 4, 8, 40, 48

_BASE = {
    "vocab_size": VOCAB, "hidden_size": D_MODEL, "intermediate_size": D_MLP, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "max_position_embeddings": CONTEXT, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0, "initializer_range": 0.4,
    "tie_word_embeddings": False,  # a tiny tied model says its last word again and again
}  # fmt: skip
_GEMMA = {**_BASE, "num_key_value_heads": 2, "head_dim": D_HEAD, "query_pre_attn_scalar": D_HEAD, "sliding_window": 8}
_GQA = {**_BASE, "num_key_value_heads": 2}

# family: (config class, model class, settings); every one is exact by its own test
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", {
        "vocab_size": VOCAB, "n_embd": D_MODEL, "n_layer": LAYERS, "n_head": HEADS, "n_inner": D_MLP,
        "n_positions": CONTEXT, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.4,
        "tie_word_embeddings": False,
    }),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", {**_BASE, "use_parallel_residual": True}),
    "gpt_neox_sequential": ("GPTNeoXConfig", "GPTNeoXForCausalLM", {**_BASE, "use_parallel_residual": False}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", _GQA),
    "mistral": ("MistralConfig", "MistralForCausalLM", {**_GQA, "sliding_window": 8}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _GQA),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {
        **_BASE, "num_key_value_heads": 1, "head_dim": D_HEAD, "tie_word_embeddings": True,
    }),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", {**_GEMMA, "final_logit_softcapping": 5.0}),
    "gemma3_text": ("Gemma3TextConfig", "Gemma3ForCausalLM", _GEMMA),
    "opt": ("OPTConfig", "OPTForCausalLM", {
        **_BASE, "ffn_dim": D_MLP, "word_embed_proj_dim": D_MODEL, "init_std": 0.4, "do_layer_norm_before": True,
    }),
    "opt_post_norm": ("OPTConfig", "OPTForCausalLM", {
        **_BASE, "ffn_dim": D_MLP, "word_embed_proj_dim": 16, "init_std": 0.4, "do_layer_norm_before": False,
    }),
    "phi": ("PhiConfig", "PhiForCausalLM", _BASE),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", _GQA),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**_GQA, "head_dim": D_HEAD}),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", _GQA),
    "granite": ("GraniteConfig", "GraniteForCausalLM", {
        **_GQA, "residual_multiplier": 0.5, "embedding_multiplier": 2.0, "logits_scaling": 3.0,
        "attention_multiplier": 0.4,
    }),
    "cohere": ("CohereConfig", "CohereForCausalLM", {**_GQA, "logit_scale": 0.25}),
    "starcoder2": ("Starcoder2Config", "Starcoder2ForCausalLM", {**_GQA, "sliding_window": 8}),
    "glm4": ("Glm4Config", "Glm4ForCausalLM", {**_GQA, "head_dim": D_HEAD}),
    "stablelm": ("StableLmConfig", "StableLmForCausalLM", _GQA),
    "bloom": ("BloomConfig", "BloomForCausalLM", {
        "vocab_size": VOCAB, "hidden_size": D_MODEL, "n_layer": LAYERS, "n_head": HEADS, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.4, "tie_word_embeddings": False,
    }),
    "falcon": ("FalconConfig", "FalconForCausalLM", {
        **_BASE, "ffn_hidden_size": D_MLP, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True,
    }),
    "falcon_7b": ("FalconConfig", "FalconForCausalLM", {
        **_BASE, "ffn_hidden_size": D_MLP, "multi_query": True, "parallel_attn": True, "bias": False,
    }),
    "gptj": ("GPTJConfig", "GPTJForCausalLM", {
        "vocab_size": VOCAB, "n_embd": D_MODEL, "n_layer": LAYERS, "n_head": HEADS, "n_inner": D_MLP, "rotary_dim": 4,
        "n_positions": CONTEXT, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.4,
        "tie_word_embeddings": False,
    }),
    "gpt_neo": ("GPTNeoConfig", "GPTNeoForCausalLM", {
        **{k: v for k, v in _BASE.items() if k not in ("num_attention_heads", "num_hidden_layers")},
        "num_layers": LAYERS, "num_heads": HEADS, "attention_types": [[["global", "local", "global"], 1]],
        "window_size": 8,
    }),
    "mpt": ("MptConfig", "MptForCausalLM", {
        "vocab_size": VOCAB, "d_model": D_MODEL, "n_layers": LAYERS, "n_heads": HEADS, "expansion_ratio": 2,
        "max_seq_len": CONTEXT, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.4,
    }),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", {**_GQA, "num_local_experts": 4}),
    "qwen3_moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM", {
        **_GQA, "head_dim": D_HEAD, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": D_MLP,
    }),
    "gpt_oss": ("GptOssConfig", "GptOssForCausalLM", {
        **_GQA, "head_dim": D_HEAD, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8,
    }),
}  # fmt: skip


@pytest.fixture(scope="session")
def make_hf() -> Callable[[str], Any]:
    """Return a maker of tiny Hugging Face models: `make_hf("gemma2")`, new at each call, always the same weights."""

    def make(family: str) -> Any:
        import torch
        import transformers

        config_name, model_name, settings = FAMILIES[family]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            hf = getattr(transformers, model_name)(getattr(transformers, config_name)(**settings))
            for name, weight in hf.named_parameters():
                # Norm gains and biases start at one or zero, where a swapped or forgotten norm would go unnoticed.
                if weight.dim() == 1:
                    weight.data += 0.3 * torch.randn_like(weight)
                assert weight.isfinite().all(), name
        return hf.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A tokenizer of whole words, as the shipped model has one."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def make_model(make_hf: Callable[[str], Any], tokenizer: Any) -> Callable[[str], Any]:
    """Return a maker of tiny models that read words: `make_model("gemma2")`, built once a session."""
    from functools import cache

    from lensing.model.run import Model

    return cache(lambda family: Model(make_hf(family), tokenizer, name=f"tiny-{family}"))


@pytest.fixture
def model(make_model: Callable[[str], Any]) -> Any:
    """The tiny model of the shipped model's family."""
    return make_model("gemma2")


@pytest.fixture(scope="session")
def model_folder(
    make_hf: Callable[[str], Any], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Return a maker of checkpoints with tokenizer: `model_folder("llama")`; copy one before changing it."""
    from functools import cache

    from lensing.model.create import save_model

    @cache
    def save(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        save_model(make_hf(family), folder)  # says nothing, so that a test may ask for silence
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real text and a real model; the test is skipped where there is none."""
    if not (TEST_DATA / "models").is_dir():
        pytest.skip("no test data: set LENSING_TEST_DATA to its folder")
    return TEST_DATA
