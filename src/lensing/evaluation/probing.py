"""Which concepts of a labelled text a model has: linear probes beside baselines that see only the last tokens.

A probe is ridge regression on 0/1 labels, whose direction is that of linear discriminant analysis (Alain and Bengio
2016); whether it says anything of the model is judged against what the tokens alone would give (Belinkov 2022).
Documents are split in halves; what is fitted on one is scored on the other, both ways round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from lensing.data.live import group_by_length
from lensing.errors import UsageError
from lensing.evaluation.probe_report import ProbeReport, ProbeRow
from lensing.evaluation.ridge import Dense, OneHot, fit
from lensing.measure.margin import Ranking, Sample, margin, rank
from lensing.model.run import Model
from lensing.progress import Meter
from lensing.world.truth import OFF, ON, Labelled

MIN_DOCUMENTS = 4  # with positives: two to fit on and two to score on
MAX_SCORED = 20_000  # positives and negatives of a concept and half that are ranked; more are drawn from
BLOCK = 64  # concepts whose scores exist at a time
CAPTURED = 2**30  # bytes of activations held at a time: as many sites a pass as fit
OFFSETS = 3


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear probe: `score` estimates P(on); `weight` is [d] for one concept and [concepts, d] for several."""

    weight: Float[Tensor, "*concepts d"]
    bias: Float[Tensor, "*concepts"]

    def score(self, h: Float[Tensor, "rows d"]) -> Float[Tensor, "rows ..."]:
        """Return the score of each row, higher where the concept is likelier on."""
        several = self.weight.dim() == 2
        return h.to(self.weight.dtype) @ (self.weight.T if several else self.weight) + self.bias

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"weight": self.weight.tolist(), "bias": self.bias.tolist()}


def fit_probe(
    h: Float[Tensor, "rows d"], on: Bool[Tensor, " rows"], document: Int[Tensor, " rows"], *, seed: int = 0
) -> Probe:
    """Fit a probe of one concept on all rows; its ridge is chosen on halves of the documents.

    Raises: UsageError: nothing on or nothing off.
    """
    probe = probe_directions(h, on[None].to(torch.int8), document, seed=seed)
    return Probe(probe.weight[0], probe.bias[0])


def probe_directions(
    h: Float[Tensor, "rows d"], truth: Int8[Tensor, "concepts rows"], document: Int[Tensor, " rows"], *, seed: int = 0
) -> Probe:
    """Fit probes of many concepts (1 on, 0 off, -1 undetermined) on all rows in one solve.

    Raises: UsageError: sizes that do not fit, or a concept with nothing on or nothing off.
    """
    if not len(h) == truth.shape[1] == len(document):
        raise UsageError(
            f"{len(h)} rows, {truth.shape[1]} labels and {len(document)} documents differ. Give one of each a row."
        )
    for c, row in enumerate(truth):
        if not (row == ON).any() or not (row == OFF).any():
            raise UsageError(f"Concept {c} is not both on and off in these rows. Give rows of both.")
    number = document.unique(return_inverse=True)[1].cpu().numpy()
    holding = np.zeros((int(number.max()) + 1, len(truth)), dtype=bool)
    for c, row in enumerate(truth):
        holding[number[(row == ON).cpu().numpy()], c] = True
    half = halves(holding, np.random.Generator(np.random.PCG64(seed)))[number]
    order = torch.from_numpy(np.argsort(half, kind="stable"))
    cut = int((~half).sum())
    features, truth = Dense(h.cpu()[order]), truth.cpu()[:, order]
    weight, bias = fit(features, truth, (slice(0, cut), slice(cut, len(h))))
    return Probe(*features.raw(weight, bias))


@torch.no_grad()
def probe_sites(
    model: Model,
    labelled: Labelled,
    sites: Sequence[str] = (),
    *,
    concepts: Sequence[str] | None = None,
    min_auroc: float = 0.75,
    seed: int = 0,
    quiet: bool = True,
) -> ProbeReport:
    """Probe every concept of a labelled text at some sites (every `resid_post` unless given).

    A concept is had at a site when its probe's held-out AUROC is at least `min_auroc` and beats the better baseline of
    the last token and the last three by more than two standard errors. Concepts that cannot be probed are listed in
    `refused`, but those named in `concepts` raise UsageError: never on, never off, or on in fewer than 4 documents.
    """
    found = probe_models(
        {model.name: model}, labelled, sites, concepts=concepts, min_auroc=min_auroc, seed=seed, quiet=quiet
    )
    return found[model.name]


