"""How much of a planted truth do our dictionaries find, against a published simulation of the same data?

Data: `lensing.toy.planted` (d_in 48; 256 sparse features, 5 active a row; a dense subspace, three circles, noise).
Peer: a plain TopK (k = 10, batches of 512, 3,000 steps), whose FVU and counts stand in PEER. Ratios are ours over the
peer's, means over seeds. Limits for TopK: features found at least 0.95 of the peer's, FVU at most 1.05 of it.

    python benchmarks/planted.py            three seeds, about four minutes on one core
    python benchmarks/planted.py --quick    one seed, a third of the steps
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

import lensing as ln
from lensing.config import versions
from lensing.measure.fvu import fvu
from lensing.measure.matching import recovery
from lensing.toy.planted import Planted
from lensing.training.loop import train

PEER = {128: (0.181, 86), 256: (0.138, 231), 512: (0.134, 249)}  # width: (FVU, features with a cosine above 0.9)
K, BATCH, STEPS, POOL, TEST = 10, 512, 3000, 120_000, 20_000
LR = {"topk": 3e-3, "batchtopk": 3e-3}


def one(architecture: str, width: int, seed: int, steps: int) -> dict[str, float]:
    """Train one dictionary on one planted world and score it on fresh rows of that world."""
    world = Planted(seed=seed)
    config = (ln.TopK if architecture == "topk" else ln.BatchTopK)(width=width, k=K)
    began = time.perf_counter()
    sae = train(
        world.draw(POOL, seed=1).x, config, tokens=steps * BATCH, batch=BATCH, lr=LR[architecture], warmup=200,
        seed=seed, quiet=True,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    test = world.draw(TEST, seed=2).x
    return {
        "fvu": fvu(test, sae.reconstruct(test)), "found": recovery(sae.W_dec, world.directions).found,
        "l0": sae.encode(test).l0(), "silent": sae.report.silent_share, "seconds": seconds,
    }  # fmt: skip


def main() -> int:
    """Print the table; return 1 when TopK misses a limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, a third of the steps, limits not judged")
    parser.add_argument("--out", type=Path, help="also write the table as JSON to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds, steps = (1, STEPS // 3) if options.quick else (3, STEPS)
    print(f"{'':10} {'width':>5} {'FVU':>7} {'ratio':>6} {'found':>7} {'ratio':>6} {'L0':>6} {'silent':>7} {'s':>6}")
    rows, missed = [], False
    for architecture in ("topk", "batchtopk"):
        for width, (peer_fvu, peer_found) in PEER.items():
            runs = [one(architecture, width, seed, steps) for seed in range(seeds)]
            mean = {key: sum(run[key] for run in runs) / seeds for key in runs[0]}
            ratios = mean["fvu"] / peer_fvu, mean["found"] / peer_found
            if architecture == "topk":
                missed |= ratios[0] > 1.05 or ratios[1] < 0.95
            print(
                f"{architecture:10} {width:5} {mean['fvu']:7.4f} {ratios[0]:6.3f} {mean['found']:7.1f} {ratios[1]:6.3f}"
                f" {mean['l0']:6.2f} {mean['silent']:7.3f} {mean['seconds']:6.1f}",
                flush=True,
            )
            rows.append({"architecture": architecture, "width": width, **mean, "runs": runs})
    if options.out:
        record = {"seeds": seeds, "steps": steps, "rows": rows, "versions": versions()}
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    return int(missed and not options.quick)


if __name__ == "__main__":
    sys.exit(main())
