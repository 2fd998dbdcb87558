"""Activations straight from the running model: documents in, shuffled rows out, nothing on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lensing.data.rows import Rows, mix_seed
from lensing.errors import PromptError, SiteError, TrainingError, UsageError
from lensing.model.run import Model

SHUFFLE_ROWS = 131_072
SHUFFLE_BYTES = 512 << 20


def live(
    model: Model,
    documents: Sequence[str | Sequence[int]],
    *,
    sites: str | Sequence[str],
    batch_tokens: int = 4096,
    shuffle_rows: int | None = None,
    held_out: float = 0.05,
    seed: int = 0,
    corpus: str | None = None,
) -> LiveSource:
    """A source of activation rows of one or several sites of a model reading documents (texts, or token ids).

    One forward pass of about `batch_tokens` tokens serves all sites and ends after the deepest one. Documents are
    permuted by `seed`; the last `held_out` share of them is never trained on. Rows of about `shuffle_rows` positions
    (None: 131,072, or what fits in 512 MB) are mixed at a time. `corpus` names the text in the statistics (None: a
    hash of it). Documents longer than the context are cut into pieces.
    """
    return LiveSource(
        model, documents, sites=[sites] if isinstance(sites, str) else list(sites), batch_tokens=batch_tokens,
        shuffle_rows=shuffle_rows, held_out=held_out, seed=seed, corpus=corpus,
    )  # fmt: skip


@dataclass(frozen=True)
class _Block:
    """Documents whose rows are mixed together: members of an epoch's order, and where their rows begin in it."""

    members: np.ndarray
    first_row: int