@torch.no_grad()
def probe_models(
    models: Mapping[str, Model],
    labelled: Labelled,
    sites: Sequence[str] = (),
    *,
    concepts: Sequence[str] | None = None,
    min_auroc: float = 0.75,
    seed: int = 0,
    quiet: bool = True,
) -> dict[str, ProbeReport]:
    """Probe several models that read the same tokens (snapshots of one, say) beside the same baselines.

    The rest as in `probe_sites`, for each model by its name here.
    """
    if not models:
        raise UsageError("There is no model to probe. Give at least one.")
    first = next(iter(models.values()))
    names = [s.name for s in first.resolve_all(list(sites) or ["resid_post.*"])]
    place = np.full(len(labelled.ids), -1)  # of each token among the rows; -1: left out
    counted = labelled.ids != (-1 if first.bos_id is None else first.bos_id)
    place[counted] = np.arange(counted.sum())
    texts, refused = _texts(labelled, place, concepts, seed)
    found: dict[str, ProbeReport] = {}
    with Meter("probing", total=len(names) * len(models) + 2, unit="sites", quiet=quiet) as meter:
        baselines: list[list[list[Ranking]]] = [[] for _ in texts]
        for width in (1, OFFSETS):
            for text, rankings in zip(texts, baselines, strict=True):
                rankings.append(text.rankings(OneHot(text.tokens[:, :width])))
            meter.advance()
        for label, model in models.items():
            rows: list[ProbeRow] = []
            for site, h in _captured(model, labelled, names, place):
                for text, rankings in zip(texts, baselines, strict=True):
                    rows += text.rows(site, text.rankings(Dense(h[text.row])), rankings, min_auroc)
                meter.advance()
            found[label] = ProbeReport(
                label, len(labelled), int(counted.sum()), tuple(names), tuple(rows), refused, min_auroc, seed
            )
    return found


def halves(
    holding: Bool[np.ndarray, "documents concepts"], draw: np.random.Generator
) -> Bool[np.ndarray, " documents"]:
    """Split documents in two so that each concept's documents do, as evenly as can be for rare ones.

    From a random half, documents change sides for as long as that lowers the sum over concepts of (difference / n)^2.
    """
    documents = len(holding)
    side = draw.permutation(documents) % 2 == 1
    held = [np.append(np.flatnonzero(row), holding.shape[1]) for row in holding]  # a last concept that all hold
    n = np.append(holding.sum(0), documents).astype(np.float64)
    difference = np.append((holding & side[:, None]).sum(0) * 2.0, 2.0 * side.sum()) - n
    for _ in range(50):
        moved = False
        for d in draw.permutation(documents):
            mine, step = held[d], -2.0 if side[d] else 2.0
            if (((difference[mine] + step) ** 2 - difference[mine] ** 2) / n[mine] ** 2).sum() < -1e-12:
                difference[mine] += step
                side[d], moved = not side[d], True
        if not moved:
            break
    return side


def shuffle_rows(
    length: Int[np.ndarray, " documents"], group: Int[np.ndarray, " documents"], draw: np.random.Generator
) -> Int[np.ndarray, " rows"]:
    """Return for each row the row whose label it takes: documents, which lie in order of group, change places in it.

    Each document's run is turned by a random step, so that labels lose their place in a document too.
    """
    order = np.lexsort((draw.random(len(length)), group))
    start, length = (np.cumsum(length) - length)[order], length[order]
    turn = draw.integers(0, length)
    inside = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length) + np.repeat(turn, length)
    size = np.repeat(length, length)
    return np.repeat(start, length) + np.where(inside < size, inside, inside - size)


