"""Do our dictionaries find and rebuild as much as those of SAELens and dictionary_learning, step for step?

Every tool trains with its own trainer, in an interpreter of its own, on the same rows in the same batches for the same
number of steps, and is scored by the same numpy code (`_quality_score.py`; what each trainer is given stands in
`_quality_trainers.py`). Three things are looked at:

- planted rows (`lensing.toy.planted`: d_in 48, 256 sparse features, a dense subspace, circles, noise): features
  recovered (cosine above 0.9), MCC and F1 of matched pairs, FVU, L0, dead latents, over three seeds (data, weights and
  order). Every architecture is brought to the same L0: by k, or by a search over its coefficient, numbers interpolated
  in log L0. Rates: on the first seed each tool runs at its own default (TopK kinds; those of penalised dictionaries,
  5e-5, are for runs a hundred times as long) and at 3e-3, and goes up or down by steps of three while its FVU falls; it
  goes on with its best rate.
  Limit: ours is better, or within two standard errors of the difference.
- rows of real models (`almanac`; stories260K where LENSING_TEST_DATA has it): FVU at three L0, each tool at each of
  them at its best rate, looked for from the one that was best on planted rows. Limit: FVU at most 1.01 of the peer's at
  the same L0.
- bfloat16 products against float32 ones. Limit: FVU changes by under 0.5%.

Each cell's result is a file in --folder: a run that was stopped goes on. About 200 CPU minutes for all of it.

    python benchmarks/quality_vs_peers.py --saelens PYTHON --dictionary-learning PYTHON --folder FOLDER
    python benchmarks/quality_vs_peers.py --seeds 1 --architectures TopK --data planted      ours alone, quickly
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _quality_score import NEAR, interpolate

import lensing as ln
from lensing.config import versions
from lensing.data.text import sample_documents
from lensing.toy.planted import Planted

KSPARSE, PENALISED = ("TopK", "BatchTopK", "Matryoshka"), ("L1", "Gated", "JumpReLU")
# A coefficient to begin the search with, and whether L0 falls when the setting rises.
START = {
    ("SAELens", "L1"): 2.0, ("SAELens", "Gated"): 2.0, ("SAELens", "JumpReLU"): 0.5,
    ("dictionary_learning", "L1"): 0.25, ("dictionary_learning", "Gated"): 0.3,
}  # fmt: skip
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
JOBS = {
    "planted": {"width": 256, "batch": 512, "steps": 1500, "targets": (10,)},
    "almanac": {"width": 512, "batch": 512, "steps": 2000, "targets": (8, 16, 32)},
    "stories260K": {"width": 256, "batch": 512, "steps": 2000, "targets": (4, 8, 16)},
}
SITES = {"almanac": "resid_post.2", "stories260K": "resid_post.2"}
POOL, TEST, TOKENS = 120_000, 20_000, 300_000
TRIES = 5  # cells of one search
BETTER = {"found": 1, "mcc": 1, "f1": 1, "fvu": -1}
Cell = dict[str, Any]


class Bench:
    """Cells, each run once in the interpreter of its tool, and kept in a folder."""

    def __init__(self, folder: Path, pythons: dict[str, str], workers: int) -> None:
        self.folder, self.pythons, self.workers = folder, pythons, workers
        (folder / "cells").mkdir(parents=True, exist_ok=True)

    def run(self, data: str, tool: str, kind: str, setting: float, lr: float | None, seed: int, **more: Any) -> Cell:
        """The result of one cell, from its file if there is one."""
        job, world = JOBS[data], f"{data}{seed if data == 'planted' else 0}"
        label = f"{data}_{tool}_{kind}_{setting:.6g}_{lr or 'own'}_{seed}_{job['steps']}" + "".join(
            f"_{v}" for v in more.values()
        )
        out = self.folder / "cells" / f"{label}.json"
        if not out.exists():
            cell = {key: job[key] for key in ("width", "batch", "steps")} | more | {
                "data": data, "tool": tool, "architecture": kind, "setting": setting, "lr": lr, "seed": seed,
                "rows": str(self.folder / f"{world}.rows.npy"), "test": str(self.folder / f"{world}.test.npy"),
                "truth": str(self.folder / f"{world}.truth.npz") if data == "planted" else None, "out": str(out),
            }  # fmt: skip
            script = Path(__file__).with_name("_quality_trainers.py")
            done = subprocess.run(
                [self.pythons[tool], str(script), json.dumps([cell])], capture_output=True, text=True, check=False,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            if done.returncode or not out.exists():
                sys.exit(f"{tool} {kind} could not run:\n{done.stderr[-3000:]}")
            print(f"  {label}", file=sys.stderr, flush=True)
        return json.loads(out.read_text())

    def curve(self, data: str, tool: str, kind: str, lr: float | None, seed: int, first: float | None) -> list[Cell]:
        """Cells whose L0 are at or around each target; `first` is a setting to begin a search with."""
        found: list[Cell] = []
        for target in JOBS[data]["targets"]:
            if kind in KSPARSE:
                found.append(self.run(data, tool, kind, target, lr, seed))
                continue
            setting = first if first is not None and not found else None
            aims = tool == "lensing" or (tool, kind) == ("dictionary_learning", "JumpReLU")
            for _ in range(TRIES):
                if setting is None:
                    start = target if aims else START[tool, kind]
                    setting = propose(found, target, 1.0 if aims else -1.0, start)
                cell = self.run(data, tool, kind, float(f"{setting:.4g}"), lr, seed)
                if not any(old["setting"] == cell["setting"] for old in found):
                    found.append(cell)
                if _reached([c for c in found if "fvu" in c], target):
                    break
                setting = None
        return [cell for cell in found if "fvu" in cell]

    def all(self, calls: Iterable[Callable[[], Any]]) -> list[Any]:
        """Results of several calls, some at a time."""
        with ThreadPoolExecutor(self.workers) as pool:
            return [future.result() for future in [pool.submit(call) for call in calls]]


def _reached(cells: list[Cell], target: float) -> bool:
    ratios = [cell["l0"] / target for cell in cells]
    close = any(abs(math.log(max(r, 1e-9))) < NEAR for r in ratios)
    return close or (any(0.75 < r <= 1 for r in ratios) and any(1 <= r < 1.33 for r in ratios))


def propose(cells: list[Cell], target: float, sign: float, start: float) -> float:
    """The next setting of a search: log L0 as a line in the log of the setting (slope `sign` with one point)."""
    points = sorted(
        {(math.log(c["setting"]), math.log(max(c["l0"], 0.05))) for c in cells if "fvu" in c},
        key=lambda p: abs(p[1] - math.log(target)),
    )[:2]
    if not points:
        return start
    slope = sign
    if len(points) == 2 and points[0][0] != points[1][0]:
        slope = (points[0][1] - points[1][1]) / (points[0][0] - points[1][0])
        slope = sign * min(max(abs(slope), 0.3), 3.0)
    return math.exp(points[0][0] + min(max((math.log(target) - points[0][1]) / slope, -1.6), 1.6))


# --- data ---


def make_rows(folder: Path, data: str, seeds: int) -> None:
    """Write training rows, test rows and truth, once."""
    if data == "planted":
        for seed in range(seeds):
            world = Planted(seed=seed)
            test = world.draw(TEST, seed=2)
            on = (test.codes.dense() > 0).numpy()
            _write(
                folder, f"{data}{seed}.truth.npz", lambda w=world, on=on: {"directions": w.directions.numpy(), "on": on}
            )
            _write(folder, f"{data}{seed}.rows.npy", lambda w=world: w.draw(POOL, seed=1).x.numpy())
            _write(folder, f"{data}{seed}.test.npy", lambda t=test: t.x.numpy())
        return
    if (folder / f"{data}0.test.npy").exists():
        return
    home = data if data == "almanac" else str(models() / data)
    model = ln.load_model(home)
    source = ln.live(model, sample_documents(model, TOKENS, seed=1), sites=SITES[data], held_out=0.08, seed=1)
    batches = source.batches(4096)
    rows = torch.cat([next(batches)[SITES[data]] for _ in range(source.rows // 4096)])
    test = torch.cat([part[SITES[data]] for part in source.held_out(TEST)])[:TEST]
    _write(folder, f"{data}0.rows.npy", rows.numpy)
    _write(folder, f"{data}0.test.npy", test.numpy)


def _write(folder: Path, name: str, make: Callable[[], Any]) -> None:
    path, part = folder / name, folder / f"part.{name}"
    if path.exists():
        return
    made = make()
    np.savez(part, **made) if isinstance(made, dict) else np.save(part, made)
    part.replace(path)


def models() -> Path:
    """The folder of models that are not shipped, in the test data."""
    return Path(os.environ.get("LENSING_TEST_DATA", Path(__file__).parents[2] / "shared")) / "models"


# --- what is compared ---


def planted(bench: Bench, kinds: list[str], seeds: int) -> list[Cell]:
    """One row for each architecture and tool: the numbers at the target L0, every seed's."""
    target = JOBS["planted"]["targets"][0]

    def one(tool: str, kind: str) -> Cell:
        curves: dict[float | None, list[Cell]] = {}
        at: dict[float | None, tuple[dict[str, float], bool]] = {}

        def worth(lr: float | None) -> tuple[bool, float]:
            # a rate whose L0 was not reached is only taken where none reached it
            if lr not in curves:
                curves[lr] = bench.curve("planted", tool, kind, lr, 0, None)
                if curves[lr]:
                    at[lr] = interpolate(curves[lr], target)
            return (not at[lr][1], at[lr][0]["fvu"]) if lr in at else (True, math.inf)

        best = climb(lambda place: worth(RATES[place]), len(RATES), RATES.index(3e-3))
        lr = min([RATES[best], *([None] if kind in KSPARSE else [])], key=worth)
        near = min(curves[lr], key=lambda c: abs(math.log(max(c["l0"], 1e-9) / target)))
        runs = [curves[lr]] + [bench.curve("planted", tool, kind, lr, s, near["setting"]) for s in range(1, seeds)]
        found = [interpolate(cells, target) for cells in runs]
        return {
            "data": "planted", "tool": tool, "architecture": kind, "lr": runs[0][0]["lr"], "target": target,
            "reached": all(ok for _, ok in found), "rates": {str(k): v[0]["fvu"] for k, v in at.items()},
            "seeds": [{key: numbers[key] for key in (*BETTER, "l0", "dead")} for numbers, _ in found],
            "seconds": statistics.median(cell["seconds"] for cells in runs for cell in cells), "asked": lr,
        }  # fmt: skip

    return bench.all([lambda tool=tool, kind=kind: one(tool, kind) for kind in kinds for tool in bench.pythons])


