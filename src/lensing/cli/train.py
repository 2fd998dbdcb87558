"""`lensing train <architecture>`: one sub-command for each dictionary architecture that is registered."""

# No `from __future__ import annotations` here: each sub-command's signature names its architecture's config class.
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from lensing.cli.after import next_command
from lensing.cli.options import SinkName, absolute, fill_from_toml
from lensing.cli.show import is_main, show
from lensing.config import Toml, called
from lensing.dictionary.configs import ARCHITECTURES, JOIN
from lensing.errors import UnknownNameError, UsageError, suggest

MISSED = 0.2  # share by which an L0 that was asked for may be missed without a word

app = App(
    name="train", help="Train a dictionary on the activations of one site.", group_parameters=Group("Options"),
    config=fill_from_toml,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What to train on, how long, and where the dictionary goes."""

    out: Path
    """The folder of the dictionary; a run that was stopped goes on from its checkpoint there."""
    model: str | None = None
    """A shipped model, a folder, or a hub id; with --store only to measure what the dictionary costs it."""
    site: str | None = None
    """The site to read, such as resid_post.2 (see lensing sites), or the one of a store; several joined by + make a
    crosscoder."""
    target: str | None = None
    """The site to write, for a transcoder, such as mlp_out.2 from mlp_in.2; the site that is read, if not given."""
    skip: bool = False
    """Let a linear map go round the transcoder's latents."""
    cross_layer: bool = False
    """Let the latents of each layer write its own site and all after it: --site and --target name as many sites, in the
    order of the layers, joined by + or as patterns such as mlp_in.* and mlp_out.*."""
    store: Path | None = None
    """Instead of a model and text: the folder that lensing harvest made."""
    text: Path | None = None
    """A file of documents: .txt (blank lines between them), .jsonl (field "text") or .parquet, also .gz or .zst."""
    sample: int | None = None
    """Instead of a file: this many tokens of text sampled from the model itself."""
    tokens: int | None = None
    """How many tokens to train on, reading shorter text again; one pass over the text if not given."""
    batch: int = 4096
    """Activations in one optimizer step."""
    lr: float | None = None
    """Learning rate; the architecture's own if not given."""
    ema: float | None = None
    """Keep the running mean of the weights with this memory, such as 0.999; the last weights if not given."""
    seed: int = 0
    """Seed of the weights, of the order of the text and of sampling; a store's order is its own."""
    tp: int = 1
    """Under torchrun: how many processes hold the latents of the dictionary, each some of them; the others share the
    rows of each batch."""
    text_seed: int | None = None
    """Seed of the order of the text and of sampling alone, where it is another one."""
    device: str = "auto"
    """cpu, cuda or cuda:1; the GPU where there is one, if not given."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; each of them costs one write of the weights and of Adam's moments."""
    loss_tokens: int = 8192
    """Tokens of held-out text on which loss recovered is measured at the end; 0 for not at all."""
    log: tuple[SinkName, ...] = ()
    """Where the numbers go besides metrics.jsonl; give the flag for each."""
    config: Path | None = None
    """A TOML file of options by their names; what is given on the command line wins."""
    allow_pickle: bool = False
    """Read weights from a pickle file, which can run code."""
    json: bool = False
    """Print the report as JSON."""


def _command(config_class: type) -> Callable[..., None]:
    def train(
        *,
        config: Annotated[config_class, Parameter(name="*")],  # type: ignore[valid-type]
        run: Annotated[Run, Parameter(name="*")],
    ) -> None:
        _train(config, run)

    return train


for _name in ARCHITECTURES:
    _about = (ARCHITECTURES[_name].__doc__ or "").strip().splitlines()[0]
    app.command(_command(ARCHITECTURES[_name]), name=_name, help=_about)


@app.default
def from_file(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], config: Path | None = None
) -> None:
    """Train what a TOML file says.

    Parameters
    ----------
    config
        A TOML file of options by their names, and the architecture; options on the command line win.
    """
    if config is None:
        if tokens:
            raise UnknownNameError("command", tokens[0], ARCHITECTURES)
        from lensing.cli.app import build

        build()(["train", "--help"])
        return
    file = Toml(config)
    name = file.values.get("architecture")
    if name is None:
        raise UsageError(f'{config} names no architecture. Add a line such as architecture = "topk".')
    if not isinstance(name, str):
        where = f"{config}, line {file.line('architecture')}"
        raise UsageError(f"{where}: a training has one architecture. Give it in quotes, or see lensing sweep.")
    if name not in ARCHITECTURES:
        hint = f"{suggest(name, ARCHITECTURES)} ({config}, line {file.line('architecture')})"
        raise UnknownNameError("architecture", name, ARCHITECTURES, hint)
    from lensing.cli.app import build

    build()(["train", name, *tokens, "--config", str(config)])


