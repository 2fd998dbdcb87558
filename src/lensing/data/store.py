"""A store: activations on disk, read back as a shuffled stream of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lensing.data.manifest import STATS, TOKENS, read_manifest, read_stats
from lensing.data.moments import Moments
from lensing.data.order import Pool, deal
from lensing.data.rows import Rows
from lensing.errors import FileFormatError, UnknownNameError
from lensing.memory import refuse_too_large
from lensing.shards import MEND, ROW_DTYPES, read_tensor, room, whole_hash


def open_store(folder: str | Path, *, sites: str | Sequence[str] | None = None) -> Store:
    """Open a finished harvest as a source of rows of some of its sites (None: all); only their bytes are read.

    Raises: UsageError: the folder is no store, or has no such site. FileFormatError: it is not finished, or broken.
    """
    return Store(folder, sites=[sites] if isinstance(sites, str) else sites)


@final
class Store(Rows):
    """Rows on disk, in an order that depends on the store's seed alone; held-out documents lie in shards of their own.

    Some consecutive shards are read whole and mixed in memory while the next ones are read. Any row number can be
    reached without reading what comes before the shards that it is mixed with. A file's hash is compared with that in
    `stats.json` when it is read whole for the first time.
    """

    def __init__(self, folder: str | Path, *, sites: Sequence[str] | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self.sites = tuple(self.manifest.sites) if sites is None else tuple(dict.fromkeys(sites))
        for site in self.sites:
            if site not in self.manifest.sites:
                raise UnknownNameError("stored site", site, self.manifest.sites)
        self._hashes: dict[Path, str] = {}  # of the files that were not read yet
        for what in (TOKENS, *self.sites):
            stats = read_stats(self.folder, self.manifest, what)
            path = self.folder / self.manifest.folders[what] / STATS
            if stats is None:
                raise FileFormatError(f"{path} is missing or broken: the harvest was not finished. {MEND}")
            self._hashes |= {path.with_name(name): digest for name, digest in stats["sha256"].items()}
        self.model_name: str | None = self.manifest.model["name"]
        self.corpus = self.manifest.text["source"]
        self.documents = self.manifest.text["documents"]
        self.held_out_documents = self.manifest.text["held_out_documents"]

    def __repr__(self) -> str:
        return f"Store({str(self.folder)!r}, rows={self.rows:,}, sites={list(self.sites)})"

    def select(self, sites: str | Sequence[str]) -> Store:
        """Return the same store with fewer sites to read."""
        return open_store(self.folder, sites=sites)

    @property
    def rows(self) -> int:
        """Training rows of one epoch."""
        return self.manifest.order.rows

    def fingerprint(self) -> dict[str, Any]:
        """All of `store.json`, and the sites that are read."""
        return {**json.loads(json.dumps(self.manifest.to_json())), "read": list(self.sites)}

    def batches(self, batch: int, *, start: int = 0) -> Iterator[dict[str, Float[Tensor, "batch d_in"]]]:
        """Yield float32 batches for ever, epoch after epoch; a batch may span two pools of shards.

        Raises FileFormatError where a shard is missing, cut off or changed.
        """
        widest = max((pool.rows for pool in self.manifest.order.pools(0)), default=0)
        refuse_too_large(
            f"Mixing {widest:,} rows of {self.folder}", 2 * widest * sum(map(self.manifest.row_bytes, self.sites)),
            "Read fewer sites at a time, or harvest again with a smaller --shuffle-rows.",
        )  # fmt: skip
        return deal(self.manifest.order, self._ahead(start), batch)

    def held_out(self, max_rows: int) -> Iterator[dict[str, Float[Tensor, "batch d_in"]]]:
        """Yield the rows of held-out documents, whole documents until `max_rows` are reached, a shard at a time."""
        left = max_rows
        for number in range(len(self.manifest.train_shards), len(self.manifest.shards)):
            if left <= 0:
                return
            starts = self._starts(number)
            # up to the end of the document in which the last row wanted stands
            take = int(starts[starts >= left][0]) if (starts >= left).any() else self.manifest.shards[number]
            yield {site: self.shard(site, number)[:take].float() for site in self.sites}
            left -= take

    def held_out_tokens(self, max_tokens: int) -> list[list[int]]:
        """Token ids of held-out documents as they were fed to the model, at most `max_tokens` in all."""
        found: list[list[int]] = []
        total = 0
        for number in range(len(self.manifest.train_shards), len(self.manifest.shards)):
            for document in self._documents(number):
                total += len(document)
                if total > max_tokens and found:
                    return found
                found.append(document)
        return found

    def shard(self, site: str, number: int) -> Shaped[Tensor, "row d_in"]:
        """Return the rows of one shard in the order of their documents, as they are stored."""
        path = self.manifest.path(self.folder, site, number)
        rows = read_tensor(path, "x")
        self._compare(path, {"x": rows})
        return rows

    def tokens(self, number: int) -> dict[str, Shaped[Tensor, " row"]]:
        """Return `ids`, `doc` (number of the document in the text) and `pos` (in the model's context) of a shard."""
        path = self.manifest.path(self.folder, TOKENS, number)
        found = {name: read_tensor(path, name) for name in ("ids", "doc", "pos")}
        self._compare(path, found)
        return found

    def moments(self, site: str) -> Moments:
        """Return mean and variance of all rows of a site, held-out ones included."""
        record = read_stats(self.folder, self.manifest, site)
        try:
            return Moments.from_json(record or {})
        except (KeyError, TypeError, ValueError) as error:
            path = self.folder / self.manifest.folders[site] / STATS
            raise FileFormatError(f"{path} is not what lensing writes: {error!r}. {MEND}") from error

    def to_json(self) -> dict[str, Any]:
        """Return folder, rows, bytes and what `store.json` says, without the list of shards."""
        record = {k: v for k, v in self.manifest.to_json().items() if not k.endswith("_shards")}
        held, shards = sum(self.manifest.held_out_shards), self.manifest.shards
        size = sum(shards) * sum(self.manifest.row_bytes(what) for what in (TOKENS, *self.sites))
        sizes = {"rows": self.rows, "held_out_rows": held, "shards": len(shards), "bytes": size}
        return {"folder": str(self.folder), **sizes, **record}

    def _ahead(self, start: int) -> Iterator[tuple[Pool, int, dict[str, Tensor]]]:
        visits = self.manifest.order.visits(start)
        with ThreadPoolExecutor(1) as reader:
            pool, skip = next(visits)
            coming = reader.submit(self._read, pool)
            while True:
                rows, here, skipped = coming.result(), pool, skip
                pool, skip = next(visits)
                if pool.shards != here.shards:
                    coming = reader.submit(self._read, pool)
                yield here, skipped, rows
                del rows  # two pools are held at a time, never three

    def _read(self, pool: Pool) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        with ThreadPoolExecutor(1) as beside:
            compared = []
            for site in self.sites:
                about = self.manifest.sites[site]
                rows = found[site] = room((pool.rows, about["width"]), ROW_DTYPES[about["dtype"]])
                place = 0
                for shard in pool.shards:
                    path, n = self.manifest.path(self.folder, site, shard), self.manifest.train_shards[shard]
                    read_tensor(path, "x", out=rows[place : place + n])
                    compared.append(beside.submit(self._compare, path, {"x": rows[place : place + n]}))
                    place += n
            for each in compared:
                each.result()
        return found

    def _compare(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        # once for each file: flipped bits are numbers like any other, and a training would learn from them
        digest = self._hashes.get(path)
        if digest is not None and whole_hash(path, tensors) != digest:
            raise FileFormatError(f"{path} has changed: its hash is not the one in {STATS}. {MEND}")
        self._hashes.pop(path, None)

    def _starts(self, number: int) -> np.ndarray:
        """Rows of a shard at which a piece begins, and its end."""
        tokens = {name: tensor.numpy() for name, tensor in self.tokens(number).items()}
        begins = np.diff(tokens["doc"], prepend=-1) != 0
        begins[1:] |= np.diff(tokens["pos"]) <= 0
        return np.append(np.flatnonzero(begins), len(begins))

    def _documents(self, number: int) -> Iterator[list[int]]:
        tokens, starts = self.tokens(number), self._starts(number)
        special = self.manifest.special["ids"]
        for begin, end in pairwise(starts.tolist()):
            pos = tokens["pos"][begin:end]
            # what has no row was a special token: there is only one kind
            document = torch.full((int(pos[-1]) + 1,), special[0] if special else 0, dtype=torch.int32)
            document[pos.long()] = tokens["ids"][begin:end]
            yield document.tolist()
