"""Find what tells two kinds of text apart: latents, a difference of means, a linear probe.

All are chosen on one half of the documents and scored on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lensing.data.live import group_by_length
from lensing.dictionary.base import Dictionary
from lensing.dictionary.codes import Codes
from lensing.dictionary.load import check_fits
from lensing.errors import UsageError
from lensing.measure.auroc import auroc, average_precision
from lensing.model.run import Model
from lensing.model.tokens import Prompt

At = Literal["last", "all"] | Callable[[list[int]], Iterable[int]]
SHUFFLES = 100
RIDGES = tuple(10.0**k for k in range(-4, 3))  # of the probe, in units of a standardised number's variance


@dataclass(frozen=True)
class Separation:
    """One score's AUROC on the half it was chosen on, and AUROC and average precision on the other half."""

    latent: int | None
    auroc_chosen_on: float
    auroc: float
    average_precision: float


@dataclass(frozen=True)
class Null:
    """The same choosing and scoring with the documents' labels shuffled: mean and 95th percentile of the AUROC."""

    mean: float
    p95: float
    shuffles: int


@dataclass(frozen=True, eq=False)
class Contrast:
    """What tells texts A (positives) from texts B (negatives) at a site.

    `latents`: those that rank A's rows above B's best on the choosing half, best first; empty without a dictionary.
    `vector`: mean of A's rows less mean of B's on the choosing half, `means` its separation by the product h . vector.
    `probe_vector`, `probe`: the same of a ridge probe on standardised rows, its strength chosen by a split of the
    choosing half's documents. Either vector goes wherever a direction does (`lensing.causal.steer.SteerVector`,
    `dose_response(contrast=)`, `Swap(basis=)`). `positives` and `negatives` are rows of the scoring half, `documents`
    its documents.
    """

    site: str
    dictionary: str | None
    latents: tuple[Separation, ...]
    null: Null
    vector: Float[Tensor, " d_in"]
    means: Separation
    means_null: Null
    probe_vector: Float[Tensor, " d_in"]
    probe: Separation
    probe_null: Null
    positives: int
    negatives: int
    documents: int
    seed: int

    @property
    def best(self) -> Separation:
        """The latent that was chosen; UsageError where there was no dictionary to choose from."""
        if not self.latents:
            raise UsageError("No dictionary was given, so no latent was chosen. Give one.")
        return self.latents[0]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        vectors = ("vector", "probe_vector")
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in vectors}
        plain = {
            name: [asdict(v) for v in value]
            if isinstance(value, tuple)
            else asdict(value)
            if isinstance(value, (Separation, Null))
            else value
            for name, value in rest.items()
        }
        return plain | {name: getattr(self, name).tolist() for name in vectors}


@torch.no_grad()
def contrast(
    model: Model,
    dictionary: Dictionary | None,
    texts_a: Sequence[Prompt],
    texts_b: Sequence[Prompt],
    *,
    site: str | None = None,
    at: At = "last",
    seed: int = 0,
    keep: int = 10,
    shuffles: int = SHUFFLES,
) -> Contrast:
    """Contrast two lists of texts (or token id lists) by the activations at the dictionary's site, or at `site`.

    `at`: the "last" token of each text, "all" tokens, or a function from a text's token ids (BOS included) to the
    positions that count; BOS never does. Each list's documents are split into halves by `seed`; latents and vector are
    chosen on one and scored on the other.

    Raises: UsageError: no site, fewer than two texts on a side, or no token that counts in a half.
    """
    if dictionary is not None:
        check_fits(dictionary, model)
        site = str(dictionary.site)
    elif site is None:
        raise UsageError("There is no site to contrast at. Give site=, or a dictionary.")
    if min(len(texts_a), len(texts_b)) < 2:
        raise UsageError(
            f"{len(texts_a)} and {len(texts_b)} texts cannot be split into halves. Give two or more of both."
        )
    h, document = gather(model, site, [*texts_a, *texts_b], at)
    is_a = torch.arange(len(texts_a) + len(texts_b)) < len(texts_a)  # by document
    draw = torch.Generator().manual_seed(seed)
    choosing = _half(len(texts_a), len(texts_b), draw)
    for side in (is_a, ~is_a):
        for half in (choosing, ~choosing):
            if not bool((side & half)[document].any()):
                raise UsageError("No token counts in half of one list of texts. Give more texts, or other positions.")
    codes = None if dictionary is None else dictionary.encode(h.to(dictionary.W_dec.device))
    halves = [_Half(h, codes, document, chosen) for chosen in (choosing, ~choosing)]
    # Row 0 holds the true labels; in the others they are shuffled within each half, whose counts thereby stay.
    labels = torch.stack([is_a, *(_shuffled(is_a, choosing, draw) for _ in range(shuffles))])
    choose, score = (labels[:, half.document] for half in halves)
    # A shuffle can leave a half with rows of one kind only (documents without rows); it ranks nothing.
    usable = [i for i in range(1, len(labels)) if all(0 < int(s[i].sum()) < s.shape[1] for s in (choose, score))]
    vectors = {i: _difference(halves[0].h, choose[i]) for i in (0, *usable)}
    vector_null = [auroc(halves[1].h @ vectors[i], score[i]) for i in usable]
    probes = _probes(halves[0], is_a, choose[[0, *usable]], draw)
    probe_null = [auroc(halves[1].h @ w, score[i]) for w, i in zip(probes[1:], usable, strict=True)]
    latents, null = (), _null([])
    if dictionary is not None:
        latents, null = _latents(halves, choose, score, usable, keep)

    def separation(vector: Tensor) -> Separation:
        product = [half.h @ vector for half in halves]
        precision = average_precision(product[1], score[0])
        return Separation(None, auroc(product[0], choose[0]), auroc(product[1], score[0]), precision)

    return Contrast(
        site=site, dictionary=None if dictionary is None else dictionary.id or str(dictionary), latents=latents,
        null=null, vector=vectors[0].float(), means=separation(vectors[0]), means_null=_null(vector_null),
        probe_vector=probes[0].float(), probe=separation(probes[0]), probe_null=_null(probe_null),
        positives=int(score[0].sum()), negatives=int((~score[0]).sum()),
        documents=int((~choosing).sum()), seed=seed,
    )  # fmt: skip


