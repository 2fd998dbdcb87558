"""SAEDashboard on a model, a dictionary and prompts, in its own environment: CPU seconds, peak memory, bytes."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file


def main(folder: Path, features: int) -> dict[str, float]:
    """Dashboards of the first latents, written as it writes them."""
    from sae_dashboard.components_config import (
        ActsHistogramConfig,
        Column,
        FeatureTablesConfig,
        LogitsHistogramConfig,
        LogitsTableConfig,
        SequencesConfig,
    )
    from sae_dashboard.layout import SaeVisLayoutConfig
    from sae_dashboard.neuronpedia.neuronpedia_converter import NeuronpediaConverter
    from sae_dashboard.neuronpedia.neuronpedia_runner_config import NeuronpediaRunnerConfig
    from sae_dashboard.sae_vis_data import SaeVisConfig
    from sae_dashboard.sae_vis_runner import SaeVisRunner
    from sae_lens import SAE, HookedSAETransformer
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
    from transformers import GPT2LMHeadModel

    hf = GPT2LMHeadModel.from_pretrained(folder / "model")
    c = hf.config
    config = HookedTransformerConfig(
        n_layers=c.n_layer, d_model=c.n_embd, n_ctx=c.n_positions, d_head=c.n_embd // c.n_head, n_heads=c.n_head,
        d_vocab=c.vocab_size, act_fn="gelu_new", normalization_type="LN", seed=0, eps=c.layer_norm_epsilon,
    )  # fmt: skip
    model = HookedSAETransformer(config)
    model.load_and_process_state_dict(
        convert_gpt2_weights(hf, config), fold_ln=False, center_writing_weights=False, center_unembed=False,
        fold_value_biases=False,
    )  # fmt: skip
    sae = SAE.load_from_disk(str(folder / "sae"))
    sae.cfg.rescale_acts_by_decoder_norm = True  # its rows have length 1; without this it refuses TopK
    tokens = load_file(folder / "tokens.safetensors")["ids"].long()
    started, base = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    layout = SaeVisLayoutConfig(
        columns=[
            Column(
                SequencesConfig(stack_mode="stack-all", buffer=None, compute_buffer=True, n_quantiles=5,
                                top_acts_group_size=20, quantile_group_size=5),
                ActsHistogramConfig(), LogitsHistogramConfig(), LogitsTableConfig(), FeatureTablesConfig(n_rows=3),
            )
        ]
    )  # fmt: skip
    vocabulary = {i: f" t{i}" for i in range(c.vocab_size)}
    out = folder / "dashboards"
    out.mkdir(exist_ok=True)
    settings = NeuronpediaRunnerConfig(
        sae_set="s", sae_path="none", outputs_dir=str(out), np_set_name="s", n_prompts_total=len(tokens),
        n_tokens_in_prompt=tokens.shape[1], huggingface_dataset_path="none", model_id="m", layer=1,
    )  # fmt: skip
    with torch.no_grad():
        for batch, first in enumerate(range(0, features, 128)):
            some = SaeVisConfig(
                hook_point="blocks.1.hook_resid_pre", features=list(range(first, min(first + 128, features))),
                minibatch_size_features=128, minibatch_size_tokens=32, quantile_feature_batch_size=64, verbose=False,
                device="cpu", feature_centric_layout=layout, perform_ablation_experiments=False, dtype="float32",
                cache_dir=folder / "cache", ignore_tokens=set(),
            )  # fmt: skip
            data = SaeVisRunner(some).run(encoder=sae, model=model, tokens=tokens)
            text = NeuronpediaConverter.convert_to_np_json(model, data, settings, vocabulary)
            (out / f"batch-{batch}.json").write_text(text)
    size = sum(path.stat().st_size for path in out.iterdir())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"cpu": time.process_time() - started, "base": base / 1024, "peak": peak / 1024, "bytes": size}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