def _texts(
    labelled: Labelled, place: Int[np.ndarray, " tokens"], concepts: Sequence[str] | None, seed: int
) -> tuple[list[_Text], dict[str, str]]:
    """The rows that count, for the concepts of all classes and apart for those of each partial class, and the refused.

    Raises: UsageError: a named concept that cannot be probed, or nothing that can.
    """
    names = list(dict.fromkeys(_named(labelled) if concepts is None else concepts))
    texts, refused = [], dict[str, str]()
    for cls in (None, *labelled.partial):
        group = [n for n in names if (n.partition(".")[0] if n.partition(".")[0] in labelled.partial else None) == cls]
        kept = place >= 0
        if cls is not None:
            says = np.array([values != [None] for values in labelled.possible[cls]])
            kept &= says[labelled.codes[:, labelled.classes.index(cls)]]
        if group:
            text = _Text(labelled, place, np.flatnonzero(kept), group, seed)
            refused |= text.refused
            texts += [text] * bool(text.names)
    if concepts is not None and refused:
        name, why = next(iter(refused.items()))
        raise UsageError(f"{name} cannot be probed: {why}. Give more text with it, or leave it out.")
    if not texts:
        raise UsageError(f"None of {len(names)} concepts can be probed in {len(labelled)} documents. Give more text.")
    return texts, refused


class _Text:
    """Some rows of the text in order of quarter (two of each half), with true and shuffled labels of some concepts."""

    def __init__(
        self, labelled: Labelled, place: np.ndarray, kept: np.ndarray, names: Sequence[str], seed: int
    ) -> None:
        draw = np.random.Generator(np.random.PCG64(seed))
        self.seed, self.refused, self.names = seed, dict[str, str](), list[str]()
        flat = np.repeat(np.arange(len(labelled)), np.diff(labelled.starts))
        found: dict[str, np.ndarray] = {}
        for name in names:
            truth = labelled.truth(name)[kept]
            if self._usable(name, truth, flat[kept]):
                found[name] = truth
        if not found:
            return
        holding = np.zeros((len(labelled), len(found)), dtype=bool)
        for c, truth in enumerate(found.values()):
            holding[flat[kept][truth == ON], c] = True
        half = halves(holding, draw)
        quarter = 2 * half.astype(np.int64)
        for side in (~half, half):
            quarter[side] += halves(holding[side], draw)
        order = np.argsort(quarter[flat[kept]], kind="stable")
        self.row = torch.from_numpy(place[kept[order]])
        self.document = flat[kept][order]
        edges = np.searchsorted(quarter[self.document], np.arange(5))
        self.quarters = [slice(int(a), int(b)) for a, b in pairwise(edges)]
        self.halves = [slice(int(edges[0]), int(edges[2])), slice(int(edges[2]), int(edges[4]))]
        for name in list(found):
            found[name] = found[name][order]
            if not all((found[name][rows] == label).any() for rows in self.halves for label in (ON, OFF)):
                self.refused[name] = "it could not be shared out to both halves of the documents"
                del found[name]
        if not found:
            return
        self.names = list(found)
        first = np.flatnonzero(np.diff(self.document, prepend=-1))
        here, length = self.document[first], np.diff(first, append=len(kept))  # documents in order of their rows
        # Shuffled labels are further concepts, fitted in the same solve.
        self.truth = torch.empty(2 * len(found), len(kept), dtype=torch.int8)
        for c, name in enumerate(self.names):
            truth = found.pop(name)
            self.truth[c] = torch.from_numpy(truth)
            shuffled = truth[shuffle_rows(length, quarter[here], draw)]
            self.truth[len(self.names) + c] = torch.from_numpy(shuffled)
        self.tokens = _last_tokens(labelled)[kept[order]]
        self._drawn = [_draw(np.arange(half.start, half.stop), draw) for half in self.halves]

    def _usable(self, name: str, truth: np.ndarray, document: np.ndarray) -> bool:
        documents = len(np.unique(document[truth == ON]))
        if documents == 0:
            self.refused[name] = "it is never on"
        elif not (truth == OFF).any():
            self.refused[name] = "it is never off"
        elif documents < MIN_DOCUMENTS:
            self.refused[name] = f"it is on in {documents} documents, and {MIN_DOCUMENTS} are needed"
        return name not in self.refused

    def rankings(self, features: Dense | OneHot) -> list[Ranking]:
        """Fit on one half, rank on the other and swap, for every true and then every shuffled concept."""
        weights = [fit(features, self.truth, self.quarters[i : i + 2], len(self.names))[0] for i in (2, 0)]
        found = []
        documents = int(self.document.max()) + 1
        for first in range(0, len(self.truth), BLOCK):
            block = slice(first, first + BLOCK)
            scores = [features.scores(w[block], half) for w, half in zip(weights, self.halves, strict=True)]
            for c in range(first, min(first + BLOCK, len(self.truth))):
                samples = [self._sample(scores[side][c - first], c, side) for side in (0, 1)]
                found.append(rank(samples, documents))
        return found

    def _sample(self, scores: np.ndarray, concept: int, side: int) -> Sample:
        truth, start = self.truth[concept].numpy(), self.halves[side].start
        mine = truth[self.halves[side]]
        draw = np.random.Generator(np.random.PCG64([self.seed, concept, side]))  # the same rows for every site
        off = self._drawn[side][truth[self._drawn[side]] == OFF]
        if len(off) < len(self._drawn[side]) // 10:  # a concept that is nearly always on
            off = _draw(start + np.flatnonzero(mine == OFF), draw)
        on = start + np.flatnonzero(mine == ON)
        positives, negatives = len(on), int((mine == OFF).sum())
        on = _draw(on, draw)
        weight = (negatives / len(off)) / (positives / len(on))
        return Sample(scores[on - start], scores[off - start], self.document[on], self.document[off], weight)

    def rows(
        self, site: str, probes: list[Ranking], baselines: list[list[Ranking]], min_auroc: float
    ) -> Iterator[ProbeRow]:
        """Set each concept's probe beside its baselines and its null."""
        for c, name in enumerate(self.names):
            null = c + len(self.names)
            verdicts = []
            for i in (c, null):
                better = max((b[i] for b in baselines), key=lambda ranking: ranking.auroc)
                gain, se = margin(probes[i], better)
                verdicts.append((gain, se, gain > 2 * se and probes[i].auroc >= min_auroc))
            on = (self.truth[c] == ON).numpy()
            yield ProbeRow(
                name, name.partition(".")[0], int(on.sum()), len(np.unique(self.document[on])), site, probes[c].auroc,
                probes[c].average_precision, baselines[0][c].auroc, baselines[1][c].auroc, *verdicts[0][:2],
                *verdicts[1], verdicts[0][2],
            )  # fmt: skip


