"""Addition modulo a prime, learnt by heart and then by circles: are the published signs all there?

A one-layer transformer without norms, half of all pairs at once, AdamW with weight decay 1 (Nanda et al. 2023 took
p = 113 and 30% of the pairs, hours on a CPU; a smaller p shows the same in ten minutes).

    python benchmarks/grokking.py                    p = 37
    python benchmarks/grokking.py --p 113 --share 0.3 --steps 40000     as published

Expected: all pairs never seen are answered; a few key frequencies hold nearly all of the logits' energy and most of the
embedding's; the loss of the key frequencies alone falls before the test loss does; the loss without them rises.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lensing.toy.modular import train_modular


def main() -> int:
    """Print the signs, expected beside got; return 1 when one is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--p", type=int, default=37)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the run as JSON to this file")
    options = parser.parse_args()
    run = train_modular(p=options.p, share=options.share, steps=options.steps, seed=options.seed)
    if options.out:
        options.out.write_text(json.dumps(run.to_json()) + "\n")
    print(f"{'step':>6} {'train':>8} {'test':>8} {'restricted':>10} {'excluded':>8}")
    for i in range(0, len(run.steps), max(len(run.steps) // 20, 1)):
        row = run.train[i], run.test[i], run.restricted[i], run.excluded[i]
        print(f"{run.steps[i]:6} " + " ".join(f"{x:8.3f}" for x in row[:2]) + f" {row[2]:10.3f} {row[3]:8.3f}")

    def half(losses: list[float]) -> int:
        # the first step at which a loss is below half of its largest value for good
        late = [s for s, loss in zip(run.steps, losses, strict=True) if loss >= max(losses) / 2]
        return max(late, default=0)

    by_heart = next((i for i, loss in enumerate(run.train) if loss < 0.01), len(run.train) - 1)
    signs = {
        f"pairs never seen answered: {run.accuracy:.3f} (expected 1)": run.accuracy > 0.99,
        f"key frequencies: {run.key} of {(run.p - 1) // 2} (expected few)": len(run.key) <= (run.p - 1) // 4,
        f"their share of the logits' energy: {run.logit_share:.3f} (expected above 0.9)": run.logit_share > 0.9,
        f"their share of the embedding's: {run.embedding_share:.3f} (expected above 0.8)": run.embedding_share > 0.8,
        f"restricted loss halved at step {half(run.restricted)}, test loss at {half(run.test)} (expected before)":
            half(run.restricted) < half(run.test),
        f"excluded loss from {run.excluded[by_heart]:.3f} once learnt by heart to {run.excluded[-1]:.3f} (expected up)":
            run.excluded[-1] > 2 * run.excluded[by_heart],
    }  # fmt: skip
    for said, good in signs.items():
        print(f"{'found  ' if good else 'MISSING'} {said}")
    return int(not all(signs.values()))


if __name__ == "__main__":
    sys.exit(main())
