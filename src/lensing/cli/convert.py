"""`lensing convert`: a dictionary of one tool in the files of another."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from lensing.cli.show import show


@dataclasses.dataclass(frozen=True)
class Converted:
    """What was written, and of what."""

    out: str
    format: str
    architecture: str
    d_in: int
    d_sae: int
    site: str | None
    target: str | None
    model: str | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


def convert(
    source: str,
    out: Path,
    /,
    *,
    to: Literal["lensing", "saelens", "sparsify", "circuit-tracer"] = "lensing",
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """Write a dictionary of one tool in the files of another, all of it or nothing.

    Parameters
    ----------
    source
        A shipped dictionary's id, a folder or file of any known format, or a hub id.
    out
        A new folder.
    to
        The format to write; circuit-tracer for cross-layer transcoders.
    from_
        The format of the source; told from its files' names if not given.
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    from lensing.dictionary.crossload import is_cross_layer, load_cross_layer, write_cross_layer
    from lensing.dictionary.formats.table import write_dictionary
    from lensing.dictionary.load import load_dictionary

    sae: Any
    if is_cross_layer(source):
        sae = load_cross_layer(source)
        write_cross_layer(sae, out, to)
    else:
        sae = load_dictionary(source, format=from_, allow_pickle=allow_pickle)
        write_dictionary(sae, out, to)
    result = Converted(
        out=str(out), format=to, architecture=sae.architecture, d_in=sae.d_in, d_sae=sae.d_sae, site=sae.site,
        target=sae.target, model=sae.model_name,
    )  # fmt: skip
    show(result, lambda console: _draw(result, console), as_json=json)


def _draw(result: Converted, console: Any) -> None:
    place = f"{result.site} -> {result.target}" if result.target else result.site or "no site given"
    what = f"{result.architecture}, {result.d_sae} latents on {result.d_in} numbers, {place}"
    console.print(
        f"Wrote {result.out} ({result.format}): {what} of {result.model or 'no model given'}.", soft_wrap=True
    )
