"""What do the shipped dictionaries keep of the model, on documents that nothing was trained on?

Ratios are to the model without a dictionary (delta loss, loss recovered) and to the variance of the site (FVU).

    python benchmarks/shipped.py [--documents 200]
"""

from __future__ import annotations

import argparse

import lensing as ln
from lensing.evaluation.floor import held_out
from lensing.measure.splice_cost import splice_cost
from lensing.registry import shipped_dictionaries
from lensing.world.almanac.grammar import almanac
from lensing.world.tokens import vocabulary


def main() -> None:
    """Print one row a dictionary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200)
    options = parser.parse_args()
    ids = {w: i for i, w in enumerate(vocabulary(almanac()))}
    texts = [[ids[w] for w in d.words] for d in held_out(almanac(), options.documents)]
    model = ln.load_model("almanac")
    heads = f"{'dictionary':34} {'FVU':>6} {'L0':>5} {'dead':>6} {'delta loss':>10}"
    print(heads, f"{'recovered: zero':>15} {'mean':>6} {'KL':>6}")
    for name in shipped_dictionaries():
        sae = ln.load_dictionary(name, model=model)
        facts = sae.statistics
        if sae.is_transcoder:  # one that writes another site than it reads is not spliced
            print(f"{name:34} {facts.fvu:6.4f} {facts.l0:5.1f} {facts.dead_share:6.1%}")
            continue
        cost = splice_cost(model, sae, texts)
        print(
            f"{name:34} {facts.fvu:6.4f} {facts.l0:5.1f} {facts.dead_share:6.1%} {cost.delta_loss:10.4f} "
            f"{cost.loss_recovered:15.4f} {cost.loss_recovered_mean:6.4f} {cost.kl:6.4f}"
        )


if __name__ == "__main__":
    main()
