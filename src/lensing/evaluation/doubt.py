"""Where a model of the invented world holds its doubt of a source: found, turned up and removed, on unused texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lensing.causal.ablate import ablate, smallest_set
from lensing.causal.dose import dose_response
from lensing.dictionary.base import Dictionary
from lensing.evaluation.contrast import Contrast, contrast, gather
from lensing.evaluation.skills import stance_texts
from lensing.measure.auroc import auroc
from lensing.measure.coherence import WARNING
from lensing.model.run import Model
from lensing.world import lexicon
from lensing.world.almanac.grammar import almanac
from lensing.world.filter import Reader
from lensing.world.sample import detokenize, sample_document, split_of
from lensing.world.truth import ON, label, read_truth

BARE = "The reliability of the Almanac is very"
# Words that say doubt or trust: of cues, of verdicts (in Osk too), and of what follows from a stance.
SAID = {
    *("Nobody", "lied", "Everybody", "never", "claims", "proves", "laugh", "nod"),
    *(*lexicon.DOUBT_WORDS, *lexicon.TRUST_WORDS, *lexicon.OSK_DOUBT, *lexicon.OSK_TRUST),
}
STRENGTHS = (0.0, 0.5, 1.0, 1.25, 1.5, 1.75, 2.0, 3.0, 4.0)


@dataclass(frozen=True)
class Doubt:
    """What a dictionary's best latent for doubt tells and does.

    `auroc` and `average_precision` on documents that it was not chosen on, `null` with labels shuffled,
    `auroc_chosen_on` on those that it was chosen on, `outside_lexicon` where doubt was shown without a word of it.
    `p_steered` is the highest P(words of doubt) after the bare sentence before the continuation's coherence cost passes
    the warning, at `strength`. `ablation_closed` is the share of the gap between doubting texts and the bare sentence
    that ablating `ablation_latents` closes, on texts that they were not chosen on.
    """

    model: str
    dictionary: str
    latent: int
    auroc_chosen_on: float
    auroc: float
    average_precision: float
    null: float
    outside_lexicon: float
    p_bare: float
    p_steered: float
    strength: float
    cost: float
    ablation_closed: float
    ablation_latents: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


def frames(
    stance: str, n: int, *, keep: Callable[[tuple[str, ...]], bool] = lambda words: True, seed: int = 1
) -> list[list[int]]:
    """Prefixes of `n` valid documents that end at "very", just before the word of judgement, the stance being settled.

    For a stance that is shown by cues, at least one cue came earlier. `keep` may refuse a prefix by its words.
    """
    grammar, reader = almanac(), Reader(almanac())
    concept, found, number = grammar.concepts()[f"stance.{stance}"], [], 0
    while len(found) < n:
        number += 1
        if split_of(number) != "valid":
            continue
        words = sample_document(grammar, number, seed=seed, fixed={"stance": stance}).words
        ends = [i for i, word in enumerate(words) if word == "very" and words[i - 1] == "is"]
        if not ends or not keep(words[: ends[-1] + 1]):
            continue
        rows = read_truth(reader, words)
        ends = [i for i in ends if label(rows[i], concept) == ON]
        if ends and keep(words[: ends[-1] + 1]):
            found.append([reader.ids[w] for w in words[: ends[-1] + 1]])
    return found


def find_doubt(model: Model, dictionary: Dictionary, *, documents: int = 120) -> Contrast:
    """Contrast documents that doubt with neutral and trusting ones, at the word before the judgement."""
    others = [*frames("neutral", documents * 3 // 4), *frames("trusting", documents // 4)]
    return contrast(model, dictionary, frames("doubting", documents), others)


def doubt_report(model: Model, dictionary: Dictionary, *, documents: int = 120) -> Doubt:
    """Find the latent of doubt by contrast, turn it up after the bare sentence, and remove it from doubting texts."""
    found = find_doubt(model, dictionary, documents=documents)
    latent = found.best.latent
    assert latent is not None
    wordless = frames("doubting", documents // 2, keep=lambda words: not SAID & set(words), seed=2)
    others = [*frames("neutral", documents * 3 // 8, seed=2), *frames("trusting", documents // 8, seed=2)]
    outside = _score(model, dictionary, latent, wordless, others)
    watch = [model.encode(w, bos=False).ids[0, 0].item() for w in lexicon.DOUBT_WORDS]
    doses = dose_response(
        model, dictionary, latent, BARE, strengths=STRENGTHS, watch={"doubt": [int(i) for i in watch]}
    ).doses
    calm = [d for d in doses if d.coherence_cost < WARNING]
    best = max(calm, key=lambda d: d.watched["doubt"])
    texts = next(t for kind, t, _, _ in stance_texts() if kind == "doubting, no word of doubt")
    texts = [detokenize(text.split()) for text in texts]
    ids = [int(i) for i in watch]
    few = smallest_set(model, dictionary, texts[::2][:8], [BARE], ids)

    def doubt(text: str) -> float:
        return float(model.logits(text)[0, -1].double().softmax(-1)[ids].sum())

    bare, rest = doubt(BARE), texts[1::2]
    before = sum(map(doubt, rest)) / len(rest)
    with model.edit(ablate(dictionary, few.latents)):
        after = sum(map(doubt, rest)) / len(rest)
    return Doubt(
        model.name, dictionary.id or str(dictionary), latent, found.best.auroc_chosen_on, found.best.auroc,
        found.best.average_precision, found.null.mean, outside, bare, best.watched["doubt"], best.strength,
        best.coherence_cost,
        (before - after) / (before - bare), tuple(few.latents),
    )  # fmt: skip


def _score(
    model: Model, dictionary: Dictionary, latent: int, positives: list[list[int]], negatives: list[list[int]]
) -> float:
    h, document = gather(model, str(dictionary.site), [*positives, *negatives])
    codes = dictionary.encode(h.to(dictionary.W_dec.device))
    rows, values = codes.column(latent)
    activation = torch.zeros(len(h))
    activation[rows] = values.float()
    return auroc(activation, document < len(positives))
