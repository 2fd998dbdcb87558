"""What does a store cost: memory that grows with the text, time beside the plain forward pass, time of a training step?

Each line is a ratio:
  memory    peak memory of a harvest of ten times the tokens over that of one time, in processes of their own; beside it
            the growth in bytes for each byte stored (limit 1.05: a harvest of any length fits where a short one does)
  forward   GPT-2's shape, one middle site: tokens a second of a whole harvest (plan, rounding, statistics, hashing,
            disk) over those of the plain forward passes that stop after the same site, on the same groups of documents
            (limit 0.9); what stopping there gains over the whole passes stands beside it, and so does the ratio for a
            model of two million weights and two sites, whose passes take no longer than the handling of their rows
  read      bytes a second of the store's shards into memory over those of reading the same files plainly, both from the
            page cache (limit 0.7); beside it the first reading, which also compares every file with its hash, and
            shuffled float32 rows ready for a step
  reading   share of the training steps of a dictionary of 16,384 latents that waits for the store (limit 0.1), beside
            that of one of 1,024 latents, whose steps are a tenth as long

    python benchmarks/harvest.py            200,000 tokens and 2,000,000; about fifteen minutes on one core
    python benchmarks/harvest.py --quick    4,000 tokens and 40,000, a small model; limits are not judged
    python benchmarks/harvest.py --only read forward
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import lensing as ln
from lensing.config import versions
from lensing.data.forward import group_by_length
from lensing.data.pieces import read_pieces
from lensing.data.rows import Rows
from lensing.data.store import Store
from lensing.model.run import Model

GPT2 = {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
SMALL = {"n_layer": 4, "n_embd": 64, "n_head": 4, "vocab_size": 1001, "n_positions": 256}
SITES, LENGTH = ["mlp_out.2", "resid_post.4"], 128
LIMITS = {"memory": 1.05, "forward": 0.9, "read": 0.7, "reading": 0.1}
HIGHER = ("forward", "read")  # ratios that are to be above their limit
TIMES, READ_BYTES = 3, 1 << 30


def documents(tokens: int) -> Iterator[list[int]]:
    """Random documents of the shipped model's words, made one at a time: not the text but its handling is measured."""
    draw = np.random.default_rng(0)
    for _ in range(-(-tokens // LENGTH)):
        yield draw.integers(4, 1000, size=int(draw.integers(LENGTH // 2, 3 * LENGTH // 2))).tolist()


def harvest(tokens: int, out: Path, shard_rows: int) -> Store:
    """Store about `tokens` rows of two sites of the shipped model."""
    model = ln.load_model("almanac", device="cpu")
    return ln.harvest(
        model, documents(tokens), sites=SITES, out=out, shuffle_rows=shard_rows, shard_rows=shard_rows, quiet=True
    )


def peak_bytes(tokens: int, out: Path, shard_rows: int) -> int:
    """Harvest in a process of its own and return its largest resident size."""
    call = [sys.executable, __file__, "--child", str(tokens), str(out), str(shard_rows)]
    return int(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def child(tokens: int, out: Path, shard_rows: int) -> None:
    """Harvest, and print the largest resident size of this process in bytes."""
    torch.set_num_threads(1)
    harvest(tokens, out, shard_rows)
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def memory(tokens: int, work: Path) -> dict[str, float]:
    """Peak memory at ten times the tokens over that at one time."""
    shard_rows = tokens // 2
    one, ten = (peak_bytes(n, work / f"memory{n}", shard_rows) for n in (tokens, 10 * tokens))
    stored = [ln.open_store(work / f"memory{n}").to_json()["bytes"] for n in (tokens, 10 * tokens)]
    return {"ratio": ten / one, "one_mb": one / 1e6, "ten_mb": ten / 1e6,
            "growth_a_byte_stored": (ten - one) / (stored[1] - stored[0])}  # fmt: skip


def forward(tokens: int, work: Path) -> dict[str, float]:
    """Tokens a second of a harvest over those of the forward pass alone, on GPT-2's shape and on a tiny model."""
    quick = tokens < 100_000
    shape = SMALL if quick else GPT2
    special = dict.fromkeys(["bos_token_id", "eos_token_id"], shape["vocab_size"] - 1)
    torch.manual_seed(0)
    hf = GPT2LMHeadModel(GPT2Config(**shape, **special)).eval().requires_grad_(False)
    large = handling(Model(hf, None), [f"resid_post.{shape['n_layer'] // 2}"], tokens // 40, work / "large")
    small = handling(ln.load_model("almanac", device="cpu"), SITES, tokens // 10, work / "small")
    return {**large, "tiny_ratio": small["ratio"], "tiny_harvest_tokens_s": small["harvest_tokens_s"]}


def handling(model: Model, sites: list[str], tokens: int, work: Path) -> dict[str, float]:
    """Seconds of the passes, whole and stopped, and of a harvest; the best of several of each, by turns."""
    best = dict.fromkeys(("harvest", "forward", "whole"), math.inf)
    pieces = read_pieces(model, documents(tokens))
    groups = [[pieces[i].tolist() for i in group] for group in group_by_length(list(map(len, pieces)), 4096)]
    prompts = [model.encode(group) for group in groups]
    rows = 0

    def lasted(name: str, began: float) -> None:
        best[name] = min(best[name], time.perf_counter() - began)

    for turn in range(TIMES):
        for name, stop in (("forward", True), ("whole", False)):
            began = time.perf_counter()
            with torch.no_grad():
                for prompt in prompts:
                    model.run_with_cache(prompt, sites=sites, stop=stop)
            lasted(name, began)
        began = time.perf_counter()
        store = ln.harvest(model, documents(tokens), sites=sites, out=work / str(turn), quiet=True)
        lasted("harvest", began)
        rows = sum(store.manifest.shards)
    return {"ratio": best["forward"] / best["harvest"], "stopping_gains": best["whole"] / best["forward"],
            "harvest_tokens_s": rows / best["harvest"], "forward_tokens_s": rows / best["forward"]}  # fmt: skip


def read(tokens: int, work: Path) -> dict[str, float]:
    """Bytes a second from the page cache by the store's reader, over those of reading the files plainly."""
    width = 768
    rows = min(READ_BYTES, 2000 * tokens) // (2 * width)
    special = {"bos_token_id": 1, "eos_token_id": 1}
    shape = {"n_layer": 1, "n_embd": width, "n_head": 1, "vocab_size": 1000, "n_positions": 256}
    model = Model(GPT2LMHeadModel(GPT2Config(**shape, **special)).eval().requires_grad_(False), None)
    out, shard = work / "read", max(rows // 8, 1)
    ln.harvest(
        model, documents(rows), sites="resid_pre.0", out=out, shuffle_rows=2 * shard, shard_rows=shard, quiet=True
    )
    best = dict.fromkeys(("plain", "store", "first", "rows"), math.inf)
    size = 0
    for _ in range(TIMES):
        store = ln.open_store(out)
        manifest = store.manifest
        pools = dict.fromkeys(pool for pool, _ in itertools.islice(manifest.order.visits(0), len(manifest.shards)))
        files = [manifest.path(out, "resid_pre.0", shard) for pool in pools for shard in pool.shards]
        size = sum(file.stat().st_size for file in files)
        for name in ("plain", "first", "store", "rows"):
            began = time.perf_counter()
            if name == "plain":
                for file in files:
                    np.fromfile(file, dtype=np.uint8)
            elif name == "rows":
                for _, _batch in zip(range(store.rows // 4096), store.batches(4096), strict=False):
                    pass
            else:
                for pool in pools:
                    store._read(pool)
            best[name] = min(best[name], time.perf_counter() - began)
    return {"ratio": best["plain"] / best["store"], "first_ratio": best["plain"] / best["first"],
            "plain_gb_s": size / best["plain"] / 1e9, "store_gb_s": size / best["store"] / 1e9,
            "first_gb_s": size / best["first"] / 1e9, "shuffled_rows_s": store.rows / best["rows"]}  # fmt: skip


class Timed(Rows):
    """A source that counts the seconds in which training waits for it."""

    def __init__(self, source: Rows) -> None:
        self.source, self.waited = source, 0.0
        self.corpus, self.model_name, self.sites = source.corpus, source.model_name, source.sites
        self.documents, self.held_out_documents = source.documents, source.held_out_documents

    @property
    def rows(self) -> int:
        """Training rows of one epoch."""
        return self.source.rows

    def batches(self, batch: int, *, start: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the source's batches."""
        stream = self.source.batches(batch, start=start)
        while True:
            began = time.perf_counter()
            rows = next(stream)
            self.waited += time.perf_counter() - began
            yield rows

    def held_out(self, max_rows: int) -> Iterator[dict[str, Any]]:
        """Yield the source's held-out rows."""
        return self.source.held_out(max_rows)

    def fingerprint(self) -> dict[str, Any]:
        """The source's."""
        return self.source.fingerprint()


def reading(tokens: int, work: Path) -> dict[str, float]:
    """Share of training that waits for the store."""
    store, batch = harvest(tokens, work / "reading", tokens // 4), min(2048, tokens // 8)
    source, found = Timed(store.select(SITES[0])), {}
    for width, rows in {1024: 2 * tokens, 16_384: tokens // 2}.items():
        next(source.batches(64))  # the first read of a file is the disk's, not the reader's
        source.waited = 0.0
        report = ln.train(source, ln.TopK(width=width, k=16), tokens=rows, batch=batch, quiet=True).report
        found[width] = source.waited / report.seconds
        each = {"wait_ms": 1e3 * source.waited / report.steps, "step_ms": 1e3 * report.seconds / report.steps}
    return {"ratio": found[16_384], "ratio_1024": found[1024], **each}


def main() -> int:
    """Print a line for each question; return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the tokens, limits not judged")
    parser.add_argument("--only", nargs="+", choices=list(LIMITS), help="some of the lines")
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokens, found, missed = 4_000 if options.quick else 200_000, {}, False
    with tempfile.TemporaryDirectory() as folder:
        for name, measure in {"memory": memory, "forward": forward, "read": read, "reading": reading}.items():
            if options.only and name not in options.only:
                continue
            found[name] = measure(tokens, Path(folder))
            ratio, limit = found[name]["ratio"], LIMITS[name]
            missed |= ratio < limit if name in HIGHER else ratio > limit
            more = ", ".join(f"{key} {value:,.4g}" for key, value in found[name].items() if key != "ratio")
            print(f"{name:8} {ratio:6.3f}, limit {limit}   ({more})", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps({"tokens": tokens, "measured": found, "versions": versions()}, indent=1))
    return int(missed and not options.quick)


if __name__ == "__main__":
    if "--child" in sys.argv:
        child(int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        sys.exit(main())
