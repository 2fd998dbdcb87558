"""The plan of a harvest: which pieces of text stand in which shard, decided before the first forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lensing.data.forward import row_widths
from lensing.data.identity import tokenizer_digest, weights_digest
from lensing.data.manifest import Manifest
from lensing.data.order import cut, cut_shards, default_shuffle_rows, row_counts, split_pieces
from lensing.data.pieces import Pieces, read_pieces
from lensing.data.text import Text
from lensing.errors import SiteError, TrainingError, UsageError
from lensing.memory import refuse_too_large
from lensing.model.run import Model
from lensing.shards import row_dtype

HELD_BYTES = 1 << 30  # a shard of all sites together, which is made in memory


@dataclass(frozen=True, eq=False)
class Plan:
    """What `store.json` says, the text as token ids, and the pieces that make up each shard."""

    manifest: Manifest
    pieces: Pieces
    members: list[np.ndarray]

    def token_rows(self, number: int) -> dict[str, Tensor]:
        """Token id, document and position in its piece of each row of a shard."""
        pieces, members = self.pieces, self.members[number]
        ids = np.concatenate([pieces[member] for member in members])
        lengths = pieces.offsets[members + 1] - pieces.offsets[members]
        position = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
        kept = ~np.isin(ids, [] if self.manifest.special["included"] else self.manifest.special["ids"])
        document = np.repeat(pieces.parents[members], lengths)
        columns = {"ids": ids, "doc": document, "pos": position}
        return {name: torch.from_numpy(column[kept]) for name, column in columns.items()}


def plan_harvest(
    model: Model,
    text: str | Path | Text | Iterable[str | Sequence[int]],
    *,
    sites: str | Sequence[str],
    tokens: int | None,
    dtype: str,
    seed: int,
    held_out: float,
    context: int | None,
    batch_tokens: int,
    shuffle_rows: int | None,
    shard_rows: int | None,
    include_special: bool,
    field: str,
    skip_bad: bool,
) -> Plan:
    """Read the text and lay out every shard; the arguments are those of `harvest`."""
    if model.edited:
        raise UsageError("The model is under an edit, which a store cannot record. Harvest outside of model.edit.")
    names = [site.name for site in model.resolve_all(sites)]
    if not names:
        raise SiteError("A harvest needs at least one site. Give sites='mlp_out.2', say.")
    for name, value in {"tokens": tokens, "shuffle_rows": shuffle_rows, "shard_rows": shard_rows}.items():
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}. Give a positive number.")
    if batch_tokens < 1 or not 0 <= held_out < 1:
        raise UsageError(f"batch_tokens {batch_tokens}, held_out {held_out}: give at least 1, and 0 to below 1.")
    itemsize = row_dtype(dtype).itemsize
    if isinstance(text, str | Path):
        text = Text(text, field=field, skip_bad=skip_bad)
    widths = row_widths(model, names)
    pieces = read_pieces(model, text, context=context, rows=tokens, keep_special=include_special)
    train, held, n = split_pieces(pieces.parents, pieces.documents, seed, held_out)
    if not pieces.rows[train].sum():
        raise TrainingError(f"{pieces.documents} documents leave no rows to train on. Give more documents.")
    shuffle_rows = shuffle_rows or default_shuffle_rows(max(widths.values()))
    fits = max(HELD_BYTES // (sum(widths.values()) * itemsize), 1)
    if shard_rows is None and fits < shuffle_rows:
        shard_rows = fits
    everything = sum(widths.values()) * 4
    refuse_too_large(f"A pass of {batch_tokens:,} tokens", batch_tokens * everything, "Give a smaller --batch-tokens.")
    members, mixed = cut_shards(train, pieces.rows, seed, shuffle_rows, shard_rows)
    held_parts = -(-int(pieces.rows[held].sum()) // (shard_rows or shuffle_rows))
    held_shards = cut(held, pieces.rows, max(held_parts, 1))
    most = max(row_counts([*members, *held_shards], pieces.rows))
    refuse_too_large(
        f"A shard of {most:,} rows", 2 * most * sum(widths.values()) * itemsize, "Give fewer --shard-rows."
    )
    digest = pieces.digest()
    manifest = Manifest(
        model={
            "name": model.name, "revision": getattr(model.hf.config, "_commit_hash", None),
            "weights": weights_digest(model), "dtype": str(model.dtype).removeprefix("torch."),
        },
        tokenizer=tokenizer_digest(model),
        text={
            "source": text.name if isinstance(text, Text) else f"documents/{digest}", "digest": digest,
            "documents": pieces.documents, "held_out_documents": n,
            "skipped": text.skipped if isinstance(text, Text) else 0,
        },
        seed=seed, context=context or model.context, batch_tokens=batch_tokens,
        special={"included": include_special, "ids": [] if model.bos_id is None else [model.bos_id]},
        sites={name: {"width": widths[name], "dtype": dtype} for name in names},
        mixed=mixed, train_shards=row_counts(members, pieces.rows),
        held_out_shards=row_counts(held_shards, pieces.rows),
    )  # fmt: skip
    return Plan(manifest, pieces, [*members, *held_shards])
