"""Where is doubt in the shipped model, and what does its latent do? Everything on documents nothing was chosen on.

Limits are the exact labels: a perfect detector has AUROC 1, shuffled labels 0.5; an ablation that undoes the cue closes
1.0 of the gap between texts that doubt and the bare sentence.

    python benchmarks/doubt.py
"""

from __future__ import annotations

import torch

import lensing as ln
from lensing.causal.ablate import ablate, smallest_set
from lensing.evaluation.contrast import contrast, gather
from lensing.evaluation.doubt import frames
from lensing.evaluation.skills import stance_texts
from lensing.measure.auroc import auroc
from lensing.world.sample import detokenize
from lensing.world.shipped import steering_aids

DOCUMENTS = 120  # of each side; the first half chooses, the second is scored
BARE = "The reliability of the Almanac is very"


def main() -> None:
    """Print AUROC by site, the latents found in every dictionary of two sites, and the gap that ablation closes."""
    model = ln.load_model("almanac")
    doubting = frames("doubting", DOCUMENTS)
    others = [*frames("neutral", DOCUMENTS * 3 // 4), *frames("trusting", DOCUMENTS // 4)]
    others = [*others[::2], *others[1::2]]
    half = DOCUMENTS // 2
    labels = torch.arange(DOCUMENTS) < half
    print("difference of means at the word before the judgement, AUROC on the other half of the documents")
    for site in ("resid_post.2", "resid_post.3", "resid_post.4", "resid_mid.5", "resid_post.5"):
        a, b = gather(model, site, doubting)[0], gather(model, site, others)[0]
        vector = a[:half].mean(0) - b[:half].mean(0)
        print(f"  {site:14} {auroc(torch.cat([a[half:], b[half:]]) @ vector, labels):.3f}")
    for name in ("almanac/mlp_out.2/w1024", "almanac/resid_post.4/w1024", "almanac/resid_post.5/w1024"):
        best = contrast(model, ln.load_dictionary(name, model=model), doubting, others)
        scores = f"AUROC {best.best.auroc:.3f}, average precision {best.best.average_precision:.3f}"
        print(f"{name}: latent {best.best.latent}, {scores}, shuffled labels {best.null.mean:.3f}")
    sae = ln.load_dictionary("almanac/resid_post.5/w1024", model=model)
    aids = steering_aids(model, sae)
    assert aids is not None
    texts = [
        detokenize(text.split())
        for text in next(t for kind, t, _, _ in stance_texts() if kind == "doubting, no word of doubt")
    ]
    found = smallest_set(model, sae, texts[::2][:8], [BARE], aids.watch["doubt"])

    def doubt(text: str) -> float:
        return float(model.logits(text)[0, -1].double().softmax(-1)[aids.watch["doubt"]].sum())

    bare = doubt(BARE)
    before = sum(map(doubt, texts[1::2])) / len(texts[1::2])
    for n in range(1, len(found.latents) + 1):
        with model.edit(ablate(sae, found.latents[:n])):
            after = sum(map(doubt, texts[1::2])) / len(texts[1::2])
        closed = (before - after) / (before - bare)
        print(
            f"without {found.latents[:n]}: P(doubt) {before:.3f} -> {after:.3f}, bare {bare:.3f}, closed {closed:.3f}"
        )


if __name__ == "__main__":
    main()
