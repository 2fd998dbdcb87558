"""Activations straight from the running model: documents in, shuffled rows out, nothing on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lensing.data.forward import activations
from lensing.data.forward import group_by_length as group_by_length
from lensing.data.identity import weights_digest
from lensing.data.order import Order, Pool, cut, cut_shards, deal, default_shuffle_rows, row_counts, split_pieces
from lensing.data.pieces import read_pieces
from lensing.data.rows import Rows
from lensing.errors import SiteError, TrainingError, UsageError
from lensing.model.run import Model


def live(
    model: Model,
    documents: Sequence[str | Sequence[int]],
    *,
    sites: str | Sequence[str],
    batch_tokens: int = 4096,
    shuffle_rows: int | None = None,
    shard_rows: int | None = None,
    context: int | None = None,
    held_out: float = 0.05,
    seed: int = 0,
    corpus: str | None = None,
) -> LiveSource:
    """A source of activation rows of one or several sites of a model reading documents (texts, or token ids).

    One forward pass of about `batch_tokens` tokens serves all sites and ends after the deepest one. Documents are
    permuted by `seed`; the last `held_out` share of them is never trained on. Rows of about `shuffle_rows` positions
    (None: 131,072, or what fits in 512 MB) are mixed at a time. `corpus` names the text in the statistics (None: a
    hash of it). Documents longer than `context` (None: the model's own) are cut into pieces.

    A store harvested with the same documents, seed, held-out share, context, `batch_tokens`, `shuffle_rows` and
    `shard_rows` gives the same rows in the same order, in float32 to the last bit.
    """
    return LiveSource(
        model, documents, sites=[sites] if isinstance(sites, str) else list(sites), batch_tokens=batch_tokens,
        shuffle_rows=shuffle_rows, shard_rows=shard_rows, context=context, held_out=held_out, seed=seed, corpus=corpus,
    )  # fmt: skip


class LiveSource(Rows):
    """Rows of a running model, in an order that depends on documents and seed alone; BOS and padding left out.

    Training documents are permuted and cut into shards, which are mixed about `shuffle_rows` rows at a time. So any row
    number can be reached without running what comes before the shards that it is mixed with.
    """

    def __init__(
        self,
        model: Model,
        documents: Sequence[str | Sequence[int]],
        *,
        sites: list[str],
        batch_tokens: int = 4096,
        shuffle_rows: int | None = None,
        shard_rows: int | None = None,
        context: int | None = None,
        held_out: float = 0.05,
        seed: int = 0,
        corpus: str | None = None,
    ) -> None:
        self.model, self.batch_tokens, self.seed = model, batch_tokens, seed
        self.model_name = model.name
        self.sites = tuple(site.name for site in model.resolve_all(sites))
        if not self.sites:
            raise SiteError("A source needs at least one site. Give sites='mlp_out.2', say.")
        if not 0 <= held_out < 1:
            raise UsageError(f"The held-out share is {held_out}. Give a number from 0 to below 1.")
        self._pieces = read_pieces(model, documents, context=context)
        self.documents = self._pieces.documents
        self._train, self._held, n = split_pieces(self._pieces.parents, self.documents, seed, held_out)
        self.held_out_documents = n
        if not self._pieces.rows[self._train].sum():
            raise TrainingError(f"{self.documents} documents leave no rows to train on. Give more documents.")
        widths = sum(model.width(site) for site in self.sites if not site.startswith("module:"))
        self.shuffle_rows = shuffle_rows or default_shuffle_rows(widths)
        self._shards, mixed = cut_shards(self._train, self._pieces.rows, seed, self.shuffle_rows, shard_rows)
        self._order = Order(row_counts(self._shards, self._pieces.rows), mixed, seed)
        digest = self._pieces.digest()
        self.corpus = corpus or f"documents/{digest}"
        self._fingerprint = {
            "corpus": self.corpus, "documents": self.documents, "held_out_documents": n, "rows": self.rows,
            "digest": digest, "seed": seed, "model": model.name, "weights": weights_digest(model),
            "sites": list(self.sites), "shuffle_rows": self.shuffle_rows,
            "shards": len(self._shards), "shards_mixed": mixed,
        }  # fmt: skip
        self._cached: tuple[Pool, dict[str, Tensor]] | None = None

    @property
    def rows(self) -> int:
        """Training rows of one epoch: positions of training documents that are not BOS."""
        return self._order.rows

    def fingerprint(self) -> dict[str, Any]:
        """Model, documents, split, seed and mixing."""
        return self._fingerprint

    def batches(self, batch: int, *, start: int = 0) -> Iterator[dict[str, Float[Tensor, "batch d_in"]]]:
        """Yield batches for ever, epoch after epoch; a batch may span two pools of shards."""
        return deal(self._order, ((p, skip, self._pool(p)) for p, skip in self._order.visits(start)), batch)

    def held_out(self, max_rows: int) -> Iterator[dict[str, Float[Tensor, "batch d_in"]]]:
        """Yield the rows of held-out documents, whole documents until `max_rows` are reached."""
        rows = self._pieces.rows
        members = self._held[: int(np.searchsorted(np.cumsum(rows[self._held]), max_rows)) + 1]
        step = max(self.shuffle_rows // 8, 1)
        for part in cut(members, rows, max(round(int(rows[members].sum()) / step), 1)):
            yield self.activations(part)

    def held_out_tokens(self, max_tokens: int) -> list[list[int]]:
        """Token ids of held-out documents as they are fed to the model, at most `max_tokens` in all."""
        found, total = [], 0
        for member in self._held:
            total += len(self._pieces[member])
            if total > max_tokens and found:
                break
            found.append(self._pieces[member].tolist())
        return found

    def training_tokens(self) -> list[list[int]]:
        """Token ids of the training documents (pieces of them, where they are longer than the context)."""
        return [self._pieces[member].tolist() for member in self._train]

    def activations(self, members: np.ndarray) -> dict[str, Float[Tensor, "rows d_in"]]:
        """Rows of some documents, in the order of the members, then of positions."""
        pieces = [self._pieces[member] for member in members]
        return activations(self.model, pieces, self.sites, batch_tokens=self.batch_tokens)

    def _pool(self, pool: Pool) -> dict[str, Tensor]:
        if self._cached is None or self._cached[0] != pool:
            self._cached = None  # freed before the next one is filled
            parts = [self.activations(self._shards[shard]) for shard in pool.shards]
            rows = parts[0]
            if len(parts) > 1:
                rows = {site: torch.cat([part[site] for part in parts]) for site in self.sites}
            self._cached = (pool, rows)
        return self._cached[1]
