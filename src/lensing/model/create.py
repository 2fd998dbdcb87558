"""New models from a config: what the shipped model and the tests' models are made of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' bars and warnings while it loads or saves, and leave its settings as they were."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def new_gemma2(
    *,
    d_vocab: int,
    d_model: int,
    n_layers: int,
    n_heads: int,
    n_kv_heads: int,
    d_mlp: int,
    context: int,
    window: int,
    global_layers: Sequence[int] = (),
    bos_id: int,
    eos_id: int,
    pad_id: int,
    seed: int = 0,
) -> Any:
    """Return a freshly initialised `Gemma2ForCausalLM` in float32, the same weights for the same seed.

    Attention sees the whole context in `global_layers` (every second layer unless given) and `window` tokens elsewhere.
    """
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=d_vocab,
        hidden_size=d_model,
        intermediate_size=d_mlp,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=n_kv_heads,
        head_dim=d_model // n_heads,
        query_pre_attn_scalar=d_model // n_heads,
        max_position_embeddings=context,
        sliding_window=window,
        layer_types=["full_attention" if i in global_layers else "sliding_attention" for i in range(n_layers)]
        if global_layers
        else None,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        pad_token_id=pad_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Gemma2ForCausalLM._from_config(config, attn_implementation="eager")


def save_model(model: Any, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write config and safetensors weights that plain `from_pretrained` reads."""
    with quiet():
        model.to(dtype).save_pretrained(folder)


def untrained(folder: str | Path, dtype: torch.dtype = torch.float32, *, seed: int = 0) -> Any:
    """Return a model of a folder's config with fresh weights, the same for the same seed, in evaluation mode."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.from_pretrained(folder)
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype).eval()


def new_gpt2(
    *, d_vocab: int, d_model: int, n_layers: int, n_heads: int, context: int, d_mlp: int | None = None,
    bos_id: int | None = None, seed: int = 0,
) -> Any:  # fmt: skip
    """Return a fresh GPT-2 in float32, without dropout, its unembedding its own; `d_mlp` None: four times d_model."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=d_vocab, n_embd=d_model, n_layer=n_layers, n_head=n_heads, n_inner=d_mlp, n_positions=context,
        bos_token_id=bos_id, eos_token_id=None, pad_token_id=bos_id, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel._from_config(config, attn_implementation="sdpa")


def new_attention_only(
    *, d_vocab: int, d_model: int, n_layers: int, n_heads: int, context: int, bos_id: int = 0, seed: int = 0
) -> Any:
    """Return a fresh GPT-2 in float32 whose MLPs write nothing and never learn: attention and norms alone are left."""
    model = new_gpt2(
        d_vocab=d_vocab, d_model=d_model, n_layers=n_layers, n_heads=n_heads, context=context, d_mlp=1, bos_id=bos_id,
        seed=seed,
    )  # fmt: skip
    for block in model.transformer.h:
        for weight in block.mlp.parameters():
            weight.requires_grad_(False).zero_()
    return model


def new_relu_gpt2(
    *, d_vocab: int, d_model: int, n_layers: int, d_mlp: int, context: int, n_heads: int = 1, spread: float = 0.02
) -> Any:
    """Return a GPT-2 in float32 with ReLU neurons and no norms; `spread` is the initial weights' standard deviation."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=d_vocab, n_embd=d_model, n_layer=n_layers, n_head=n_heads, n_inner=d_mlp, n_positions=context,
        activation_function="relu", initializer_range=spread, bos_token_id=None, eos_token_id=None, embd_pdrop=0.0,
        attn_pdrop=0.0, resid_pdrop=0.0, tie_word_embeddings=False,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel._from_config(config, attn_implementation="eager")
    for block in model.transformer.h:
        block.ln_1, block.ln_2 = torch.nn.Identity(), torch.nn.Identity()
    model.transformer.ln_f = torch.nn.Identity()
    return model
