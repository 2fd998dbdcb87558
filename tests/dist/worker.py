"""What one of several processes does in the tests of many processes, and how they are started."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import lensing as ln
from lensing.data.rows import TensorRows
from lensing.dictionary.topk import TopKDictionary
from lensing.errors import Interrupted, LensingError, TrainingError, UsageError
from lensing.training.job import Job
from lensing.training.loop import train, train_many
from lensing.training.step import Trainer

STEPS, BATCH, D = 20, 120, 16
CONFIGS: dict[str, Any] = {
    "topk": ln.TopK(width=64, k=2, dead_after_tokens=120),
    "batchtopk": ln.BatchTopK(width=64, k=2, dead_after_tokens=120),
    "jumprelu": ln.JumpReLU(width=64, sparsity=0.02, threshold=0.05, bandwidth=0.05),
    # the rest once: penalties that are not linear in the rows, prefixes across the cut, norms, draws, parts of batches
    "quadratic": ln.JumpReLU(
        width=64, sparsity=0.02, l0=6, penalty="quadratic", frequency=0.1, threshold=0.05, bandwidth=0.05
    ),
    "tanh": ln.JumpReLU(width=64, sparsity=0.02, penalty="tanh", pre_act=0.0, threshold=0.05, bandwidth=0.05),
    "steered": ln.JumpReLU(width=64, l0=6, threshold=0.05, bandwidth=0.05),
    "matryoshka": ln.Matryoshka(width=64, k=2, prefixes=(5, 20, 40), dead_after_tokens=120),
    "relu": ln.ReLU(width=64, sparsity=0.05),
    "relu, resampled": ln.ReLU(width=64, sparsity=2.0, unit_rows=True, resample_every=5),
    "gated": ln.Gated(width=64, sparsity=0.05),
}
MAIN = ("topk", "batchtopk", "jumprelu")
ON_FOUR = (*MAIN, "matryoshka")


MANY: dict[str, Any] = {
    "tokens": STEPS * BATCH, "batch": BATCH, "quiet": True, "products": "float32", "held_out_rows": 500,
}  # fmt: skip


def several() -> dict[str, Job]:
    return {name: Job(config=CONFIGS[name], lr=3e-3) for name in MAIN}


def rows() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(40, D, generator=g, dtype=torch.float32), dim=1)
    active = (torch.rand(3000, 40, generator=g, dtype=torch.float32) < 0.05).float()
    return 1.5 * active @ directions + 0.05 * torch.randn(3000, D, generator=g, dtype=torch.float32) + 1


def go(
    name: str, dtype: torch.dtype, also: Callable[[Any], None] | None = None, **other: Any
) -> tuple[Any, list[list[float]]]:
    """Train 20 steps and return the dictionary and every step's numbers."""
    seen: list[list[float]] = []

    def see(r: Any) -> None:
        seen.append([r.fvu, r.aux, r.l0, r.dead, r.penalty])
        if also is not None:
            also(r)

    torch.set_default_dtype(dtype)
    try:
        setting = {"tokens": STEPS * BATCH, "batch": BATCH, "lr": 3e-3, "quiet": True, "products": "float32"}
        setting |= {"ema": 0.9 if name == "batchtopk" else None, "held_out_rows": 500}
        d = train(rows(), CONFIGS[name], callback=see, **(setting | other))
    finally:
        torch.set_default_dtype(torch.float32)
    return d, seen


def wiring(tp: int = 1) -> list[float]:
    """Losses in float64 of a skip transcoder, whose decoder begins at zero and whose W_skip is whole on every process,
    and of a crosscoder."""
    torch.set_default_dtype(torch.float64)
    x, losses = rows(), []
    source = TensorRows({"in": x, "out": torch.cat([x[:, :8] ** 2, x[:, 2:5]], 1)})
    for name, wired in (("topk", {"site": "in", "target": "out", "skip": True}), ("relu", {"site": "in+out"})):
        train(
            source, CONFIGS[name], **wired, tokens=STEPS * BATCH, batch=BATCH, lr=3e-3,
            quiet=True, products="float32", held_out_rows=100, tp=tp, callback=lambda r: losses.append(r.fvu),
        )  # fmt: skip
    torch.set_default_dtype(torch.float32)
    return losses