def _latents(
    halves: Sequence[_Half], choose: Tensor, score: Tensor, usable: Sequence[int], keep: int
) -> tuple[tuple[Separation, ...], Null]:  # fmt: skip
    """The latents that separate best, and what choosing the best gives by luck."""
    codes = halves[0].codes
    assert codes is not None
    areas = ranked(codes, choose)
    null = [_score(halves[1], int(areas[i].argmax()), score[i])[0] for i in usable]
    gap = _difference(codes, choose[0])
    order = sorted(range(codes.d_sae), key=lambda j: (-float(areas[0, j]), -float(gap[j])))[:keep]
    return tuple(Separation(j, float(areas[0, j]), *_score(halves[1], j, score[0])) for j in order), _null(null)


def _probes(
    half: _Half, is_a: Bool[Tensor, " documents"], labels: Bool[Tensor, "sets rows"], draw: torch.Generator
) -> Float[Tensor, "sets d_in"]:
    """Ridge regression of each labelling on standardised rows, as directions of the rows; one strength for all."""
    mean, std = half.h.mean(0), half.h.std(0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    x = (half.h - mean) / std
    # the strength: documents of this half, split once more
    documents = half.document.unique()
    inner = torch.isin(half.document, documents[torch.randperm(len(documents), generator=draw)[: len(documents) // 2]])
    best = RIDGES[len(RIDGES) // 2]
    own = is_a[half.document]
    if all(0 < int(own[side].sum()) < int(side.sum()) for side in (inner, ~inner)):
        fits = {ridge: _ridge(x[inner], own[inner][None], ridge)[0] for ridge in RIDGES}
        best = max(RIDGES, key=lambda ridge: auroc(x[~inner] @ fits[ridge], own[~inner]))
    return _ridge(x, labels, best) / std


def _ridge(x: Float[Tensor, "rows d"], labels: Bool[Tensor, "sets rows"], ridge: float) -> Float[Tensor, "sets d"]:
    y = labels.double() - labels.double().mean(1, keepdim=True)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    return ((y @ u) * (s / (s.square() + ridge * len(x)))) @ v


def gather(
    model: Model, site: str, texts: Sequence[Prompt], at: At = "last", *, batch_tokens: int = 4096
) -> tuple[Float[Tensor, "rows d_in"], Int[Tensor, " rows"]]:
    """Return the activations at a site at the positions that `at` means (see `contrast`), and each row's text."""
    rows = [model.encode(text).ids[0].tolist() for text in texts]
    found: list[Tensor] = []
    owner: list[Tensor] = []
    for group in group_by_length([len(row) for row in rows], batch_tokens):
        tokens = model.encode([rows[i] for i in group], bos=False)
        _, cache = model.run_with_cache(tokens, sites=[site], stop=True)
        counts = torch.zeros_like(tokens.mask)
        for n, i in enumerate(group):
            counts[n, _positions(rows[i], at)] = True
        counts &= ~tokens.special
        found.append(next(iter(cache.values()))[counts].flatten(1).float().cpu())
        owner.append(torch.as_tensor(group)[counts.nonzero()[:, 0].cpu()])
    document = torch.cat(owner)
    order = document.argsort(stable=True)
    return torch.cat(found)[order], document[order]


def ranked(codes: Codes, labels: Bool[Tensor, "sets rows"]) -> Float[Tensor, "sets d_sae"]:
    """Return the AUROC of every latent for many labellings of the rows, from ranks that are found once."""
    truth = labels.cpu().numpy().astype(np.float64)
    n = codes.rows
    positives = truth.sum(1)
    areas = np.full((len(truth), codes.d_sae), 0.5)
    for j in codes.index.unique().tolist():
        rows, value = (t.cpu().numpy() for t in codes.column(j))
        on = value > 0
        rows, value = rows[on], value[on]
        silent = n - len(rows)
        _, place, count = np.unique(value, return_inverse=True, return_counts=True)
        rank = silent + (np.cumsum(count) - (count - 1) / 2)[place]  # ties share their mean rank
        mine = truth[:, rows]
        total = mine @ rank + (positives - mine.sum(1)) * (silent + 1) / 2  # silent rows are one tie at the bottom
        with np.errstate(divide="ignore", invalid="ignore"):
            areas[:, j] = (total - positives * (positives + 1) / 2) / (positives * (n - positives))
    return torch.from_numpy(areas)


class _Half:
    """The rows of one half of the documents."""

    def __init__(self, h: Tensor, codes: Codes | None, document: Tensor, chosen: Bool[Tensor, " documents"]) -> None:
        rows = chosen[document]
        self.h, self.document = h[rows].double(), document[rows]
        self.codes = None if codes is None else _rows_of(codes, rows)


def _rows_of(codes: Codes, rows: Bool[Tensor, " rows"]) -> Codes:
    kept = rows.to(codes.index.device)
    places = kept[codes.pattern.row_of]
    indptr = torch.cat([codes.indptr.new_zeros(1), codes.counts()[kept].cumsum(0)])
    return Codes(indptr, codes.index[places], codes.value[places], (int(rows.sum()), codes.d_sae))


def _score(half: _Half, latent: int, labels: Bool[Tensor, " rows"]) -> tuple[float, float]:
    assert half.codes is not None
    rows, value = half.codes.column(latent)
    column = torch.zeros(half.codes.rows)
    column[rows.cpu()] = value.cpu()
    return auroc(column, labels), average_precision(column, labels)


def _difference(of: Tensor | Codes, labels: Bool[Tensor, " rows"]) -> Float[Tensor, " width"]:
    """Return the mean row of the positives less that of the negatives, in float64."""
    weight = torch.where(labels, 1 / labels.sum(), -1 / (~labels).sum()).double()
    if isinstance(of, Tensor):
        return weight @ of
    weighted = of.value.double().cpu() * weight[of.pattern.row_of.cpu()]
    return torch.zeros(of.d_sae, dtype=torch.float64).index_add(0, of.index.long().cpu(), weighted)


def _half(n_a: int, n_b: int, draw: torch.Generator) -> Bool[Tensor, " documents"]:
    """Return a random half of each list's documents."""
    return torch.cat([torch.randperm(n, generator=draw) < n // 2 for n in (n_a, n_b)])


def _shuffled(
    is_a: Bool[Tensor, " documents"], choosing: Bool[Tensor, " documents"], draw: torch.Generator
) -> Bool[Tensor, " documents"]:
    new = is_a.clone()
    for half in (choosing, ~choosing):
        mine = is_a[half]
        new[half] = mine[torch.randperm(len(mine), generator=draw)]
    return new


def _null(areas: list[float]) -> Null:
    if not areas:
        return Null(float("nan"), float("nan"), 0)
    found = torch.tensor(areas, dtype=torch.float64)
    return Null(float(found.mean()), float(found.quantile(0.95)), len(areas))


def _positions(ids: list[int], at: At) -> list[int]:
    if at == "last":
        return [len(ids) - 1]
    if at == "all":
        return list(range(len(ids)))
    if not callable(at):
        raise UsageError(f"There are no positions {at!r}. Give 'last', 'all' or a function of token ids.")
    found = list(at(ids))
    wrong = [p for p in found if not -len(ids) <= p < len(ids)]
    if wrong:
        raise UsageError(f"There is no position {wrong[0]} in a text of {len(ids)} tokens. Give others.")
    return found
