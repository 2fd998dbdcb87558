"""How well an explanation predicts: detection (does it fire in this text?) and fuzzing (are the marked words right?).

As in delphi (Paulo et al. 2024): half of the texts hold the latent, half do not, several are asked about at once, the
answer is a list of 0 and 1. Contexts that an explanation was made from are never used to score it.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

import numpy as np
import torch

from lensing.dictionary.base import Dictionary
from lensing.errors import LensingError, UsageError
from lensing.index.endpoint import Asker
from lensing.index.index import Example, Index
from lensing.model.run import Model

Kind = Literal["detection", "fuzzing"]
POOL, WINDOW, AT_ONCE, SHARE = 200, 32, 5, 0.3  # pieces read; tokens shown; texts a question; of the peak, to be marked
SYSTEM = {
    "detection": "You are told what a feature of a language model stands for, and shown numbered texts. For each text "
    "say 1 if it holds the feature, else 0. Answer with a list of numbers alone, such as [1, 0, 0, 1, 0].",
    "fuzzing": "You are told what a feature of a language model stands for, and shown numbered texts with words marked "
    "<<so>>. For each text say 1 if the marked words are where the feature is, else 0. Answer with a list of numbers "
    "alone, such as [1, 0, 0, 1, 0].",
}


@final
@dataclass(frozen=True)
class Score:
    """Balanced accuracy of an explanation, its standard error, and that of another latent's explanation (control).

    `n` texts were judged, half of them with the latent; questions whose answer could not be read are left out and
    counted in `unread`.
    """

    latent: int
    kind: Kind
    accuracy: float
    se: float
    precision: float
    recall: float
    f1: float
    n: int
    unread: int
    control: float | None

    @property
    def interval(self) -> tuple[float, float]:
        """About 95%: two standard errors to each side."""
        return max(self.accuracy - 2 * self.se, 0.0), min(self.accuracy + 2 * self.se, 1.0)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {"interval": self.interval}


@final
class Silent:
    """Windows of the text in which a latent is known to be silent: some pieces, read once by the model."""

    @torch.no_grad()
    def __init__(self, model: Model, dictionary: Dictionary, index: Index, *, seed: int = 0) -> None:
        starts, tokens = index.array("starts"), index.array("tokens")
        order = np.random.default_rng(seed).permutation(len(starts) - 1)[:POOL]
        site = str(dictionary.site)
        self.windows: list[tuple[tuple[str, ...], frozenset[int]]] = []
        for piece in order.tolist():
            ids = np.asarray(tokens[starts[piece] : starts[piece + 1]]).tolist()
            if len(ids) < 4:
                continue
            read = model.encode(ids)
            _, cache = model.run_with_cache(read, sites=[site], stop=True)
            rows = cache[site][0][~read.special[0]].flatten(1)
            codes = dictionary.encode(rows.to(dictionary.W_dec.device))
            strings = index.words(np.asarray(ids))
            for first in range(0, len(ids), WINDOW):
                if first and len(ids) - first < WINDOW // 2:
                    break
                a, b = int(codes.indptr[first]), int(codes.indptr[min(first + WINDOW, len(ids))])
                here = frozenset(codes.index[a:b][codes.value[a:b] > 0].tolist())
                self.windows.append((strings[first : first + WINDOW], here))

    def some(self, latent: int, n: int, draw: random.Random) -> list[tuple[str, ...]]:
        """Up to `n` windows in which it is silent."""
        found = [window for window, active in self.windows if latent not in active]
        return draw.sample(found, min(n, len(found)))


def halves(index: Index, latent: int) -> tuple[list[Example], list[Example]]:
    """Contexts to explain from, and others to score on: every other one of each group."""
    groups = index.latent(latent).groups
    return [e for g in groups for e in g.examples[::2]], [e for g in groups for e in g.examples[1::2]]


def marked(tokens: Sequence[str], values: Sequence[float]) -> str:
    """A context with its strong tokens <<marked>>."""
    bar = SHARE * max(values, default=0.0)
    parts = []
    for token, value in zip(tokens, values, strict=True):
        if value > bar > 0:
            space = token[: len(token) - len(token.lstrip())]
            parts.append(f"{space}<<{token.strip()}>>")
        else:
            parts.append(token)
    return "".join(parts).replace(">> <<", " ").strip()


def shown(example: Example) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The window of a context that is shown: around its peak."""
    first = max(min(example.peak - WINDOW // 2, len(example.tokens) - WINDOW), 0)
    return example.tokens[first : first + WINDOW], example.values[first : first + WINDOW]


def score(
    index: Index,
    silent: Silent,
    latent: int,
    explanation: str,
    asker: Asker,
    *,
    kind: Kind = "detection",
    n: int = 20,
    control: str | None = None,
    seed: int = 0,
) -> Score:
    """Score an explanation of a latent on up to `n` contexts with it and as many without.

    `control` is the explanation of another latent, judged on the same texts: what knowing nothing gives. Fuzzing marks
    words that are not the latent's in texts where it is silent, as many as it has.

    Raises: UsageError: an unknown kind, or a latent with too few contexts. LensingError: no answer could be read.
    """
    if kind not in SYSTEM:
        raise UsageError(f"There is no score {kind!r}. Give detection or fuzzing.")
    draw = random.Random(f"{seed} {latent}")
    positives = halves(index, latent)[1]
    positives = draw.sample(positives, min(n, len(positives)))
    negatives = silent.some(latent, len(positives), draw)
    if len(positives) < 2 or len(negatives) < 2:
        raise UsageError(f"Latent {latent} has too few contexts to be scored. Index a longer text.")
    texts: list[tuple[str, bool]] = []
    for example in positives:
        tokens, values = shown(example)
        texts.append((marked(tokens, values) if kind == "fuzzing" else "".join(tokens).strip(), True))
    for i, window in enumerate(negatives):
        if kind == "fuzzing":
            many = sum(
                v > SHARE * max(positives[i % len(positives)].values) for v in shown(positives[i % len(positives)])[1]
            )
            places = set(draw.sample(range(len(window)), min(max(many, 1), len(window))))
            texts.append((marked(window, [float(k in places) for k in range(len(window))]), False))
        else:
            texts.append(("".join(window).strip(), False))
    draw.shuffle(texts)
    found, unread = _judge(texts, explanation, asker, kind)
    if not any(t for t, _ in found) or all(t for t, _ in found):
        raise LensingError(f"No answer of {asker.name} about latent {latent} could be read. Try another model.")
    other = None
    if control is not None:
        judged, _ = _judge(texts, control, asker, kind)
        both = any(t for t, _ in judged) and not all(t for t, _ in judged)
        other = _balanced(judged)[0] if both else None
    accuracy, se = _balanced(found)
    hits, said, true = sum(t and p for t, p in found), sum(p for _, p in found), sum(t for t, _ in found)
    precision, recall = hits / said if said else 0.0, hits / true
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return Score(latent, kind, accuracy, se, precision, recall, f1, len(found), unread, other)


def _judge(
    texts: Sequence[tuple[str, bool]], explanation: str, asker: Asker, kind: Kind
) -> tuple[list[tuple[bool, bool]], int]:
    """Pairs (truth, answer), and how many texts got no answer that could be read."""
    found, unread = [], 0
    for first in range(0, len(texts), AT_ONCE):
        some = texts[first : first + AT_ONCE]
        lines = "\n".join(f"{i}. {text}" for i, (text, _) in enumerate(some, 1))
        said = _read(asker.ask(SYSTEM[kind], f"The feature: {explanation}\n\n{lines}"), len(some))
        if said is None:
            unread += len(some)
        else:
            found += [(truth, answer) for (_, truth), answer in zip(some, said, strict=True)]
    return found, unread


def _read(answer: str, n: int) -> list[bool] | None:
    for part in re.findall(r"\[[^\[\]]*\]", answer):
        try:
            values = json.loads(part)
        except ValueError:
            continue
        if len(values) == n and all(v in (0, 1) for v in values):
            return [bool(v) for v in values]
    return None


def _balanced(pairs: Sequence[tuple[bool, bool]]) -> tuple[float, float]:
    """Mean of the hit rates on both sides, and its standard error (binomial, one success and failure added to each)."""
    total, variance = 0.0, 0.0
    for side in (True, False):
        right = [answer == truth for truth, answer in pairs if truth == side]
        smooth = (sum(right) + 1) / (len(right) + 2)
        total += sum(right) / len(right) / 2
        variance += smooth * (1 - smooth) / len(right) / 4
    return total, math.sqrt(variance)
