"""The letter whose writer loses faith, line by line: a stance probe and a latent beside what is true."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from lensing.dictionary.base import Dictionary
from lensing.evaluation.contrast import gather
from lensing.evaluation.probing import fit_probe
from lensing.model.run import Model
from lensing.world import lexicon
from lensing.world.almanac.grammar import almanac
from lensing.world.filter import Reader
from lensing.world.sample import detokenize, sample_document
from lensing.world.tokens import vocabulary
from lensing.world.truth import ON, UNDETERMINED, Labelled, named, read_truth


@dataclass(frozen=True)
class Line:
    """One line: the stance shown by its end, mean probe scores and largest activation over its words, the verdict.

    `p_doubt` and `p_trust` are the model's probabilities of words of doubt and trust before the word of judgement, in
    lines that have one.
    """

    text: str
    stance: str
    probe_doubt: float
    probe_trust: float
    latent: float
    p_doubt: float | None
    p_trust: float | None


@dataclass(frozen=True)
class Letter:
    """A letter of lost faith beside the stance probes at `site` and one latent of a dictionary."""

    number: int
    dictionary: str
    latent: int
    site: str
    lines: tuple[Line, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


@torch.no_grad()
def read_letter(model: Model, dictionary: Dictionary, latent: int, labelled: Labelled, *, number: int = 1) -> Letter:
    """Read letter `number` of lost faith with stance probes, fitted at the dictionary's site on a labelled text that
    does not hold it."""
    at = str(dictionary.site)
    h, document = gather(model, at, labelled.documents(), "all")
    seen = torch.from_numpy(labelled.ids != (-1 if model.bos_id is None else model.bos_id))
    probes = []
    for stance in ("doubting", "trusting"):
        truth = torch.from_numpy(labelled.truth(f"stance.{stance}"))[seen]
        settled = truth != UNDETERMINED
        probes.append(fit_probe(h[settled], truth[settled] == ON, document[settled]))
    words = vocabulary(almanac())
    ids = {w: i for i, w in enumerate(words)}
    letter = sample_document(almanac(), number, fixed={"form": "lost"})
    row = [ids[w] for w in letter.words]
    here, _ = gather(model, at, [row], "all")
    fires = torch.zeros(len(row) - 1)
    rows, values = dictionary.encode(here.to(dictionary.W_dec.device)).column(latent)
    fires[rows.cpu()] = values.float().cpu()
    doubt, trust = (probe.score(here) for probe in probes)
    p = model.logits([row])[0].double().softmax(-1)
    shown = [named(row)["stance"] for row in read_truth(Reader(almanac()), letter.words)]
    lines, start = [], 1
    for end in range(1, len(row)):
        # the opening ends with a comma, every other line with a full stop
        if letter.words[end] not in (".", "<eos>") and not (start == 1 and letter.words[end] == ","):
            continue
        span = slice(start - 1, end)  # rows leave BOS out
        text = detokenize(w for w in letter.words[start : end + 1] if w != "<eos>")
        very = [i for i in range(start, end + 1) if letter.words[i] == "very"]
        odds = [float(p[very[0], [ids[w] for w in k]].sum()) if very else None
                for k in (lexicon.DOUBT_WORDS, lexicon.TRUST_WORDS)]  # fmt: skip
        if text:
            stance = "not settled" if " or " in shown[end] else shown[end]
            lines.append(
                Line(text, stance, float(doubt[span].mean()), float(trust[span].mean()),
                     float(fires[span].max()), *odds)
            )  # fmt: skip
        start = end + 1
    return Letter(number, dictionary.id or str(dictionary), latent, at, tuple(lines))
