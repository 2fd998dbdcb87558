"""How fast is a training step, against the peers' and against what no step can avoid; and how good is what comes out?

Quality is the job of `quality_vs_peers.py`, which the same run calls (its tables come after those of speed).

Speed: batches of 4,096 rows of a sparse mixture, 16 latents per input dimension, k = 32 (L1 and JumpReLU: an L0 near
50), every tool's own step with its loss, backward, clipping, optimiser and statistics; no model, no reader. Every tool
runs in an interpreter of its own, the runs take turns, and figures are CPU seconds a step: the median of the runs'
medians. "share" is the time of one bfloat16 encoder product and one selection, measured in the same run, over the
step's. Memory is the peak above the process's size after imports and data.

    python benchmarks/train_vs_peers.py --saelens PYTHON --sparsify PYTHON --dictionary-learning PYTHON
    python benchmarks/train_vs_peers.py --only speed --sizes 256 --runs 1      ours alone, quickly

Limits: TopK at least 8 times as fast as SAELens, 4.5 times its bf16, 2.5 times sparsify, 3 times dictionary_learning's
bf16; AuxK with half of the latents dead adds at most 30%; BatchTopK, Matryoshka, JumpReLU and L1 at least 4 times the
fastest peer that has them; memory at most 0.6 of the leanest peer's. No GPU figure is in this table.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BATCH, PER_DIMENSION, POOL, WARM = 4096, 16, 8, 3
KINDS = ("TopK", "TopK + AuxK", "BatchTopK", "Matryoshka", "JumpReLU", "L1")
PEERS = {
    "SAELens": (*KINDS, "TopK bf16", "L1 bf16"),
    "sparsify": ("TopK", "TopK + AuxK"),
    "dictionary_learning": (*KINDS, "TopK bf16"),
}
FLOORS = ("product and selection", "five float32 products")
LIMITS = {
    ("TopK", "SAELens TopK"): 8.0, ("TopK", "SAELens TopK bf16"): 4.5, ("TopK", "sparsify TopK"): 2.5,
    ("TopK", "dictionary_learning TopK bf16"): 3.0,
}  # fmt: skip


def child(name: str, d_in: int, threads: int, steps: int) -> None:
    """Run one tool in this process and print its figures as JSON."""
    import torch

    sys.path.insert(0, str(Path(__file__).parent))
    import _steppers as steppers

    torch.set_num_threads(threads)
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(2 * d_in, d_in, generator=g), dim=1)
    pool = []
    for _ in range(POOL):
        on = torch.rand(BATCH, 2 * d_in, generator=g) < 16 / (2 * d_in)
        noise = 0.05 * torch.randn(BATCH, d_in, generator=g)
        pool.append((on * torch.rand(BATCH, 2 * d_in, generator=g)) @ directions + noise)
    make = steppers.floor if name in FLOORS else steppers.stepper
    small = pool[0][:64, :32].contiguous()
    make(name, 32, 512, small)(small)  # imports, and the libraries' own buffers, are not the job's memory
    before = _resident()
    step = make(name, d_in, PER_DIMENSION * d_in, pool[0])
    cpu, wall = [], []
    for i in range(WARM + steps):
        began, began_wall = time.process_time(), time.perf_counter()
        step(pool[i % POOL])
        cpu.append(time.process_time() - began)
        wall.append(time.perf_counter() - began_wall)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu": statistics.median(cpu[WARM:]), "wall": statistics.median(wall[WARM:]),
                      "megabytes": peak - before}))  # fmt: skip


def _resident() -> float:
    # megabytes of this process now
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(python: str, name: str, d_in: int, threads: int, steps: int) -> dict[str, float] | None:
    """One run in an interpreter of its own; None when the tool cannot run the job."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [
        python,
        __file__,
        "--child",
        name,
        "--sizes",
        str(d_in),
        "--threads",
        str(threads),
        "--steps",
        str(steps),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        print(f"    {name} could not run: {done.stderr.strip().splitlines()[-1] if done.stderr else '?'}", flush=True)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(d_in: int, threads: int, found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Print one size's table and return its rows."""
    mid = {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()}
    least, dense = mid[FLOORS[0]]["cpu"], mid[FLOORS[1]]["cpu"]
    print(f"\nd_in {d_in}, d_sae {PER_DIMENSION * d_in}, {threads} thread{'s' * (threads > 1)}")
    print(f"{'':34} {'CPU s/step':>10} {'min':>7} {'max':>7} {'rows/CPU-s':>10} {'share':>6} {'x dense':>8} {'MB':>6}")
    rows = []
    for name in sorted(mid, key=lambda name: mid[name]["cpu"]):
        cpu, all_ = mid[name]["cpu"], [run["cpu"] for run in found[name]]
        print(
            f"{name:34} {cpu:10.3f} {min(all_):7.3f} {max(all_):7.3f} {BATCH / cpu:10,.0f} {least / cpu:6.2f} "
            f"{dense / cpu:8.2f} {mid[name]['megabytes']:6.0f}"
        )
        rows.append({"d_in": d_in, "threads": threads, "name": name, **mid[name], "share": least / cpu})
    return rows


def judge(mid: dict[str, dict[str, Any]]) -> list[str]:
    """Print every limit with the ratio reached; return those that were missed."""
    missed = []

    def say(what: str, ratio: float, limit: float, *, at_least: bool = True) -> None:
        good = ratio >= limit if at_least else ratio <= limit
        print(f"    {'met   ' if good else 'MISSED'} {what}: {ratio:.2f} (limit {limit:g})")
        if not good:
            missed.append(what)

    for (kind, peer), limit in LIMITS.items():
        if peer in mid and f"lensing {kind}" in mid:
            say(f"{kind} against {peer}", mid[peer]["cpu"] / mid[f"lensing {kind}"]["cpu"], limit)
    if "lensing TopK + AuxK" in mid:
        say(
            "AuxK's extra time", mid["lensing TopK + AuxK"]["cpu"] / mid["lensing TopK"]["cpu"] - 1, 0.3, at_least=False
        )
    for kind in ("BatchTopK", "Matryoshka", "JumpReLU", "L1"):
        peers = [v for name, v in mid.items() if not name.startswith("lensing") and name.split(" ")[1:2] == [kind]]
        if peers and f"lensing {kind}" in mid:
            say(f"{kind} against the fastest peer", min(p["cpu"] for p in peers) / mid[f"lensing {kind}"]["cpu"], 4.0)
    for kind in KINDS:
        peers = [v for name, v in mid.items() if name in {f"{peer} {kind}" for peer in PEERS}]
        if peers:
            lean = min(p["megabytes"] for p in peers)
            say(f"memory of {kind}", mid[f"lensing {kind}"]["megabytes"] / lean, 0.6, at_least=False)
    return missed


def main() -> int:
    """Print the tables; return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saelens", help="interpreter with sae-lens")
    parser.add_argument("--sparsify", help="interpreter with eai-sparsify")
    parser.add_argument("--dictionary-learning", help="interpreter with dictionary-learning")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 768])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of the speeds")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--only", choices=["speed", "quality"], help="one of the two jobs; both if not given")
    parser.add_argument(
        "--folder", type=Path, default=Path("quality"), help="where quality keeps its cells (%(default)s)"
    )
    parser.add_argument("--out", type=Path, help="also write the tables as JSON to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.sizes[0], options.threads[0], options.steps)
        return 0
    pythons = {
        "SAELens": options.saelens,
        "sparsify": options.sparsify,
        "dictionary_learning": options.dictionary_learning,
    }
    names = [(sys.executable, f"lensing {kind}") for kind in (*options.kinds, "TopK float32")]
    names += [(sys.executable, name) for name in FLOORS]
    names += [
        (pythons[tool], f"{tool} {kind}")
        for tool, kinds in PEERS.items()
        if pythons[tool]
        for kind in kinds
        if kind.removesuffix(" bf16") in options.kinds
    ]
    record, missed = [], []
    for d_in in options.sizes if options.only != "quality" else ():
        for threads in options.threads:
            found: dict[str, list[dict[str, float]]] = {}
            for run in range(options.runs):
                for python, name in names:
                    print(f"  {d_in} {threads} run {run + 1} {name}", file=sys.stderr, flush=True)
                    if (result := measure(python, name, d_in, threads, options.steps)) is not None:
                        found.setdefault(name, []).append(result)
            rows = table(d_in, threads, found)
            missed += judge({row["name"]: row for row in rows})
            record += rows
    if options.out:
        options.out.write_text(json.dumps({"rows": record, "missed": missed}, indent=1) + "\n")
    if options.only != "speed":
        from quality_vs_peers import JOBS, KSPARSE, PENALISED, compare

        tools = {"lensing": sys.executable} | {tool: pythons[tool] for tool in ("SAELens", "dictionary_learning")}
        missed += compare(
            tools, options.folder, kinds=[*KSPARSE, *PENALISED], data=list(JOBS), seeds=3, workers=2,
            out=options.out and options.out.with_suffix(".quality.json"),
        )  # fmt: skip
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