def _named(labelled: Labelled) -> list[str]:
    """All concepts that the text's truth speaks of, those never settled included."""
    return sorted(
        {f"{cls}.{v}" for cls, codes in labelled.possible.items() for values in codes for v in values if v is not None}
    )


def _draw(rows: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= MAX_SCORED else np.sort(draw.choice(rows, MAX_SCORED, replace=False, shuffle=False))


def _last_tokens(labelled: Labelled) -> Int[np.ndarray, "tokens offsets"]:
    """The token at each position and those before it, where a number of its own stands before a document's start."""
    ids = labelled.ids.astype(np.int64)
    inside = np.arange(len(ids)) - np.repeat(labelled.starts[:-1], np.diff(labelled.starts))
    before = int(ids.max()) + 1
    columns = [np.where(inside >= k, np.roll(ids, k), before) for k in range(OFFSETS)]
    return np.stack(columns, axis=1)


def _captured(
    model: Model, labelled: Labelled, sites: Sequence[str], place: np.ndarray, batch_tokens: int = 4096
) -> Iterator[tuple[str, Float[Tensor, "rows d"]]]:
    """Yield the activations at each site, its rows in their places; as many sites in one pass as memory allows."""
    documents, rows = labelled.documents(), int((place >= 0).sum())
    together = max(CAPTURED // (4 * rows * model.d_model), 1)
    for first in range(0, len(sites), together):
        found: dict[str, Tensor] = {}
        wanted = sites[first : first + together]
        for group in group_by_length([len(d) for d in documents], batch_tokens):
            tokens = model.encode([documents[i] for i in group], bos=False)
            _, cache = model.run_with_cache(tokens, sites=wanted, stop=True)
            at = np.concatenate([place[labelled.starts[i] : labelled.starts[i + 1]] for i in group])
            to = torch.from_numpy(at[at >= 0])
            counted = ~tokens.special
            for site in wanted:
                h = cache[site][counted].flatten(1).float().cpu()
                found.setdefault(site, torch.empty(rows, h.shape[1]))[to] = h
        for site in wanted:
            yield site, found.pop(site)
