"""`lensing train <architecture>`: one sub-command for each dictionary architecture that is registered."""

# No `from __future__ import annotations` here: each sub-command's signature names its architecture's config class.
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from lensing.cli.show import show
from lensing.dictionary.configs import ARCHITECTURES, JOIN
from lensing.errors import UsageError
from lensing.files import check_writable

MISSED = 0.2  # share by which an L0 that was asked for may be missed without a word

app = App(name="train", help="Train a dictionary on the activations of one site.", group_parameters=Group("Options"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What to train on, how long, and where the dictionary goes."""

    out: Path
    """The folder of the dictionary; a run that was stopped goes on from its checkpoint there."""
    model: str | None = None
    """A shipped model, a folder, or a hub id."""
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
    device: str = "auto"
    """cpu, cuda or cuda:1; the GPU where there is one, if not given."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; each of them costs one write of the weights and of Adam's moments."""
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


def _train(config: Any, run: Run) -> None:
    import lensing as ln

    source, site, target = _live(run) if run.store is None else _stored(run)
    setting: dict[str, Any] = {
        "skip": run.skip, "tokens": run.tokens, "batch": run.batch, "lr": run.lr, "ema": run.ema, "seed": run.seed,
        "out": run.out, "device": run.device, "checkpoint_minutes": run.checkpoint_minutes,
    }  # fmt: skip
    if run.cross_layer:
        reads, writes = site.split(JOIN), (target or "").split(JOIN) if target else []
        dictionary: Any = ln.train_cross_layer(source, config, reads=reads, writes=writes, **setting)
    else:
        dictionary = ln.train(source, config, site=site, target=target, **setting)
    s = dictionary.statistics
    sites = list(zip(dictionary.writes, s.fvus, s.l0s, strict=True)) if run.cross_layer else []
    show(dictionary.report, lambda console: _draw(config, dictionary.report, run.out, sites, console), as_json=run.json)


def _stored(run: Run) -> tuple[Any, str, str | None]:
    if not (run.model is run.text is run.sample is None):
        raise UsageError("There must be one source of activations. Give either --store, or --model with text.")
    import lensing as ln

    names = [name for joined in (run.site, run.target) if joined is not None for name in joined.split(JOIN)]
    source = ln.open_store(run.store, sites=list(dict.fromkeys(names)) or None)
    if run.site is None and len(source.sites) != 1:
        raise UsageError(f"{run.store} holds {len(source.sites)} sites. Give one, such as --site {source.sites[0]}.")
    check_writable(run.out)
    return source, run.site or source.sites[0], run.target


def _live(run: Run) -> tuple[Any, str, str | None]:
    if run.model is None or run.site is None:
        missing = "--model" if run.model is None else "--site"
        raise UsageError(f"There is no {missing}. Give --model and --site with text, or --store FOLDER.")
    if (run.text is None) == (run.sample is None):
        raise UsageError("There must be one source of text. Give either --text FILE or --sample TOKENS.")
    import lensing as ln
    from lensing.data.text import read_documents, sample_documents

    # The text is read before the model is loaded: a wrong path should be said at once.
    documents, corpus = (read_documents(run.text), run.text.name) if run.text is not None else ([], "")
    model = ln.load_model(run.model, allow_pickle=run.allow_pickle)
    site = _sites(model, "site", run.site, run.cross_layer)
    target = _sites(model, "target", run.target, run.cross_layer) if run.target is not None else None
    # Sampling takes minutes: a folder that cannot be written should be said before it.
    check_writable(run.out)
    if run.sample is not None:
        documents = sample_documents(model, run.sample, seed=run.seed)
        corpus = f"{run.sample} tokens sampled from {model.name}, seed {run.seed}"
    names = [*site.split(JOIN), *(target or site).split(JOIN)]
    return ln.live(model, documents, sites=list(dict.fromkeys(names)), seed=run.seed, corpus=corpus), site, target


def _sites(model: Any, flag: str, joined: str, several: bool = False) -> str:
    names: list[str] = []
    for name in joined.split(JOIN):
        if several:
            names += [site.name for site in model.resolve_all(name)]
            continue
        if len(found := model.resolve_all(name)) != 1:
            raise UsageError(f"--{flag} {name} means {len(found)} sites. Give one, such as {found[0]}.")
        names.append(found[0].name)
    return JOIN.join(names)


def _draw(config: Any, report: Any, out: Path, sites: list[tuple[str, float, float]], console: Any) -> None:
    facts = report.to_json()
    for name in ("tokens", "steps", "seconds", "fvu", "l0", "dead_share"):
        value = facts[name]
        shown = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
        console.print(f"{name.replace('_', ' '):12}{shown}")
    for site, fvu, l0 in sites:
        console.print(f"{site:16}fvu {fvu:.4f}, l0 of its layer {l0:.2f}")
    aim = getattr(config, "l0", None)
    aim = aim * max(len(sites), 1) if aim is not None else None  # of each layer
    if aim is not None and abs(report.l0 - aim) > MISSED * aim:
        console.print(f"L0 was to reach {aim:g} and did not in {report.steps:,} steps. Train on more tokens.")
    console.print(f"The dictionary is in {out}.")
