"""What other tools call explained variance, MSE, L0 and so on: each under its own name, as that tool computes it.

Ours are in `measure.reconstruction`, `measure.l0` and `measure.splice_cost`. Most of these depend on how rows are cut
into batches, which is part of their definition: one call of `add` is one batch. The tools sum in float32, these in
float64. `benchmarks/metrics_vs_peers.py` compares them with the tools themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.base import Dictionary
from lensing.dictionary.codes import Codes
from lensing.errors import UnknownNameError
from lensing.measure.splice_cost import SplicePolicy, splice_cost
from lensing.model.run import Model


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows, reconstructions and activations of one batch in float64, special positions as the caller masks them."""

    x: Float[Tensor, "rows d"]
    x_hat: Float[Tensor, "rows d"]
    codes: Codes

    @property
    def error(self) -> Float[Tensor, " rows"]:
        """|x - x_hat|^2 of every row."""
        return (self.x - self.x_hat).square().sum(1)

    @property
    def spread(self) -> Float[Tensor, " rows"]:
        """|x - mean of this batch|^2 of every row."""
        return (self.x - self.x.mean(0)).square().sum(1)

    @property
    def cosine(self) -> Float[Tensor, " rows"]:
        """Cosine of x and x_hat of every row, not a number where either is zero."""
        return (self.x * self.x_hat).sum(1) / (self.x.norm(dim=1) * self.x_hat.norm(dim=1))

    def per_row(self, values: Tensor) -> Float[Tensor, " rows"]:
        """Sums over each row's active places."""
        return values.new_zeros(len(self.x)).index_add(0, self.codes.pattern.row_of, values)


Figure = Callable[[Batch], Tensor]


def _l0(b: Batch) -> Tensor:
    return b.per_row((b.codes.value != 0).double())


def _l1(b: Batch) -> Tensor:
    return b.per_row(b.codes.value.double().abs())


def _bias(b: Batch) -> Tensor:
    return b.x_hat.square().sum(1).mean() / (b.x * b.x_hat).sum(1).mean()


def _norm_ratio(b: Batch) -> Tensor:
    length = b.x.norm(dim=1)
    return b.x_hat.norm(dim=1) / torch.where(length < 1e-4, 1.0, length)


# Mean over all rows of a figure of each row. Where the figure looks at its batch, so does the mean.
OVER_ROWS: dict[str, Figure] = {
    "saelens.explained_variance_legacy": lambda b: 1 - b.error / b.spread,
    "saelens.mse": lambda b: b.error,
    "saelens.cossim": lambda b: b.cosine,
    "saelens.l2_ratio": _norm_ratio,
    "saelens.l0": _l0,
    "saelens.l1": _l1,
    "saebench.explained_variance_legacy": lambda b: 1 - b.error / b.spread,
    "saebench.mse": lambda b: b.error / len(b.x),  # divided by the rows of the batch, then averaged over rows
    "saebench.cossim": lambda b: b.cosine,
    "saebench.l0": _l0,
    "saebench.l1": lambda b: b.per_row(b.codes.value.double()),  # signed
}
# Mean over batches of one figure of each batch, whatever their sizes.
OVER_BATCHES: dict[str, Figure] = {
    "saelens.relative_reconstruction_bias": _bias,
    "saebench.relative_reconstruction_bias": _bias,
    "sparsify.fvu": lambda b: b.error.sum() / b.spread.sum(),
    "dictionary_learning.frac_variance_explained": lambda b: 1 - (b.x - b.x_hat).var(0).sum() / b.x.var(0).sum(),
    "dictionary_learning.l2_loss": lambda b: b.error.sqrt().mean(),
    "dictionary_learning.l1_loss": lambda b: _l1(b).mean(),
    "dictionary_learning.l0": lambda b: _l0(b).mean(),
    "dictionary_learning.cossim": lambda b: b.cosine.mean(),
    "dictionary_learning.l2_ratio": lambda b: (b.x_hat.norm(dim=1) / b.x.norm(dim=1)).mean(),
    "dictionary_learning.relative_reconstruction_bias": _bias,
    "llamascopium.explained_variance": lambda b: 1 - b.error.mean() / b.spread.mean(),
    "llamascopium.explained_variance_legacy": lambda b: (1 - b.error / b.spread).mean(),
    "openai.normalized_mean_squared_error": lambda b: (b.error / b.x.square().sum(1)).mean(),
    "openai.normalized_l1_loss": lambda b: (_l1(b) / b.x.norm(dim=1)).mean(),
    # what SAEBench's explained variance is made of: means over batches
    "_error": lambda b: b.error.mean(),
    "_square": lambda b: b.x.square().sum(1).mean(),
}
WHOLE = (
    "saelens.explained_variance",
    "saebench.explained_variance",
    "dictionary_learning.frac_alive",
    "saelens.n_alive",
)
NAMES = tuple(sorted({*OVER_ROWS, *(name for name in OVER_BATCHES if not name.startswith("_")), *WHOLE}))


