"""Rows of activations as a stream: what training reads, whether it comes from a tensor or from a running model."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.errors import TrainingError, UsageError


class Rows(abc.ABC):
    """Endless batches of rows [batch, d_in] of one or several sites, in an order that only the seed decides.

    A part is held out: training never sees it. Special positions are left out of both parts.
    """

    corpus: str
    model_name: str | None
    model: Any = None  # the running model whose rows these are, where there is one
    sites: tuple[str, ...]
    documents: int
    held_out_documents: int

    @property
    @abc.abstractmethod
    def rows(self) -> int:
        """Training rows of one epoch."""

    @abc.abstractmethod
    def batches(self, batch: int, *, start: int = 0) -> Iterator[dict[str, Float[Tensor, "batch d_in"]]]:
        """Yield batches for ever, epoch after epoch, beginning with row number `start`."""

    @abc.abstractmethod
    def held_out(self, max_rows: int) -> Iterator[dict[str, Float[Tensor, "batch d_in"]]]:
        """Yield the held-out rows once, about `max_rows` at most."""

    @abc.abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What decides the rows and their order: two sources with one fingerprint give the same stream."""

    def held_out_tokens(self, max_tokens: int) -> list[list[int]]:
        """Token ids of held-out documents, at most `max_tokens` in all; empty where rows come without tokens."""
        return []


class TensorRows(Rows):
    """A tensor [rows, d_in] (or one per site) as a source: rows permuted anew every epoch, the last part held out."""

    def __init__(
        self,
        tensors: Tensor | Mapping[str, Tensor],
        *,
        seed: int = 0,
        held_out: float = 0.05,
        corpus: str | None = None,
    ) -> None:
        table = {"rows": tensors} if isinstance(tensors, Tensor) else dict(tensors)
        if not table:
            raise UsageError("There are no rows to train on. Give a tensor [rows, d_in].")
        first = next(iter(table.values()))
        for name, tensor in table.items():
            if tensor.dim() != 2 or len(tensor) != len(first):
                raise UsageError(
                    f"{name} has shape {list(tensor.shape)}; rows must be [rows, d_in], equally many for every site. "
                    "Flatten the leading axes."
                )
        self.tensors = {name: tensor.float() for name, tensor in table.items()}
        self.seed, self.sites, self.model_name = seed, tuple(table), None
        self.corpus = corpus or f"tensor/{_digest(first)}"
        order = _permutation(len(first), seed, -1)
        n = round(held_out * len(first))
        if held_out > 0:
            n = max(n, 1)
        self._train, self._held_out = order[: len(order) - n], order[len(order) - n :]
        self.documents, self.held_out_documents = len(first), n
        if not len(self._train):
            raise TrainingError(f"{len(first)} rows leave none to train on. Give more rows or hold out fewer.")

    @property
    def rows(self) -> int:
        """Training rows of one epoch."""
        return len(self._train)

    def batches(self, batch: int, *, start: int = 0) -> Iterator[dict[str, Float[Tensor, "batch d_in"]]]:
        """Yield batches for ever; a batch may span two epochs."""
        epoch, place = divmod(start, self.rows)
        order = self._epoch(epoch)
        while True:
            take = order[place : place + batch]
            place += batch
            while len(take) < batch:
                epoch, place = epoch + 1, batch - len(take)
                order = self._epoch(epoch)
                take = torch.cat([take, order[:place]])
            yield {site: tensor.index_select(0, take) for site, tensor in self.tensors.items()}

    def held_out(self, max_rows: int) -> Iterator[dict[str, Float[Tensor, "batch d_in"]]]:
        """Yield the held-out rows in chunks of 4,096."""
        for part in self._held_out[:max_rows].split(4096):
            yield {site: tensor[part] for site, tensor in self.tensors.items()}

    def fingerprint(self) -> dict[str, Any]:
        """Contents, split and seed."""
        return {"corpus": self.corpus, "rows": self.rows, "held_out": len(self._held_out), "seed": self.seed}

    def _epoch(self, epoch: int) -> Tensor:
        return self._train[_permutation(len(self._train), self.seed, epoch)]


def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    # one generator per (seed, epoch), so that any epoch can be entered without living through those before
    return torch.randperm(n, generator=torch.Generator().manual_seed(mix_seed(seed, epoch + 1)))


def mix_seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers, unrelated for neighbouring ones."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def _digest(tensor: Tensor) -> str:
    sample = tensor[:: max(len(tensor) // 1024, 1)].detach().float().cpu().contiguous()
    return hashlib.sha256(sample.numpy().tobytes()).hexdigest()[:12]