def ties(world: Any = None) -> list[list[list[int]]]:
    """Which latents are chosen among whole numbers, full of ties: [row, latent] of TopK and of BatchTopK."""
    from lensing.dictionary.select import batch_top_pattern
    from lensing.dictionary.spread import Edge, top_of_all
    from lensing.dist import ALONE

    w = world or ALONE
    g = torch.Generator().manual_seed(3)
    x, weight = (torch.randint(-2, 3, shape, generator=g).float() for shape in ((24, 4), (32, 4)))
    mine, here = w.latents.slice(32), w.data.slice(24)
    bias = torch.zeros(mine.stop - mine.start)
    top = top_of_all(x[here], weight[mine], bias, 5, w.latents)
    batch, _ = batch_top_pattern(x[here], weight[mine], bias, 5, edge=Edge(w) if world else None)
    found = []
    for p in (top, batch):
        place = torch.stack([p.row_of + here.start, p.index + mine.start], 1)
        found.append(sorted(torch.cat(w.team.gather(place)).tolist()))
    return found


def numbers(d: Any) -> dict[str, list[float]]:
    return {name: tensor.flatten().tolist() for name, tensor in d.state_dict().items()}


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, report: Any) -> None:
        if report.step == self.step and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), 10)  # SIGUSR1, on one process only


def training(folder: Path) -> dict[str, Any]:
    """Everything that is compared with one process; on `size` processes."""
    from lensing.dist import join_world

    size, found = int(os.environ["WORLD_SIZE"]), {}
    for tp in (1, 2) if size == 2 else (2,):
        for name in CONFIGS if size == 2 else ON_FOUR:
            d, found[f"{name} 64 {tp}"] = go(name, torch.float64, tp=tp)
            found[f"{name} end {tp}"] = numbers(d)
            if name in MAIN:
                found[f"{name} 32 {tp}"] = go(name, torch.float32, tp=tp)[1]
        found[f"skip {tp}"] = wiring(tp)
        found[f"ties {tp}"] = ties(join_world(tp=tp))
    if size == 4:
        return found
    # stopped by a signal to one process, with the latents split and with the rows split
    for tp in (1, 2):
        try:
            _stopped(folder / f"stopped{tp}", tp)
        except Interrupted as error:
            found[f"stopped {tp}"] = str(error)
    # what one process began
    found["continued"] = numbers(go("topk", torch.float64, tp=2, out=folder / "begun")[0])
    # whole dictionaries to processes
    jobs = several()
    many, stop = train_many(rows(), jobs, **MANY, out=folder / "many", teams=2), StopAt(8)
    found["team"] = sorted(many)
    try:
        train_many(rows(), jobs, **MANY, out=folder / "halves", teams=2, callback=lambda _, report: stop(report))
    except Interrupted as error:
        found["stopped team"] = str(error)
    found["sweep"], found["sweep, all failed"] = sweeping(folder / "sweep", teams=2)
    for tp, config in ((2, ln.TopK(width=63, k=4)), (2, ln.TopK(width=1, k=1)), (3, CONFIGS["topk"])):
        found[f"refused {config.width} {tp}"] = _refusal(lambda c=config, t=tp: train(rows(), c, tp=t, quiet=True))
    worked = ln.JumpReLU(width=64, sparsity=0.02, penalty="tanh")
    found["refused pre_act"] = _refusal(lambda: train(rows(), worked, quiet=True))
    sites = TensorRows({name: rows() for name in "abcd"})
    layers = Job(config=CONFIGS["topk"], site="a+b", target="c+d", cross_layer=True)
    found["refused cross-layer"] = _refusal(lambda: train_many(sites, {"": layers}, quiet=True))
    TopKDictionary.splits = False
    found["refused topk"] = _refusal(lambda: train(rows(), CONFIGS["topk"], quiet=True))
    TopKDictionary.splits = True
    return found


