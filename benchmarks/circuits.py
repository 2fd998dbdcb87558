"""Do circuit finders find circuits that are known, because the model was trained to have them?

Small transformers are trained to run a program in chosen components and nowhere else (strict interchange intervention
training, as InterpBench does; Gupta et al. 2024). Then each finder scores all heads and MLPs, and the scores are ranked
against the truth: area under the ROC curve, over programs and seeds.

    python benchmarks/circuits.py                                 two programs, about ten minutes on two cores
    python benchmarks/circuits.py --programs reverse --seeds 3

Expected, as published: patching and integrated gradients ahead of a single gradient.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

from lensing.measure.auroc import auroc
from lensing.toy.rasp import PROGRAMS
from lensing.toy.siit import METHODS, circuit_scores, train_known

GOOD = 0.95  # share of answers, as they are and under interchange, from which a circuit counts as known


def main() -> int:
    """Print a row for each model; return 1 when a circuit was not learnt or the order is not the published one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", nargs="+", default=["reverse", "histogram"], choices=sorted(PROGRAMS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4000)
    options = parser.parse_args()
    areas: dict[str, list[float]] = {method: [] for method in METHODS}
    learnt = True
    print(f"{'program':12}{'seed':>5}{'right':>8}{'changed':>9}{'idle':>7}   " + "".join(f"{m:>10}" for m in METHODS))
    for name in options.programs:
        for seed in range(options.seeds):
            began = time.perf_counter()
            known = train_known(PROGRAMS[name](), steps=options.steps, seed=seed)
            inside = torch.tensor([component in known.circuit for component in known.components])
            row = []
            for method in METHODS:
                scores = circuit_scores(known, method)
                row.append(auroc(torch.tensor([scores[c] for c in known.components]), inside))
                areas[method].append(row[-1])
            learnt &= min(known.accuracy, known.interchange, known.idle) > GOOD
            print(
                f"{name:12}{seed:5}{known.accuracy:8.3f}{known.interchange:9.3f}{known.idle:7.3f}   "
                + "".join(f"{area:10.3f}" for area in row) + f"   {time.perf_counter() - began:.0f} s"
            )  # fmt: skip
    means = {method: sum(found) / len(found) for method, found in areas.items()}
    ordered = min(means["patch"], means["ig"]) >= means["gradient"]
    print("mean area:", ", ".join(f"{method} {mean:.3f}" for method, mean in means.items()))
    print(f"{'found  ' if ordered else 'MISSING'} patching and integrated gradients ahead of the gradient (expected)")
    print(f"{'found  ' if learnt else 'MISSING'} every circuit learnt to {GOOD}")
    return int(not (ordered and learnt))


if __name__ == "__main__":
    sys.exit(main())