def real(bench: Bench, data: str, kinds: list[str], rates: dict[tuple[str, str], float | None]) -> list[Cell]:
    """One row for each architecture, tool and L0."""

    def one(tool: str, kind: str) -> list[Cell]:
        first = rates.get((tool, kind), 3e-3)
        curves: dict[float | None, list[Cell]] = {}

        def at(lr: float | None, target: int) -> tuple[dict[str, float], bool]:
            if lr not in curves:
                curves[lr] = bench.curve(data, tool, kind, lr, 0, None)
            return interpolate(curves[lr], target) if curves[lr] else ({"fvu": math.inf, "l0": 0.0}, False)

        def worth(lr: float | None, target: int) -> tuple[bool, float]:
            numbers, reached = at(lr, target)
            return kind not in KSPARSE and not reached, numbers["fvu"]

        found = []
        for target in JOBS[data]["targets"]:
            start = RATES.index(3e-3 if first is None else first)
            best = RATES[climb(lambda place, t=target: worth(RATES[place], t), len(RATES), start)]
            lr = min([best, *([None] if first is None else [])], key=lambda lr, t=target: worth(lr, t))
            numbers, reached = at(lr, target)
            found.append({"data": data, "tool": tool, "architecture": kind, "lr": curves[lr][0]["lr"],
                          "target": target, "numbers": numbers, "reached": reached})  # fmt: skip
        return found

    rows = bench.all([lambda tool=tool, kind=kind: one(tool, kind) for kind in kinds for tool in bench.pythons])
    return [row for some in rows for row in some]


