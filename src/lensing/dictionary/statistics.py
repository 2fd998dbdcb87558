"""What a dictionary does on its statistics corpus: held-out rows, special positions left out."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

FACTS = ("corpus", "n", "documents", "total_variance", "mean_norm", "fvu", "l0", "dead_share")
TENSORS = ("mean", "max_activation", "p999", "density")


@dataclass(frozen=True, eq=False)
class Statistics:
    """Numbers over the `n` held-out rows (from `documents` documents) of a corpus named `corpus`.

    `mean` is mu [d_in] over these rows, `total_variance` the mean of |x - mu|^2, `mean_norm` the mean of |x|.
    `fvu` is sum |x - x_hat|^2 / sum |x - mu|^2, `l0` the mean number of active latents a row, `dead_share` the share
    of latents that are silent in all n rows. Per latent [d_sae]: `max_activation`; `p999`, the 99.9th percentile of
    its activations where it is active; `density`, the share of rows where it is active.
    """

    corpus: str
    n: int
    documents: int
    mean: Float[Tensor, " d_in"]
    total_variance: float
    mean_norm: float
    max_activation: Float[Tensor, " d_sae"]
    p999: Float[Tensor, " d_sae"]
    density: Float[Tensor, " d_sae"]
    fvu: float
    l0: float
    dead_share: float

    def facts(self) -> dict[str, Any]:
        """The scalar part, as it stands in config.json."""
        return {name: getattr(self, name) for name in FACTS}

    def tensors(self) -> dict[str, Tensor]:
        """The tensor part, as it stands in statistics.safetensors."""
        return {name: getattr(self, name) for name in TENSORS}

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return self.facts() | {name: tensor.tolist() for name, tensor in self.tensors().items()}


@dataclass(frozen=True, eq=False)
class Sample:
    """Token ids of some held-out documents, so that contexts can always be shown: flat ids and row offsets."""

    ids: Int[Tensor, " tokens"]
    offsets: Int[Tensor, " documents1"]

    @classmethod
    def of(cls, documents: list[list[int]]) -> Sample:
        """Hold the token ids of these documents."""
        lengths = torch.tensor([0, *map(len, documents)], dtype=torch.int64)
        flat = [token for document in documents for token in document]
        return cls(torch.tensor(flat, dtype=torch.int32), lengths.cumsum(0))

    def documents(self) -> list[list[int]]:
        """The documents as lists of token ids, beginning-of-sequence tokens as they were fed."""
        edges = self.offsets.tolist()
        return [self.ids[a:b].tolist() for a, b in itertools.pairwise(edges)]
