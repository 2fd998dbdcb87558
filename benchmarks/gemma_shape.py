"""Does the whole walk run on a model of Gemma 2 2B's true shape, in memory and time that a laptop has?

Random weights in bfloat16 (26 blocks of 2,304; 256,000 tokens), a random dictionary of 16,384 latents at `mlp_out.20`
which takes the 64 largest, seven tokens, three strengths, eight new tokens, and --tokens of random text, in which
contexts are looked for and side effects measured. Time is wall time of `ln.walk`, the weights built before; memory is
the process's peak.

    python benchmarks/gemma_shape.py                       the true shape, 6 GB of weights
    python benchmarks/gemma_shape.py --layers 2 --vocab 4096     quickly

Limits: 9 GB (10^9 bytes), 60 seconds on two cores.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from typing import Any

import torch

import lensing as ln
from lensing.dictionary.base import new_dictionary
from lensing.dictionary.configs import TopK
from lensing.model.run import Model

GIGABYTES, SECONDS = 9.0, 60.0
STRENGTHS, NEW_TOKENS, WIDTH, ACTIVE, TEXTS = (0.0, 1.0, 4.0), 8, 16_384, 64, 8


def build(layers: int, vocab: int) -> Any:
    """Return a random Gemma 2 in bfloat16, whose weights never stood in another format."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(vocab_size=vocab, num_hidden_layers=layers)  # the rest is 2B's by default
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            hf = Gemma2ForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    hf = hf.to_empty(device="cpu")
    hf.tie_weights()
    for module in hf.modules():
        if "Rotary" in type(module).__name__:
            module.__init__(config)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            # small enough that sums stay finite, large enough that every part is heard; norms' gains are 1 + w
            weight.zero_() if "norm" in name else weight.normal_(0, 0.02, generator=g)
    return hf.requires_grad_(False)


def main() -> int:
    """Print time and memory; return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--vocab", type=int, default=256_000)
    parser.add_argument("--tokens", type=int, default=128, help=f"of the text, in {TEXTS} documents (%(default)s)")
    options = parser.parse_args()
    began = time.perf_counter()
    model = Model(build(options.layers, options.vocab), name="gemma-2-2b-shape")
    sae = new_dictionary(TopK(width=WIDTH, k=ACTIVE), model.d_model).requires_grad_(False)
    sae.site, sae.model_name = f"mlp_out.{min(20, options.layers - 1)}", model.name
    print(f"{model}: built in {time.perf_counter() - began:.0f} s, {_peak():.1f} GB")
    g = torch.Generator().manual_seed(1)
    texts = [torch.randint(3, options.vocab, (options.tokens // TEXTS,), generator=g).tolist() for _ in range(TEXTS)]
    began, cpu = time.perf_counter(), time.process_time()
    walked = ln.walk(
        list(range(3, 10)), model=model, dictionary=sae, strengths=STRENGTHS, new_tokens=NEW_TOKENS, text=texts
    )
    wall, cpu, peak = time.perf_counter() - began, time.process_time() - cpu, _peak()
    b = walked.beyond
    assert b is not None
    print(
        f"{len(b.effects.latents)} effects, {len(b.steering.directions)} directions, {len(b.steering.doses)} strengths"
    )
    print(f"walk: {wall:.1f} s ({cpu:.1f} s of CPU), limit {SECONDS:g}; peak {peak:.2f} GB, limit {GIGABYTES:g}")
    return int(wall > SECONDS or peak > GIGABYTES)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    sys.exit(main())