def sweeping(out: Path, *, teams: int) -> tuple[dict[str, Any], str]:
    """The table of a sweep whose second member, alone in its team where there are two, fails in step 4; and what a
    sweep says whose members all fail."""
    step, hopeless = Trainer.step, False

    def fail(self: Trainer, x: torch.Tensor, y: torch.Tensor | None = None) -> Any:
        if self.step_number == 3 and (hopeless or self.config.k == 3):
            raise TrainingError("The loss is nan.")
        return step(self, x, y)

    Trainer.step = fail  # type: ignore[method-assign]
    try:
        grid = {"architecture": "topk", "width": 64, "k": [2, 3, 4]}
        table = ln.sweep(rows(), grid, out=out, teams=teams, **MANY).to_json()
        hopeless = True
        try:
            ln.sweep(rows(), grid, out=out / "hopeless", teams=teams, **MANY)
        except TrainingError as error:
            return table, str(error)
        return table, "nothing failed"
    finally:
        Trainer.step = step  # type: ignore[method-assign]


def _refusal(call: Callable[[], Any]) -> str:
    try:
        call()
    except UsageError as error:
        return str(error)
    return "it was not refused"


def _stopped(out: Path, tp: int) -> None:
    torch.set_default_dtype(torch.float64)
    stop = StopAt(8)
    try:
        train(
            rows(), CONFIGS["topk"], tp=tp, out=out, tokens=STEPS * BATCH, batch=BATCH, lr=3e-3, quiet=True,
            products="float32", held_out_rows=500, checkpoint_minutes=0, callback=stop,
        )  # fmt: skip
    finally:
        torch.set_default_dtype(torch.float32)


def failing(folder: Path) -> str:
    """Process 1 fails in step 3; what the other says."""
    step = Trainer.step

    def fail(self: Trainer, x: torch.Tensor, y: torch.Tensor | None = None) -> Any:
        if os.environ["RANK"] == "1" and self.step_number == 3:
            os._exit(9)
        return step(self, x, y)

    Trainer.step = fail  # type: ignore[method-assign]
    try:
        go("topk", torch.float32)
    except LensingError as error:
        return str(error)
    return "nothing was wrong"


def harvest(folder: Path) -> dict[str, Any]:
    """Harvest; process 1 is killed in its second shard."""
    import importlib

    from lensing.model.load import load_model

    module = importlib.import_module("lensing.data.harvest")

    make, made = module.make_shard, []

    def dying(*arguments: Any) -> Any:
        made.append(arguments[2])
        if os.environ["RANK"] == "1" and len(made) == 2:
            os._exit(9)
        return make(*arguments)

    module.make_shard = dying
    given = json.loads((folder / "harvest.json").read_text())
    store = module.harvest(load_model(given["model"]), given["documents"], out=folder / "acts", **given["setting"])
    return {"made": made, "rows": store.rows}


def start(what: Callable[[Path], Any], folder: Path, size: int, *, seconds: float = 100) -> list[Any]:
    """Run `what` in `size` processes that find each other as those of torchrun do, and return what each one returned.

    A process that ended badly has its exit code in place of a result.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a copied process has none of the threads of the first
    try:
        # copies, because every new process would import torch first
        context = multiprocessing.get_context("fork")
        running = [context.Process(target=_run, args=(what, folder, rank, size, port)) for rank in range(size)]
        for process in running:
            process.start()
        end = time.monotonic() + seconds
        # all are asked each time: a killed process that nobody asked for would still count as one that lives
        while sum(process.is_alive() for process in running) and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        torch.set_num_threads(threads)
    late = [process for process in running if process.is_alive()]
    for process in late:
        process.kill()
    assert not late, f"{len(late)} of {size} processes hang"
    return [
        process.exitcode or json.loads((folder / f"{what.__name__}.{size}.{rank}.json").read_text())
        for rank, process in enumerate(running)
    ]


def _run(what: Callable[[Path], Any], folder: Path, rank: int, size: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    result = what(folder)
    (folder / f"{what.__name__}.{size}.{rank}.json").write_text(json.dumps(result))
