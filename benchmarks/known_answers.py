"""Do dictionaries learn what is known to be learnt? Five small worlds with an answer (`lensing.toy.answers`).

- shrinkage: features at right angles under L1 with decoder rows of length 1. Every active latent is its coordinate less
  half of the coefficient; limit: off by at most 2% of that half on average.
- absorption: children that imply a parent. L1 and BatchTopK of a tight budget leave the parent's latent silent where a
  child is on, Matryoshka does not; limits: at least 0.8 of those rows for L1, at most 0.1 for Matryoshka.
- mixing: pairs that go together, BatchTopK with k below, at and above the true L0. Latents are pure at it and mixed
  below; limits: the partner's part of a latent's direction at most 0.1 at the true L0, at least 4 times that at half.
- transcoder: of a linear map and of an MLP. A skip connection takes the linear map alone, FVU below 1e-3; with latents
  held silent its FVU on the MLP is that of least squares, within 2%; a latent for each neuron then takes most of that.
- copies: features in two layers. One crosscoder latent writes each, with equal length in both, limits: all found, the
  second layer's share of the squared length within 0.05 of 1/2, and of 0 or 1 for features of one layer.

    python benchmarks/known_answers.py                     about ten minutes on one core
    python benchmarks/known_answers.py shrinkage copies    some of them
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import lensing as ln
from lensing.data.rows import TensorRows
from lensing.measure.fvu import fvu
from lensing.measure.matching import absorbed_share, best_latents
from lensing.toy.answers import copied, correlated, hierarchy, independent
from lensing.training.loop import train
from lensing.training.scaling import input_scale

Verdict = tuple[dict[str, Any], list[str]]


def shrinkage() -> Verdict:
    """L1 takes half of its coefficient from every active latent."""
    world, half = independent(60_000), {}
    worst = 0.0
    for coefficient in (0.05, 0.15):
        config = ln.ReLU(width=16, sparsity=coefficient, unit_rows=True)
        sae = train(world.x, config, tokens=2_000_000, batch=512, lr=3e-3, quiet=True, seed=0)
        # the coefficient is meant for rows scaled to a mean square of 1
        cut = coefficient / 2 / float(input_scale(world.x, "unit")[0])
        x = world.x[:5000]
        cosine, latent = best_latents(sae.W_dec, world.directions)
        a = (x - sae.b_dec) @ world.directions.T
        f = sae.encode(x).dense()[:, latent]
        off = float((f - (a - cut).clamp(min=0))[world.on[:5000]].abs().mean()) / cut
        half[str(coefficient)] = {"cut": cut, "off": off, "least_cosine": float(cosine.min())}
        worst = max(worst, off)
    return half, [f"shrinkage is off by {worst:.1%} of half the coefficient"] if worst > 0.02 else []


def absorption() -> Verdict:
    """Who leaves a parent's latent silent where its child is on."""
    world = hierarchy(60_000)
    parents, width = 4, 20
    test = hierarchy(10_000, seed=1)
    test_x = test.strength @ world.directions
    configs = {
        "L1": ln.ReLU(width=width, l0=0.55, unit_rows=True), "BatchTopK": ln.BatchTopK(width=width, k=1),
        "Matryoshka": ln.Matryoshka(width=width, k=1, prefixes=(parents, 12)),
    }  # fmt: skip
    found: dict[str, Any] = {}
    for name, config in configs.items():
        sae = train(world.x, config, tokens=1_500_000, batch=512, lr=3e-3, quiet=True, seed=0)
        codes = sae.encode(test_x)
        cosine, latent = best_latents(sae.W_dec, world.directions[:parents])
        shares = [
            absorbed_share(
                codes, int(latent[p]), test.on[:, p], test.on[:, parents + 4 * p : parents + 4 * p + 4].any(1)
            )
            for p in range(parents)
        ]
        found[name] = {
            "absorbed": sum(shares) / parents, "parent_cosine": float(cosine.mean()), "l0": codes.l0(),
            "fvu": fvu(test_x, sae.decode(codes)),
        }  # fmt: skip
    missed = [] if found["L1"]["absorbed"] >= 0.8 else [f"L1 absorbs {found['L1']['absorbed']:.2f}"]
    if found["Matryoshka"]["absorbed"] > 0.1:
        missed.append(f"Matryoshka absorbs {found['Matryoshka']['absorbed']:.2f}")
    return found, missed


