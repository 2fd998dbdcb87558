"""`lensing sweep`: a grid of dictionaries from one reader, and the table of what came out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lensing.cli.options import SinkName, absolute, several
from lensing.cli.show import is_main, show
from lensing.dictionary.configs import JOIN
from lensing.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from lensing.training.job import Job

Words = Annotated[list[str] | None, Parameter(consume_multiple=True, converter=several(str))]
Counts = Annotated[list[int] | None, Parameter(consume_multiple=True, converter=several(int))]
Numbers = Annotated[list[float] | None, Parameter(consume_multiple=True, converter=several(float))]

GRID = "grid"  # the tables of a TOML file that are grids of their own
HERE: dict[str, Any] = {
    "out": Path, "store": Path, "model": str, "text": Path, "sample": int, "tokens": int, "batch": int, "ema": float,
    "text_seed": int, "device": str, "checkpoint_minutes": float, "loss_tokens": int,
    "log": SinkName | list[SinkName], "allow_pickle": bool, "tp": int, "teams": int,
}  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "batch": 4096, "text_seed": 0, "device": "auto", "checkpoint_minutes": 5.0, "loss_tokens": 8192, "log": (),
    "allow_pickle": False, "tp": 1, "teams": 1,
}  # fmt: skip
PATHS = ("out", "store", "text")


def sweep(
    *,
    out: Path | None = None,
    architecture: Words = None,
    width: Counts = None,
    k: Counts = None,
    l0: Numbers = None,
    sparsity: Numbers = None,
    lr: Numbers = None,
    seed: Counts = None,
    site: Words = None,
    target: Words = None,
    store: Path | None = None,
    model: str | None = None,
    text: Path | None = None,
    sample: int | None = None,
    tokens: int | None = None,
    batch: int | None = None,
    ema: float | None = None,
    text_seed: int | None = None,
    device: str | None = None,
    checkpoint_minutes: float | None = None,
    loss_tokens: int | None = None,
    log: tuple[SinkName, ...] | None = None,
    config: Path | None = None,
    allow_pickle: bool = False,
    tp: int | None = None,
    teams: int | None = None,
    json: bool = False,
) -> int:
    """Train a grid of dictionaries from one reader, each as if alone, and compare them.

    Axes take several values, apart from each other by commas or spaces; every combination is a member. A setting goes
    to the architectures that have it. The same command again continues; a member that fails is stopped and reported.

    Parameters
    ----------
    out
        The folder of the sweep: a folder for each member, and sweep.json.
    architecture
        One or several: topk, batchtopk, matryoshka, relu, gated, jumprelu.
    width
        How many latents (d_sae).
    k
        Active latents a row, of architectures with a k.
    l0
        Active latents a row to reach, of architectures with a penalty.
    sparsity
        Coefficient of the penalty, instead of l0.
    lr
        Learning rate; each architecture's own if not given.
    seed
        Seed of the weights; 0 if not given.
    site
        The site to read, such as resid_post.2; several joined by + make a crosscoder.
    target
        The site to write, for transcoders.
    store
        The folder that lensing harvest made.
    model
        Instead of a store: a shipped model, a folder, or a hub id; with one, to measure loss recovered.
    text
        A file of documents: .txt, .jsonl or .parquet, also .gz or .zst.
    sample
        Instead of a file: this many tokens of text sampled from the model itself.
    tokens
        How many tokens to train on; one pass over the text if not given.
    batch
        Activations in one optimizer step; 4096 if not given.
    ema
        Keep the running mean of the weights with this memory, such as 0.999.
    text_seed
        Seed of the order of the text and of sampling; 0 if not given. A store's order is its own.
    device
        cpu, cuda or cuda:1; the GPU where there is one, if not given.
    checkpoint_minutes
        Minutes between checkpoints; 5 if not given.
    loss_tokens
        Tokens of held-out text on which loss recovered is measured; 8192 if not given, 0 for not at all.
    log
        Where the numbers go besides metrics.jsonl; give the flag for each.
    config
        A TOML file of options by their names, other settings of the architectures, and [[grid]] tables, each a grid of
        its own; what is given on the command line wins.
    allow_pickle
        Read weights from a pickle file, which can run code.
    tp
        Under torchrun: how many processes hold the latents of a dictionary, each some of them; 1 if not given.
    teams
        Under torchrun: into how many teams the processes are parted, each of which trains some of the members; 1 if
        not given.
    json
        Print the table as JSON.
    """
    given = {key: value for key, value in locals().items() if value is not None and value is not False}
    given = {key: value for key, value in given.items() if key not in ("config", "json")}
    options, grids = _read(config) if config is not None else ({}, [])
    # an axis that is given on the command line wins over that axis in every grid too
    grids = [{key: value for key, value in grid.items() if key not in given} for grid in grids]
    return _sweep({**options, **given}, grids, as_json=json)


def repeat(command: str, options: dict[str, Any]) -> int:
    """Run `sweep` again as a run.json recorded it."""
    options = dict(options)
    grids, as_json = options.pop(GRID, []), options.pop("json", False)
    return _sweep({key: value for key, value in options.items() if value is not None}, grids, as_json=as_json)


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A TOML file's options and axes, and its grids."""
    from lensing.config import Toml
    from lensing.training.grid import axes

    file = Toml(path)
    values = {key.replace("-", "_"): value for key, value in file.values.items()}
    grids = values.pop(GRID, [])
    if not isinstance(grids, list) or not all(isinstance(grid, dict) for grid in grids):
        raise UsageError(f"{path}, line {file.line(GRID)}: grid is no table. Write each grid below [[grid]].")
    hints = {key: hint | list[hint] for key, hint in axes().items()}
    file.check(values, {**hints, **HERE}, "option of a sweep")
    for number, grid in enumerate(grids):
        file.check(grid, hints, "axis of a sweep", GRID, number)
    if isinstance(values.get("log"), str):
        values["log"] = [values["log"]]
    return values, grids