class LiveSource(Rows):
    """Rows of a running model, in an order that depends on documents and seed alone; BOS and padding left out.

    An epoch is a permutation of the training documents, cut into blocks of about `shuffle_rows` rows; a block's rows
    are permuted as a whole. So any row number can be reached without running what comes before its block.
    """

    def __init__(
        self,
        model: Model,
        documents: Sequence[str | Sequence[int]],
        *,
        sites: list[str],
        batch_tokens: int = 4096,
        shuffle_rows: int | None = None,
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
        pieces, parents = _pieces(model, documents)
        self._pieces = pieces
        self._rows = np.array([_row_count(piece, model.bos_id) for piece in pieces], dtype=np.int64)
        self.documents = int(parents[-1]) + 1 if len(parents) else 0
        order = _permutation(self.documents, seed, -1)
        # at least one document is held out: without, no number could be measured
        n = min(max(round(held_out * self.documents), 1), self.documents - 1) if held_out > 0 else 0
        self.held_out_documents = n
        place = np.empty(self.documents, dtype=np.int64)
        place[order] = np.arange(self.documents)
        by_place = np.argsort(place[parents], kind="stable")
        is_held = place[parents[by_place]] >= self.documents - n
        self._train, self._held = by_place[~is_held], by_place[is_held]
        self._train_rows = int(self._rows[self._train].sum())
        if not self._train_rows:
            raise TrainingError(f"{self.documents} documents leave no rows to train on. Give more documents.")
        digest = _digest(pieces)
        self.corpus = corpus or f"documents/{digest}"
        self._fingerprint = {
            "corpus": self.corpus, "documents": self.documents, "held_out_documents": n, "rows": self._train_rows,
            "digest": digest, "seed": seed, "model": model.name, "weights": _weights_digest(model),
            "sites": list(self.sites),
        }  # fmt: skip
        widths = sum(model.width(site) for site in self.sites if not site.startswith("module:"))
        fits = max(SHUFFLE_BYTES // (4 * max(widths, 1)), 4096)
        self.shuffle_rows = shuffle_rows or min(SHUFFLE_ROWS, fits)
        self._fingerprint["shuffle_rows"] = self.shuffle_rows
        self._cached: tuple[tuple[int, int], dict[str, Tensor]] | None = None

    @property
    def rows(self) -> int:
        """Training rows of one epoch: positions of training documents that are not BOS."""
        return self._train_rows

    def fingerprint(self) -> dict[str, Any]:
        """Model, documents, split, seed and mixing."""
        return self._fingerprint

    def batches(self, batch: int, *, start: int = 0) -> Iterator[dict[str, Float[Tensor, "batch d_in"]]]:
        """Yield batches for ever, epoch after epoch; a batch may span two blocks."""
        waiting: list[dict[str, Tensor]] = []
        held = 0
        for rows in self._stream(batch, start):
            waiting.append(rows)
            held += len(rows[self.sites[0]])
            if held < batch:
                continue
            whole = {site: torch.cat([part[site] for part in waiting]) if len(waiting) > 1 else rows[site]
                     for site in self.sites}  # fmt: skip
            yield {site: tensor[:batch] for site, tensor in whole.items()}
            held -= batch
            waiting = [{site: tensor[batch:] for site, tensor in whole.items()}] if held else []

    def held_out(self, max_rows: int) -> Iterator[dict[str, Float[Tensor, "batch d_in"]]]:
        """Yield the rows of held-out documents, whole documents until `max_rows` are reached."""
        members = self._held[: int(np.searchsorted(np.cumsum(self._rows[self._held]), max_rows)) + 1]
        step = max(self.shuffle_rows // 8, 1)
        for part in _cut(members, self._rows, step):
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
        ends = np.cumsum(self._rows[members])
        out: dict[str, Tensor] = {}
        with torch.no_grad():
            for group in group_by_length([len(self._pieces[m]) for m in members], self.batch_tokens):
                prompts = [self._pieces[members[g]].tolist() for g in group]
                tokens = self.model.encode(prompts)
                _, cache = self.model.run_with_cache(tokens, sites=self.sites, stop=True)
                keep = ~cache.special
                # rows go to their document's own place: their order does not depend on the grouping
                target = torch.from_numpy(
                    np.concatenate([np.arange(ends[g] - self._rows[members[g]], ends[g]) for g in group])
                )
                for site in self.sites:
                    rows = cache[site][keep].flatten(1).float().cpu()
                    if site not in out:
                        out[site] = torch.empty(int(ends[-1]), rows.shape[1])
                    out[site][target] = rows
        return out

    def _stream(self, batch: int, start: int) -> Iterator[dict[str, Tensor]]:
        epoch, offset = divmod(start, self._train_rows)
        while True:
            for number, block in enumerate(self._blocks(epoch)):
                count = int(self._rows[block.members].sum())
                if offset >= block.first_row + count:
                    continue
                skip = max(offset - block.first_row, 0)
                rows = self._block(epoch, number, block)
                order = torch.from_numpy(_permutation(count, self.seed, epoch, number))
                for i in range(skip, count, batch):
                    part = order[i : i + batch]
                    yield {site: tensor[part] for site, tensor in rows.items()}
            epoch, offset = epoch + 1, 0

    def _block(self, epoch: int, number: int, block: _Block) -> dict[str, Tensor]:
        if self._cached is None or self._cached[0] != (epoch, number):
            self._cached = None  # freed before the next one is filled
            self._cached = ((epoch, number), self.activations(block.members))
        return self._cached[1]

    def _blocks(self, epoch: int) -> list[_Block]:
        members = self._train[_permutation(len(self._train), self.seed, epoch)]
        blocks, first = [], 0
        for part in _cut(members, self._rows, self.shuffle_rows):
            blocks.append(_Block(part, first))
            first += int(self._rows[part].sum())
        return blocks


def group_by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Groups of documents of like length, each of at most `batch_tokens` tokens when padded (or one document)."""
    groups: list[list[int]] = []
    longest = 0
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        longest = max(longest, lengths[i])
        if not groups or longest * (len(groups[-1]) + 1) > batch_tokens:
            groups.append([])
            longest = lengths[i]
        groups[-1].append(i)
    return groups


def _cut(members: np.ndarray, rows: np.ndarray, size: int) -> list[np.ndarray]:
    # consecutive members, about `size` rows a part
    if not len(members):
        return []
    total = np.cumsum(rows[members])
    parts = max(round(int(total[-1]) / size), 1)
    edges = np.searchsorted(total, np.arange(1, parts) * (int(total[-1]) / parts))
    return [part for part in np.split(members, edges) if len(part)]


def _pieces(model: Model, documents: Sequence[str | Sequence[int]]) -> tuple[list[np.ndarray], np.ndarray]:
    # token ids with BOS where the model has one, cut to the context; and the document that each piece comes from
    bos = [] if model.bos_id is None else [model.bos_id]
    room = (model.context or 1 << 30) - len(bos)
    texts = [d for d in documents if isinstance(d, str)]
    if texts and model.tokenizer is None:
        raise PromptError("This model came without a tokenizer. Give token ids instead of text.")
    read = iter(model.tokenizer(texts, add_special_tokens=False)["input_ids"]) if texts else iter(())
    pieces, parents, number = [], [], 0
    for document in documents:
        ids = np.asarray(next(read) if isinstance(document, str) else document, dtype=np.int64)
        if bos and len(ids) and ids[0] == bos[0]:
            ids = ids[1:]
        if not len(ids):
            continue
        for i in range(0, len(ids), room):
            pieces.append(np.concatenate([np.array(bos, dtype=np.int64), ids[i : i + room]]))
            parents.append(number)
        number += 1
    if not pieces:
        raise UsageError("All documents are empty. Give texts or lists of token ids.")
    return pieces, np.array(parents)


def _row_count(piece: np.ndarray, bos: int | None) -> int:
    return len(piece) if bos is None else int((piece != bos).sum())


def _permutation(n: int, *seeds: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(mix_seed(*(seed + 1 for seed in seeds)))
    return torch.randperm(n, generator=generator).numpy()


def _digest(pieces: list[np.ndarray]) -> str:
    found = hashlib.sha256()
    for piece in pieces:
        found.update(len(piece).to_bytes(8, "little"))
        found.update(piece.astype("<i8").tobytes())
    return found.hexdigest()[:12]


def _weights_digest(model: Model) -> str:
    """A digest of each parameter's sum and beginning: a model trained anew under its old name is another source."""
    found = hashlib.sha256()
    for name, parameter in model.hf.named_parameters():
        total = parameter.detach().double().sum().item()
        found.update(f"{name} {tuple(parameter.shape)} {total!r} {parameter.flatten()[:8].tolist()}".encode())
    return found.hexdigest()[:16]