def mixing() -> Verdict:
    """How much of its partner a latent holds, by k."""
    world, found = correlated(60_000), {}
    true_l0 = round(world.l0)
    partner = torch.arange(16) ^ 1
    for k in (true_l0 // 2, true_l0 * 3 // 4, true_l0, true_l0 * 2):
        # four latents to spare: with as many as features, a pair that shares one stays so
        sae = train(world.x, ln.BatchTopK(width=20, k=k), tokens=1_500_000, batch=512, lr=3e-3, quiet=True, seed=0)
        _, latent = best_latents(sae.W_dec, world.directions)
        own = sae.W_dec[latent] @ world.directions.T
        other = own.gather(1, partner[:, None])[:, 0].abs()
        found[str(k)] = {"partner": float(other.mean()), "own": float(own.diagonal().mean())}
    at, below = found[str(true_l0)]["partner"], found[str(true_l0 // 2)]["partner"]
    missed = [] if at <= 0.1 else [f"at the true L0 a latent holds {at:.3f} of its partner"]
    return found | {"true_l0": world.l0}, missed + ([] if below >= 4 * at else [f"below it only {below:.3f}"])


def transcoder() -> Verdict:
    """What a skip connection takes, what latents take."""
    g = torch.Generator().manual_seed(0)
    d, neurons = 16, 24
    x = torch.randn(60_000, d, generator=g)
    linear = x @ torch.randn(d, d, generator=g) / 4
    bends = (x @ torch.randn(d, neurons, generator=g) / 4 - 0.3).relu() @ torch.randn(neurons, d, generator=g)
    design = torch.cat([x, torch.ones(len(x), 1)], 1).double()

    def go(y: torch.Tensor, config: Any) -> tuple[float, float]:
        source = TensorRows({"in": x, "out": y})
        sae = train(
            source, config, site="in", target="out", skip=True, tokens=4_000_000, batch=512, lr=5e-3, quiet=True, seed=0
        )  # fmt: skip
        codes = sae.encode(x[:5000])
        return fvu(y[:5000], sae.decode(codes) + sae.skipped(x[:5000])), codes.l0()

    silent = ln.ReLU(width=8, sparsity=1e4, ramp=0.0)
    fitted = design @ torch.linalg.lstsq(design, bends.double()).solution
    least = fvu(bends[:5000], fitted[:5000])
    on_linear, on_bends, full = go(linear, silent), go(bends, silent), go(bends, ln.TopK(width=48, k=16))
    found = {
        "linear": on_linear[0], "linear_l0": on_linear[1], "mlp_silent": on_bends[0], "mlp_silent_l0": on_bends[1],
        "mlp_least_squares": least, "mlp_with_latents": full[0],
    }  # fmt: skip
    missed = [] if on_linear[0] < 1e-3 else [f"a linear map is left with FVU {on_linear[0]:.4f}"]
    if abs(on_bends[0] / least - 1) > 0.02:
        missed.append(f"without latents the FVU is {on_bends[0]:.4f}, of least squares {least:.4f}")
    if full[0] > 0.3 * least:
        missed.append(f"with latents the FVU is {full[0]:.4f}")
    return found, missed


def copies() -> Verdict:
    """Which layers each crosscoder latent writes, and how many latents two single dictionaries need."""
    # k is exactly what is on: with room to spare, a latent for each layer rebuilds a copy as well as one for both
    world = copied(60_000, p=3 / 32)
    assert world.second is not None
    assert world.second_directions is not None
    both, one, d = 16, 8, 48
    source = {"a": world.x, "b": world.second}
    go: dict[str, Any] = {"tokens": 1_500_000, "batch": 512, "lr": 3e-3, "quiet": True, "seed": 0}
    sae = train(TensorRows(source), ln.BatchTopK(width=40, k=3), site="a+b", **go)
    cosine, latent = best_latents(sae.W_dec, torch.cat([world.directions, world.second_directions], 1))
    squares = sae.W_dec[latent].square().view(-1, 2, d).sum(2)
    share = squares[:, 1] / squares.sum(1)
    alone = [
        int((best_latents(train(rows, ln.BatchTopK(width=24, k=2), **go).W_dec, truth[:both])[0] > 0.9).sum())
        for rows, truth in ((world.x, world.directions), (world.second, world.second_directions))
    ]
    expected = torch.cat([torch.full((both,), 0.5), torch.zeros(one), torch.ones(one)])
    found = {
        "found": int((cosine > 0.9).sum()), "latents_for_copies": len(set(latent[:both].tolist())),
        "worst_share": float((share - expected).abs().max()), "latents_for_copies_alone": sum(alone),
    }  # fmt: skip
    missed = [] if found["found"] == both + 2 * one else [f"{found['found']} of {both + 2 * one} features are found"]
    return found, missed + ([] if found["worst_share"] <= 0.05 else [f"a share is off by {found['worst_share']:.3f}"])


ALL: dict[str, Callable[[], Verdict]] = {
    "shrinkage": shrinkage, "absorption": absorption, "mixing": mixing, "transcoder": transcoder, "copies": copies,
}  # fmt: skip


def main() -> int:
    """Print what was learnt; return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"some of: {', '.join(ALL)}")
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON to this file")
    options = parser.parse_args()
    if wrong := set(options.names) - set(ALL):
        parser.error(f"there is no {', '.join(wrong)}; give some of {', '.join(ALL)}")
    torch.set_num_threads(1)
    record, failed = {}, False
    for name in options.names or ALL:
        began = time.process_time()
        found, missed = ALL[name]()
        record[name] = found
        print(f"{name} ({time.process_time() - began:.0f} s)", flush=True)
        for key, value in found.items():
            numbers = value if isinstance(value, dict) else {"": value}
            print(f"    {key:26}" + " ".join(f"{k} {v:.4g}" for k, v in numbers.items()), flush=True)
        for line in missed:
            print(f"    MISSED {line}", flush=True)
        failed |= bool(missed)
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
