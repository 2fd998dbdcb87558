"""What the model loses when it runs on a dictionary's output in place of what the dictionary read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.data.live import group_by_length
from lensing.dictionary.base import Dictionary
from lensing.dictionary.splice import Splice
from lensing.errors import DictionaryError, UsageError
from lensing.measure.kl import cross_entropy, kl
from lensing.model.edit import Replace
from lensing.model.run import Model

# keys of what is run without a dictionary; not strings, which are the dictionaries' names
_CLEAN, _MEAN, _ZERO = object(), object(), object()


@dataclass(frozen=True)
class SplicePolicy:
    """Whether special positions (beginning of text) are spliced, ablated, and counted as places of prediction.

    `kl_at_end`: KL is also taken at each text's last position, which predicts nothing that the text holds. Padding
    stands on the right, where it reaches no other position, and is never counted nor predicted.
    `measure.peers.POLICIES` has the policies of other tools.
    """

    splice_special: bool = False
    ablate_special: bool = False
    count_special: bool = False
    kl_at_end: bool = False


@dataclass(frozen=True)
class SpliceCost:
    """Mean next-token losses in nats over `n` predictions, made at the positions that `policy` counts.

    `clean`: as it is; `spliced`: x_hat written at the site, the error dropped; `mean_ablated` and `zero_ablated`: mu of
    the dictionary's statistics, or zero, written there. `policy` says at which positions; by default at every one that
    is not special. `kl` is the mean KL(clean || spliced) over the same predictions, `kl_mean_ablated` and
    `kl_zero_ablated` those of the ablations. The standard errors are over the `documents` (ratio
    estimator), nan for one.
    """

    site: str
    n: int
    clean: float
    spliced: float
    mean_ablated: float
    zero_ablated: float
    kl: float
    kl_mean_ablated: float
    kl_zero_ablated: float
    policy: SplicePolicy
    documents: int
    delta_loss_se: float
    loss_recovered_se: float
    loss_recovered_mean_se: float

    @property
    def delta_loss(self) -> float:
        """spliced - clean, nats a token."""
        return self.spliced - self.clean

    @property
    def loss_recovered(self) -> float:
        """(zero ablated - spliced) / (zero ablated - clean): 1 is as good as the model, 0 as bad as zeros."""
        return (self.zero_ablated - self.spliced) / (self.zero_ablated - self.clean)

    @property
    def loss_recovered_mean(self) -> float:
        """The same against mean ablation, the harder comparison."""
        return (self.mean_ablated - self.spliced) / (self.mean_ablated - self.clean)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> SpliceCost:
        """What `to_json` gave."""
        names = {field.name for field in fields(cls)}
        facts = {name: value for name, value in record.items() if name in names}
        return cls(**(facts | {"policy": SplicePolicy(**record["policy"])}))

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {
            "delta_loss": self.delta_loss,
            "loss_recovered": self.loss_recovered,
            "loss_recovered_mean": self.loss_recovered_mean,
        }


def splice_cost(
    model: Model,
    dictionary: Dictionary,
    documents: Sequence[Sequence[int] | str],
    *,
    site: str | None = None,
    mean: Tensor | None = None,
    policy: SplicePolicy | None = None,
    batch_tokens: int = 4096,
) -> SpliceCost:
    """Measure the cost of splicing a dictionary over documents (token ids or texts that fit the context).

    `mean` None is mu of the dictionary's statistics; `policy` None leaves special positions out. Sums are float64.
    """
    alone = {"": dictionary}
    return splice_costs(model, alone, documents, site=site, mean=mean, policy=policy, batch_tokens=batch_tokens)[""]


def splice_costs(
    model: Model,
    dictionaries: Mapping[str, Dictionary],
    documents: Sequence[Sequence[int] | str],
    *,
    site: str | None = None,
    mean: Tensor | None = None,
    policy: SplicePolicy | None = None,
    batch_tokens: int = 4096,
) -> dict[str, SpliceCost]:
    """Measure the costs of several dictionaries of one site; what needs none of them is run once.

    `mean` None is mu of the first dictionary's statistics: of dictionaries that were measured on the same rows.
    """
    policy = policy or SplicePolicy()
    first = next(iter(dictionaries.values()))
    site = site or first.site
    if site is None:
        raise DictionaryError(f"{first} names no site. Give the site to splice at.")
    if mean is None:
        if first.statistics is None:
            raise DictionaryError(f"{first} has no statistics to take the mean from. Give mean=.")
        mean = first.statistics.mean
    edits: dict[Any, Splice | Replace] = {
        name: Splice(d, site=site, include_special=policy.splice_special) for name, d in dictionaries.items()
    }
    for name, vector in {_MEAN: mean, _ZERO: torch.zeros_like(mean)}.items():
        edits[name] = Replace(site, _shaped(model, site, vector), include_special=policy.ablate_special)
    rows = [model.encode(document).ids[0].tolist() for document in documents]
    # of each document, so that errors are over documents
    losses = {name: torch.zeros(len(rows), dtype=torch.float64) for name in [_CLEAN, *edits]}
    counts = torch.zeros(len(rows), dtype=torch.float64)
    divergence, n_kl = dict.fromkeys(edits, 0.0), 0
    for group in group_by_length([len(row) for row in rows], batch_tokens):
        tokens = model.encode([rows[i] for i in group])
        # a prediction counts where it is made at a position that counts and its target is a real token
        counted = tokens.mask if policy.count_special else ~tokens.special
        counted = counted & tokens.mask
        follows = torch.cat([tokens.mask[:, 1:], torch.zeros_like(tokens.mask[:, :1])], 1)
        at = counted & follows
        at_kl = counted if policy.kl_at_end else at
        targets = tokens.ids.roll(-1, 1)[at]
        if not len(targets):
            continue
        document = torch.tensor(group)[at.nonzero()[:, 0].cpu()]
        counts.index_add_(0, document, torch.ones(len(document), dtype=torch.float64))
        clean = model.logits(tokens)
        losses[_CLEAN].index_add_(0, document, cross_entropy(clean[at], targets).cpu())
        for name, edit in edits.items():
            with model.edit(edit):
                logits = model.logits(tokens)
            losses[name].index_add_(0, document, cross_entropy(logits[at], targets).cpu())
            divergence[name] += float(kl(clean[at_kl], logits[at_kl]).sum())
        n_kl += int(at_kl.sum())
    if not counts.sum():
        raise UsageError("The documents hold no token to predict. Give documents of at least two words.")
    divergence = {name: total / n_kl for name, total in divergence.items()}
    return {name: _cost(site, policy, losses, divergence, name, counts) for name in dictionaries}


def _cost(
    site: str, policy: SplicePolicy, losses: dict[Any, Tensor], divergence: dict[Any, float], name: str, counts: Tensor
) -> SpliceCost:  # fmt: skip
    here = counts > 0
    clean, spliced, mean, zero = (losses[key][here] for key in (_CLEAN, name, _MEAN, _ZERO))
    n = float(counts.sum())
    return SpliceCost(
        site=site, n=int(n), clean=float(clean.sum()) / n, spliced=float(spliced.sum()) / n,
        mean_ablated=float(mean.sum()) / n, zero_ablated=float(zero.sum()) / n, kl=divergence[name],
        kl_mean_ablated=divergence[_MEAN], kl_zero_ablated=divergence[_ZERO], policy=policy,
        documents=int(here.sum()), delta_loss_se=ratio_error(spliced - clean, counts[here]),
        loss_recovered_se=ratio_error(zero - spliced, zero - clean),
        loss_recovered_mean_se=ratio_error(mean - spliced, mean - clean),
    )  # fmt: skip


def ratio_error(top: Float[Tensor, " document"], bottom: Float[Tensor, " document"]) -> float:
    """Standard error of sum(top) / sum(bottom) over documents (linearised ratio estimator); nan for one document."""
    m, whole = len(top), float(bottom.sum())
    if m < 2 or whole == 0:
        return math.nan
    left = top - float(top.sum()) / whole * bottom
    return math.sqrt(m / (m - 1) * float(left.square().sum())) / abs(whole)


def _shaped(model: Model, site: str, vector: Tensor) -> Tensor:
    # per-head sites have two axes where a dictionary sees one
    width = model.width(site) if not site.startswith("module:") else len(vector)
    return vector.view(-1, width) if width != len(vector) else vector
