"""What the model loses when it runs on a dictionary's output in place of what the dictionary read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lensing.data.live import group_by_length
from lensing.dictionary.base import Dictionary
from lensing.dictionary.splice import Splice
from lensing.errors import DictionaryError, UsageError
from lensing.measure.kl import cross_entropy, kl
from lensing.model.edit import Replace
from lensing.model.run import Model


@dataclass(frozen=True)
class SpliceCost:
    """Mean next-token losses in nats over `n` predictions, made at positions that are not special.

    `clean`: as it is; `spliced`: x_hat written at the site at every position but special ones, the error dropped;
    `mean_ablated` and `zero_ablated`: mu of the dictionary's statistics, or zero, written at the same positions.
    `kl` is the mean KL(clean || spliced).
    """

    site: str
    n: int
    clean: float
    spliced: float
    mean_ablated: float
    zero_ablated: float
    kl: float

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
    batch_tokens: int = 4096,
) -> SpliceCost:
    """Measure the cost of splicing a dictionary over documents (token ids or texts that fit the context).

    `mean` None is mu of the dictionary's statistics. All sums are float64.
    """
    site = site or dictionary.site
    if site is None:
        raise DictionaryError(f"{dictionary} names no site. Give the site to splice at.")
    if mean is None:
        if dictionary.statistics is None:
            raise DictionaryError(f"{dictionary} has no statistics to take the mean from. Give mean=.")
        mean = dictionary.statistics.mean
    edits = {
        "spliced": Splice(dictionary, site=site),
        "mean_ablated": Replace(site, _shaped(model, site, mean), include_special=False),
        "zero_ablated": Replace(site, _shaped(model, site, torch.zeros_like(mean)), include_special=False),
    }
    rows = [model.encode(document).ids[0].tolist() for document in documents]
    sums, divergence, n = dict.fromkeys(["clean", *edits], 0.0), 0.0, 0
    for group in group_by_length([len(row) for row in rows], batch_tokens):
        tokens = model.encode([rows[i] for i in group])
        # a prediction counts where it is made at a position that is not special and its target is a real token
        at = ~tokens.special[:, :-1] & tokens.mask[:, 1:]
        targets = tokens.ids[:, 1:][at]
        if not len(targets):
            continue
        clean = model.logits(tokens)[:, :-1][at]
        sums["clean"] += float(cross_entropy(clean, targets).sum())
        for name, edit in edits.items():
            with model.edit(edit):
                logits = model.logits(tokens)[:, :-1][at]
            sums[name] += float(cross_entropy(logits, targets).sum())
            if name == "spliced":
                divergence += float(kl(clean, logits).sum())
        n += len(targets)
    if not n:
        raise UsageError("The documents hold no token to predict. Give documents of at least two words.")
    return SpliceCost(site=site, n=n, kl=divergence / n, **{name: total / n for name, total in sums.items()})


def _shaped(model: Model, site: str, vector: Tensor) -> Tensor:
    # per-head sites have two axes where a dictionary sees one
    width = model.width(site) if not site.startswith("module:") else len(vector)
    return vector.view(-1, width) if width != len(vector) else vector