class PeerMetrics:
    """Streaming numbers of other tools over batches of (x, x_hat, codes)."""

    def __init__(self) -> None:
        self.rows = self.batches = 0
        self._sums = dict.fromkeys([*OVER_ROWS, *OVER_BATCHES], 0.0)
        self._x: Tensor | None = None
        self._square = self._error = 0.0
        self._fired: Tensor | None = None
        self._strength: Tensor | None = None

    def add(self, x: Float[Tensor, "rows d"], x_hat: Float[Tensor, "rows d"], codes: Codes) -> None:
        """Take in one batch."""
        b = Batch(x.double(), x_hat.double(), codes)
        self.rows, self.batches = self.rows + len(x), self.batches + 1
        for name, figure in OVER_ROWS.items():
            self._sums[name] += float(figure(b).sum())
        for name, figure in OVER_BATCHES.items():
            self._sums[name] += float(figure(b))
        self._square += float(b.x.square().sum())
        self._error += float(b.error.sum())
        some = torch.zeros(codes.d_sae, dtype=torch.float64)
        fired = some.index_add(0, codes.index.long().cpu(), (codes.value != 0).double().cpu())
        strength = some.index_add(0, codes.index.long().cpu(), codes.value.double().cpu())
        self._x = b.x.sum(0) if self._x is None else self._x + b.x.sum(0)
        self._fired = fired if self._fired is None else self._fired + fired
        self._strength = strength if self._strength is None else self._strength + strength

    def value(self, name: str) -> float:
        """One number by its name (`NAMES`); NaN before anything was added.

        Raises: UnknownNameError: no tool has a number of this name.
        """
        if name not in NAMES:
            raise UnknownNameError("metric of another tool", name, NAMES)
        if self._x is None or self._fired is None or self._strength is None:
            return float("nan")
        if name in OVER_ROWS:
            return self._sums[name] / self.rows
        if name in OVER_BATCHES:
            return self._sums[name] / self.batches
        if name == "saelens.explained_variance":  # since 2026-03; from sums over all rows
            variance = self._square / self.rows - float((self._x / self.rows).square().sum())
            return 1 - self._error / self.rows / variance
        if name == "saebench.explained_variance":
            # as 0.6.0 has it: in place of |mean x|^2 stands the square of the mean of x^2 over rows and dimensions
            square = self._sums["_square"] / self.batches
            return 1 - self._sums["_error"] / self.batches / (square - (square / len(self._x)) ** 2)
        if name == "saelens.n_alive":
            return float((self._fired > 0).sum())
        return float((self._strength != 0).double().mean())

    def to_json(self) -> dict[str, float]:
        """All of them by name."""
        return {name: self.value(name) for name in NAMES}


# Where each tool splices and ablates, and which predictions it counts (`measure.splice_cost.splice_cost(policy=...)`).
POLICIES = {
    "lensing": SplicePolicy(),
    "saelens": SplicePolicy(ablate_special=True, kl_at_end=True),
    "saebench": SplicePolicy(splice_special=True, ablate_special=True, kl_at_end=True),
    "dictionary_learning": SplicePolicy(splice_special=True, ablate_special=True, count_special=True),
}


def splice_metrics(
    model: Model, dictionary: Dictionary, documents: Sequence[Sequence[int] | str], *, site: str | None = None
) -> dict[str, float]:
    """What SAELens, SAEBench and dictionary_learning print of a dictionary spliced into a model, by name.

    All of them ablate with zeros. The documents are one batch: dictionary_learning averages its numbers over batches.
    """
    zero = torch.zeros(dictionary.d_in)  # none of them ablates with a mean
    found: dict[str, float] = {}
    for tool in ("saelens", "saebench", "dictionary_learning"):
        cost = splice_cost(model, dictionary, documents, site=site, mean=zero, policy=POLICIES[tool])
        if tool == "dictionary_learning":
            names = {"loss_original": cost.clean, "loss_reconstructed": cost.spliced, "loss_zero": cost.zero_ablated}
            names["frac_recovered"] = cost.loss_recovered
        else:
            names = {"ce_loss_without_sae": cost.clean, "ce_loss_with_sae": cost.spliced}
            names |= {"ce_loss_with_ablation": cost.zero_ablated, "ce_loss_score": cost.loss_recovered}
            names |= {"kl_div_with_sae": cost.kl, "kl_div_with_ablation": cost.kl_zero_ablated}
            names["kl_div_score"] = 1 - cost.kl / cost.kl_zero_ablated
        found |= {f"{tool}.{name}": value for name, value in names.items()}
    return found