def _resolved(job: Job, full: dict[str, str | None]) -> Job:
    """The job with its sites by their full names."""
    site, target = (
        JOIN.join(str(full[name]) for name in joined.split(JOIN)) if joined else None
        for joined in (job.site, job.target)
    )
    return dataclasses.replace(job, site=site, target=target)


def _sweep(options: dict[str, Any], grids: list[dict[str, Any]], *, as_json: bool) -> int:
    import lensing as ln
    from lensing.cli.source import open_source
    from lensing.config import called
    from lensing.training.grid import expand, sites_of
    from lensing.training.sinks import check_sinks

    run: dict[str, Any] = {
        **dict.fromkeys(HERE),
        **DEFAULTS,
        **{key: value for key, value in options.items() if key in HERE},
    }
    run |= {key: Path(run[key]) for key in PATHS if run[key] is not None}
    if run["out"] is None:
        raise UsageError("sweep needs --out. Give the folder for its dictionaries and its table.")
    check_sinks(run["log"])
    shared = {key: value for key, value in options.items() if key not in HERE}
    jobs = expand(grids or [{}], shared)
    sites = sites_of(jobs.values())
    source, model, names = open_source(
        model=run["model"], store=run["store"], text=run["text"], sample=run["sample"],
        flags={f"site {name}": name for name in sites} or {"site": None}, seed=run["text_seed"], out=run["out"],
        allow_pickle=run["allow_pickle"],
    )  # fmt: skip
    full = {name: names[f"site {name}"] for name in sites}
    jobs = {name: _resolved(job, full) for name, job in jobs.items()}
    with called("sweep", {**absolute(run), **shared, GRID: grids}):
        report = ln.sweep(
            source, jobs, tokens=run["tokens"], batch=run["batch"], ema=run["ema"], out=run["out"], log=run["log"],
            model=model, loss_tokens=run["loss_tokens"], device=run["device"],
            checkpoint_minutes=run["checkpoint_minutes"], tp=run["tp"], teams=run["teams"],
        )  # fmt: skip

    def draw(console: Console) -> None:
        from lensing.draw.training import draw_sweep

        draw_sweep(report.to_json(), console)
        console.print(f"The dictionaries and sweep.json are in {run['out']}.", soft_wrap=True)

    if is_main():
        show(report, draw, as_json=as_json)
    return 1 if report.failures else 0