def repeat(command: str, options: dict[str, Any]) -> None:
    """Run `train` again as a run.json recorded it."""
    from lensing.config import from_mapping

    cls = ARCHITECTURES[command.removeprefix("train").strip()]
    names = {field.name for field in dataclasses.fields(cls)}
    run = {key: value for key, value in options.items() if key not in names}
    paths = {key: Path(run[key]) for key in ("out", "store", "text") if run.get(key) is not None}
    settings = from_mapping(Run, {**run, **paths, "log": tuple(run.get("log", ()))})
    _train(from_mapping(cls, {key: options[key] for key in names if key in options}), settings)


def _train(config: Any, run: Run) -> None:
    import lensing as ln
    from lensing.cli.source import open_source
    from lensing.training.sinks import check_sinks

    check_sinks(run.log)
    source, model, names = open_source(
        model=run.model, store=run.store, text=run.text, sample=run.sample,
        flags={"site": run.site, "target": run.target}, seed=run.seed if run.text_seed is None else run.text_seed,
        out=run.out, allow_pickle=run.allow_pickle, patterns=run.cross_layer,
    )  # fmt: skip
    options = {**dataclasses.asdict(config), **dataclasses.asdict(run), "config": None}
    with called(f"train {config.architecture}", absolute(options)):
        setting: dict[str, Any] = {
            "skip": run.skip, "tokens": run.tokens, "batch": run.batch, "lr": run.lr, "ema": run.ema, "seed": run.seed,
            "out": run.out, "log": run.log, "model": model, "loss_tokens": run.loss_tokens, "device": run.device,
            "checkpoint_minutes": run.checkpoint_minutes,
        }  # fmt: skip
        if run.cross_layer:
            if run.tp > 1:
                raise UsageError("Cross-layer transcoders are trained in one process so far. Leave --tp out.")
            reads, writes = ((names[end] or "").split(JOIN) if names[end] else [] for end in ("site", "target"))
            dictionary: Any = ln.train_cross_layer(source, config, reads=reads, writes=writes, **setting)
        else:
            dictionary = ln.train(source, config, site=names["site"], target=names["target"], tp=run.tp, **setting)
    if not is_main():
        return
    sites: list[dict[str, Any]] = []
    if run.cross_layer:
        s = dictionary.statistics
        found = zip(dictionary.writes, s.fvus, s.l0s, strict=True)
        sites = [{"site": site, "fvu": fvu, "l0": l0} for site, fvu, l0 in found]
    after = next_command(dictionary, run.out, name=run.model, model=model, source=source)
    result = Trained({**dictionary.report.to_json(), "sites": sites, "out": str(run.out), "next": after})
    show(result, lambda console: _draw(config, result.values, console), as_json=run.json)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training cost, what came out, and the next command to run."""

    values: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return self.values


def _draw(config: Any, report: dict[str, Any], console: Any) -> None:
    from lensing.draw.training import draw_training

    draw_training(report, console)
    for at in report["sites"]:
        console.print(f"{at['site']:16}FVU {at['fvu']:.4f}, L0 of its layer {at['l0']:.2f}")
    aim = getattr(config, "l0", None)
    aim = aim * max(len(report["sites"]), 1) if aim is not None else None  # of each layer
    if aim is not None and abs(report["l0"] - aim) > MISSED * aim:
        console.print(f"L0 was to reach {aim:g} and did not in {report['steps']:,} steps. Train on more tokens.")
    console.print(f"The dictionary is in {report['out']}.", soft_wrap=True)
    console.print(f"Next: {report['next']}", soft_wrap=True)
