"""`lensing sites` and `lensing doctor`: what a model offers, and whether this installation is in order."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path
from typing import Any

from lensing.cli.show import show


@dataclasses.dataclass(frozen=True)
class Sites:
    """The sites of one model: name to shape at one position, and why it does not give the others, by kind."""

    model: str
    shapes: dict[str, list[int | str]]
    refused: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


def sites(model: str = "almanac", /, *, allow_pickle: bool = False, json: bool = False) -> None:
    """List the sites of a model that can be read and edited, and why others cannot.

    Parameters
    ----------
    model
        A shipped model, a folder, or a hub id.
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    import lensing as ln
    from lensing.errors import SiteError
    from lensing.model.sites import KINDS, PER_LAYER

    loaded = ln.load_model(model, allow_pickle=allow_pickle)
    shapes: dict[str, list[int | str]] = {}
    for name in loaded.sites():
        by_query = loaded.resolve(name).by_query
        shapes[name] = [loaded.n_heads, "query", "key"] if by_query else list(loaded.shape(name, 1, 1)[2:])
    refused = {}
    for kind in KINDS:
        try:
            loaded.adapter.place(loaded.resolve((kind, 0) if kind in PER_LAYER else kind))
        except SiteError as error:
            refused[kind] = str(error)
    result = Sites(model=loaded.name, shapes=shapes, refused=refused)
    show(result, lambda console: _draw_sites(result, console), as_json=json)


def _draw_sites(result: Sites, console: Any) -> None:
    from rich.table import Table

    from lensing.model.sites import KINDS

    kinds: dict[tuple[str, str], list[int]] = {}
    for name, shape in result.shapes.items():
        kind, _, layer = name.partition(".") if re.fullmatch(r"\w+\.\d+", name) else (name, "", "")
        kinds.setdefault((kind, " x ".join(map(str, shape))), []).extend([int(layer)] if layer else [])
    table = Table("site", "layers", "shape at one position", "what it holds", box=None, pad_edge=False)
    for (kind, shape), layers in kinds.items():
        what = re.sub(r" \[.*\]$", "", KINDS[kind])
        span = f"{min(layers)} to {max(layers)}" if layers else ""
        table.add_row(f"{kind}.L" if layers else kind, span, shape, what)
    console.print(f"Sites of {result.model}. Write a site as resid_post.2, several as resid_post.* or mlp_out.{{0,1}}.")
    console.print(table)
    if result.refused:
        console.print("\nNot given by this model:")
        for why in result.refused.values():
            console.print(f"  {why}", soft_wrap=True)


@dataclasses.dataclass(frozen=True)
class Health:
    """What `lensing doctor` found; `amiss` is empty when all is well."""

    versions: dict[str, str]
    device: str
    models: list[str]
    dictionaries: list[str]
    cache: str
    free_gb: float
    amiss: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


def doctor(*, json: bool = False) -> int:
    """Say what is installed, what is shipped, and whether anything is amiss.

    Parameters
    ----------
    json
        Print the result as JSON.
    """
    from lensing.config import versions
    from lensing.registry import shipped_dictionaries, shipped_models

    found = versions()
    amiss = [
        f"{name} is not installed. Install it with: pip install {name}" for name, v in found.items() if v == "absent"
    ]
    if not shipped_models():
        amiss.append("No model ships with this copy. Say make world to make one, or fetch the package again.")
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    there = next(p for p in (cache, *cache.parents) if p.exists())
    if not os.access(there, os.W_OK):
        amiss.append(f"{cache} cannot be written. Set HF_HOME to a folder of yours to load models from the hub.")
    result = Health(
        versions=found,
        device=_device(),
        models=sorted(shipped_models()),
        dictionaries=sorted(shipped_dictionaries()),
        cache=str(cache),
        free_gb=round(shutil.disk_usage(there).free / 1e9, 1),
        amiss=amiss,
    )
    show(result, lambda console: _draw_health(result, console), as_json=json)
    return 1 if amiss else 0


def _device() -> str:
    try:
        import torch
    except ImportError:
        return "none: torch does not load"
    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()}, {torch.cuda.device_count()} in all)"
    if torch.backends.mps.is_available():
        return "mps (Apple)"
    return f"cpu ({torch.get_num_threads()} threads)"


def _by_site(ids: list[str]) -> dict[str, list[str]]:
    """Names of dictionaries below their model and site, narrow ones first."""
    found: dict[str, list[str]] = {}
    for name in sorted(
        ids, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    ):
        model, site, rest = name.split("/", 2)
        found.setdefault(f"{model}/{site}", []).append(rest)
    return found


def _draw_health(result: Health, console: Any) -> None:
    for name, version in result.versions.items():
        console.print(f"{name:14}{version}")
    console.print(f"{'device':14}{result.device}")
    console.print(f"{'models':14}{', '.join(result.models) or 'none'}")
    for place, (site, names) in enumerate(_by_site(result.dictionaries).items()):
        console.print(f"{'dictionaries' if place == 0 else '':14}{site}: {', '.join(names)}", soft_wrap=True)
    if not result.dictionaries:
        console.print(f"{'dictionaries':14}none")
    console.print(f"{'hub cache':14}{result.cache} ({result.free_gb} GB free)", soft_wrap=True)
    for sentence in result.amiss:
        console.print(f"Amiss: {sentence}", soft_wrap=True)
    if not result.amiss:
        console.print("All is well.")
