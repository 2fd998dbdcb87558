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
    `kl_zero_ablated` those of the ablations.
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
    policy: SplicePolicy | None = None,
    batch_tokens: int = 4096,
) -> SpliceCost:
    """Measure the cost of splicing a dictionary over documents (token ids or texts that fit the context).

    `mean` None is mu of the dictionary's statistics; `policy` None leaves special positions out. Sums are float64.
    """
    policy = policy or SplicePolicy()
    site = site or dictionary.site
    if site is None:
        raise DictionaryError(f"{dictionary} names no site. Give the site to splice at.")
    if mean is None:
        if dictionary.statistics is None:
            raise DictionaryError(f"{dictionary} has no statistics to take the mean from. Give mean=.")
        mean = dictionary.statistics.mean
    edits = {
        "spliced": Splice(dictionary, site=site, include_special=policy.splice_special),
        "mean_ablated": Replace(site, _shaped(model, site, mean), include_special=policy.ablate_special),
        "zero_ablated": Replace(
            site, _shaped(model, site, torch.zeros_like(mean)), include_special=policy.ablate_special
        ),
    }
    rows = [model.encode(document).ids[0].tolist() for document in documents]
    sums, divergence, n = dict.fromkeys(["clean", *edits], 0.0), dict.fromkeys(edits, 0.0), 0
    n_kl = 0
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
        clean = model.logits(tokens)
        sums["clean"] += float(cross_entropy(clean[at], targets).sum())
        for name, edit in edits.items():
            with model.edit(edit):
                logits = model.logits(tokens)
            sums[name] += float(cross_entropy(logits[at], targets).sum())
            divergence[name] += float(kl(clean[at_kl], logits[at_kl]).sum())
        n += len(targets)
        n_kl += int(at_kl.sum())
    if not n:
        raise UsageError("The documents hold no token to predict. Give documents of at least two words.")
    return SpliceCost(
        site=site, n=n, policy=policy, kl=divergence["spliced"] / n_kl,
        **{f"kl_{name}": divergence[name] / n_kl for name in ("mean_ablated", "zero_ablated")},
        **{name: total / n for name, total in sums.items()},
    )  # fmt: skip


def _shaped(model: Model, site: str, vector: Tensor) -> Tensor:
    # per-head sites have two axes where a dictionary sees one
    width = model.width(site) if not site.startswith("module:") else len(vector)
    return vector.view(-1, width) if width != len(vector) else vector
