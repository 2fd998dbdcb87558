"""What does a sweep save? Four dictionaries trained from one reader, against four runs that harvest for themselves.

GPT-2's shape (124 million weights, drawn at random), the rows of one middle site, TopK with k = 32 at width 4,096 and
four seeds. Each side is one whole process, imports and the model's making included, and is charged its CPU seconds:
  sweep     harvest to disk, then ln.sweep of the four from that store
  alone     the same harvest and one ln.train, four times; measured once for each of `--runs`, and multiplied by four
The ratio is sweep / alone, limit 0.6. Beside it what both are made of: model and imports, harvest, optimiser steps,
and the rest of the training (reading, statistics, and what the splice costs the model).

    python benchmarks/sweep.py            131,072 tokens a dictionary; about twenty minutes on one core
    python benchmarks/sweep.py --quick    4,096 tokens and a small model; the limit is not judged
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIMIT, MEMBERS, WIDTH, K, LENGTH = 0.6, 4, 4096, 32, 256
GPT2 = {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
SMALL = {"n_layer": 4, "n_embd": 64, "n_head": 4, "vocab_size": 500, "n_positions": 256}
PARTS = ("model and imports", "harvest", "steps", "reading and end")


def child(tokens: int, seeds: list[int], quick: bool) -> None:
    """Harvest, train the dictionaries of some seeds, and print the CPU seconds of each part as JSON."""
    import numpy as np
    import torch

    import lensing as ln
    from lensing.model.run import Model
    from lensing.training.step import Trainer

    torch.set_num_threads(1)
    import transformers

    torch.manual_seed(0)
    shape = SMALL if quick else GPT2
    special = dict.fromkeys(["bos_token_id", "eos_token_id"], shape["vocab_size"] - 1)
    model = Model(
        transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **special)).eval().requires_grad_(False), None
    )
    draw = np.random.default_rng(0)
    documents = draw.integers(0, shape["vocab_size"] - 1, size=(int(1.06 * tokens) // LENGTH + 1, LENGTH)).tolist()
    parts = dict.fromkeys(PARTS, 0.0)
    parts["model and imports"] = time.process_time()

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        parts[name] += time.process_time() - began

    plain = Trainer.step

    def step(trainer: Trainer, *rows: Any) -> Any:
        with timed("steps"):
            return plain(trainer, *rows)

    Trainer.step = step  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        with timed("harvest"):
            site = f"resid_post.{shape['n_layer'] // 2}"
            store = ln.harvest(model, documents, sites=site, out=Path(folder) / "acts", context=LENGTH, quiet=True)
        with timed("reading and end"):
            width = WIDTH if not quick else 256
            grid = {"architecture": "topk", "width": width, "k": K, "seed": seeds}
            ln.sweep(
                store, grid, tokens=tokens, batch=min(4096, tokens // 4), out=Path(folder) / "out", model=model,
                quiet=True, loss_tokens=2048,
            )  # fmt: skip
    parts["reading and end"] -= parts["steps"]
    print(json.dumps({"cpu": time.process_time(), "parts": parts}))


def measure(tokens: int, seeds: list[int], quick: bool) -> dict[str, Any]:
    """One whole process; its CPU seconds are those that the process itself counts at its end."""
    call = [sys.executable, __file__, "--child", json.dumps({"tokens": tokens, "seeds": seeds, "quick": quick})]
    return json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> int:
    """Print the ratio and what it is made of; return 1 when the limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model and few tokens, limit not judged")
    parser.add_argument("--tokens", type=int, help="tokens a dictionary is trained on")
    parser.add_argument("--runs", type=int, default=3, help="processes of each side; the median counts")
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON to this file")
    options = parser.parse_args()
    tokens = options.tokens or (4096 if options.quick else 131_072)
    found: dict[str, list[dict[str, Any]]] = {"sweep": [], "alone": []}
    for run in range(1 if options.quick else options.runs):
        found["sweep"].append(measure(tokens, list(range(MEMBERS)), options.quick))
        found["alone"].append(measure(tokens, [run % MEMBERS], options.quick))
    times = {"sweep": 1, "alone": MEMBERS}
    cpu = {side: times[side] * statistics.median(one["cpu"] for one in runs) for side, runs in found.items()}
    ratio = cpu["sweep"] / cpu["alone"]
    print(f"sweep / alone {ratio:.3f}, limit {LIMIT}   ({cpu['sweep']:.1f} and {cpu['alone']:.1f} CPU seconds)")
    print(f"{'CPU seconds':20}{'sweep':>10}{f'{MEMBERS} alone':>10}")
    for part in PARTS:
        both = [times[side] * statistics.median(one["parts"][part] for one in found[side]) for side in found]
        print(f"{part:20}{both[0]:10.1f}{both[1]:10.1f}")
    if options.out is not None:
        options.out.write_text(json.dumps({"tokens": tokens, "ratio": ratio, "measured": found}, indent=1))
    return int(ratio > LIMIT and not options.quick)


if __name__ == "__main__":
    if "--child" in sys.argv:
        child(**json.loads(sys.argv[sys.argv.index("--child") + 1]))
    else:
        sys.exit(main())