def bfloat16(bench: Bench, data: list[str], seeds: int) -> list[Cell]:
    """FVU with bfloat16 and with float32 products, TopK and BatchTopK."""
    calls = []
    for name in data:
        k = JOBS[name]["targets"][len(JOBS[name]["targets"]) // 2]
        for kind in ("TopK", "BatchTopK"):
            for seed in range(seeds if name == "planted" else 1):
                pair = [
                    lambda p=p, name=name, kind=kind, seed=seed, k=k: bench.run(
                        name, "lensing", kind, k, 3e-3 if name == "planted" else 1e-3, seed, products=p
                    )
                    for p in ("float32", "bfloat16")
                ]
                calls.append(lambda pair=pair: [run() for run in pair])
    rows = []
    for exact, quick in bench.all(calls):
        change = quick["fvu"] / exact["fvu"] - 1
        rows.append({key: exact[key] for key in ("data", "architecture", "seed")} | {
            "float32": exact["fvu"], "bfloat16": quick["fvu"], "change": change,
        })  # fmt: skip
    return rows


def climb(worth: Callable[[int], tuple[bool, float]], n: int, start: int) -> int:
    """The place, of `n`, from which no step up or down is better, beginning at `start`; less is better."""
    place = start
    for step in (1, -1):
        while 0 <= place + step < n and worth(place + step) < worth(place):
            place += step
    return place


# --- what is printed ---


def mean_error(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error over seeds (0 with one seed)."""
    spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return statistics.fmean(values), spread


def show_planted(rows: list[Cell]) -> list[str]:
    """Print the table of planted rows; return what was missed."""
    print(f"\nplanted, {JOBS['planted']}, mean and standard error over {len(rows[0]['seeds'])} seeds")
    print(f"{'':31} {'rate':>8} {'found of 256':>14} {'MCC':>13} {'F1':>13} {'FVU':>15} {'L0':>6} {'dead':>6} {'s':>5}")
    missed = []
    for row in rows:
        cells = {key: mean_error([s[key] for s in row["seeds"]]) for key in row["seeds"][0]}
        print(
            f"{row['architecture']:11}{row['tool']:20} {row['lr']:8.2g}"
            f" {cells['found'][0]:8.1f} +-{cells['found'][1]:4.1f}"
            + "".join(f" {cells[key][0]:6.3f} +-{cells[key][1]:5.3f}" for key in ("mcc", "f1"))
            + f" {cells['fvu'][0]:7.4f} +-{cells['fvu'][1]:6.4f} {cells['l0'][0]:5.1f}{' ' if row['reached'] else '~'}"
            + f" {cells['dead'][0]:6.3f} {row['seconds']:5.0f}"
        )
    ours = {row["architecture"]: row for row in rows if row["tool"] == "lensing"}
    for row in rows:
        if row["tool"] == "lensing" or row["architecture"] not in ours:
            continue
        for key, sign in BETTER.items():
            a, b = ([s[key] for s in r["seeds"]] for r in (ours[row["architecture"]], row))
            (x, ex), (y, ey) = mean_error(a), mean_error(b)
            if sign * (x - y) < -2 * math.hypot(ex, ey):
                missed.append(f"planted {row['architecture']} {key} against {row['tool']}: {x:.4g} and {y:.4g}")
    return missed


def show_real(rows: list[Cell]) -> list[str]:
    """Print the table of one model's rows; return what was missed."""
    name = rows[0]["data"]
    print(f"\n{name} {SITES[name]}, {JOBS[name]}: FVU at each L0 (rate; ~: not reached)")
    table = {(row["architecture"], row["tool"], row["target"]): row for row in rows}
    targets, missed = sorted({row["target"] for row in rows}), []
    for kind, tool in dict.fromkeys((row["architecture"], row["tool"]) for row in rows):
        some = [table[kind, tool, target] for target in targets]
        print(f"{kind:11}{tool:20}" + "".join(
            f" {r['target']:4}: {r['numbers']['fvu']:.4f}{' ' if r['reached'] else '~'} ({r['lr']:.2g})" for r in some
        ))  # fmt: skip
        for row in some:
            mine = table[kind, "lensing", row["target"]]
            both = mine["reached"] and row["reached"]
            if both and mine["numbers"]["fvu"] > 1.01 * row["numbers"]["fvu"]:
                missed.append(
                    f"{row['data']} {kind} FVU at L0 {row['target']} against {tool}: "
                    f"{mine['numbers']['fvu']:.4f} and {row['numbers']['fvu']:.4f}"
                )
    return missed


def compare(
    pythons: dict[str, str | None], folder: Path, *, kinds: list[str], data: list[str], seeds: int, workers: int,
    out: Path | None = None,
) -> list[str]:  # fmt: skip
    """Run what is missing, print all tables, and return what was missed."""
    bench = Bench(folder, {tool: python for tool, python in pythons.items() if python}, workers)
    data = [name for name in data if name in ("planted", "almanac") or (models() / name).is_dir()]
    for name in data:
        make_rows(folder, name, seeds)
    record: list[Cell] = []
    missed: list[str] = []
    rates: dict[tuple[str, str], float | None] = {}
    if "planted" in data:
        rows = planted(bench, kinds, seeds)
        rates = {(row["tool"], row["architecture"]): row["asked"] for row in rows}
        missed += show_planted(rows)
        record += rows
    for name in data:
        if name != "planted":
            rows = real(bench, name, kinds, rates)
            missed += show_real(rows)
            record += rows
    halves = bfloat16(bench, [name for name in data if name != "stories260K"], seeds)
    print("\nbfloat16 products against float32 products")
    for row in halves:
        print(f"{row['data']:10} {row['architecture']:10} seed {row['seed']}: FVU {row['float32']:.5f} and "
              f"{row['bfloat16']:.5f}, {row['change']:+.3%}")  # fmt: skip
    for name, kind in dict.fromkeys((row["data"], row["architecture"]) for row in halves):
        change = statistics.fmean(r["change"] for r in halves if (r["data"], r["architecture"]) == (name, kind))
        if abs(change) >= 0.005:
            missed.append(f"bfloat16 {name} {kind}: {change:+.3%}")
    print("\n" + ("\n".join(f"MISSED {line}" for line in missed) if missed else "all limits met"), flush=True)
    if out is not None:
        out.write_text(
            json.dumps({"rows": record, "bfloat16": halves, "missed": missed, "versions": versions()}, indent=1)
        )
    return missed


def main() -> int:
    """Print the tables; return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saelens", help="interpreter with sae-lens")
    parser.add_argument("--dictionary-learning", help="interpreter with dictionary-learning")
    parser.add_argument(
        "--folder", type=Path, default=Path("quality"), help="rows and results of cells (default: %(default)s)"
    )
    parser.add_argument("--architectures", nargs="+", default=[*KSPARSE, *PENALISED], choices=[*KSPARSE, *PENALISED])
    parser.add_argument("--data", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="cells at a time, one thread each")
    parser.add_argument("--middle", action="store_true", help="of real models, the middle L0 alone")
    parser.add_argument("--out", type=Path, help="also write the tables as JSON to this file")
    options = parser.parse_args()
    for job in JOBS.values() if options.middle else ():
        job["targets"] = job["targets"][len(job["targets"]) // 2 :][:1]
    pythons = {
        "lensing": sys.executable, "SAELens": options.saelens, "dictionary_learning": options.dictionary_learning,
    }  # fmt: skip
    missed = compare(
        pythons, options.folder, kinds=options.architectures, data=options.data, seeds=options.seeds,
        workers=options.workers, out=options.out,
    )  # fmt: skip
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
