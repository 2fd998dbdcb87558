"""`lensing export` and `lensing import`: indexes for and from other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lensing.cli.show import show
from lensing.errors import UsageError


class _Made:
    """What was written where."""

    def __init__(self, **facts: object) -> None:
        self.facts = facts

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return self.facts


def export(
    folder: Path,
    /,
    *,
    out: Path,
    form: Literal["neuronpedia", "upload", "parquet", "pages"] = "neuronpedia",
    model_id: str | None = None,
    source: str | None = None,
    dictionary: str | None = None,
    notes: Path | None = None,
    json: bool = False,
) -> None:
    """Write an index for others: Neuronpedia's export, the bodies of its upload, Parquet, or plain pages.

    Parameters
    ----------
    folder
        An index that lensing index made.
    out
        The folder to write.
    form
        neuronpedia (v1, features, activations and explanations), upload (upload-N.json), parquet, or pages (HTML that
        needs no server, for a paper's supplement).
    model_id
        The model's name on Neuronpedia; the index's if not given.
    source
        The source's name there (12-mine-res-16k); made from the site and width if not given.
    dictionary
        Where the dictionary lies, if not where it was when the index was built.
    notes
        The file of labels; ~/.lensing/notes.sqlite if not given.
    json
        Print the result as JSON.
    """
    import lensing as ln
    from lensing.config import recorded_options
    from lensing.data.identity import dictionary_digest
    from lensing.db import Notes
    from lensing.index.exchange import write_neuronpedia, write_parquet, write_upload
    from lensing.index.supplement import write_pages
    from lensing.registry import home

    index = ln.open_index(folder)
    kept = notes or home() / "notes.sqlite"
    said = Notes(kept) if kept.is_file() else None
    if form == "parquet":
        made = write_parquet(index, out)
    elif form == "pages":
        made = write_pages(index, out, notes=said, subject=index.facts.dictionary["weights"])
    else:
        name = dictionary or recorded_options(folder).get("dictionary") or index.facts.dictionary["id"]
        if not name:
            raise UsageError(f"{folder} does not say where its dictionary lies. Give --dictionary.")
        sae = ln.load_dictionary(name)
        subject = dictionary_digest(sae.weights() | sae.extra_tensors())
        if subject != index.facts.dictionary["weights"]:
            raise UsageError(f"{folder} was built for another dictionary than {name}. Give --dictionary.")
        layer = "".join(c for c in str(sae.site) if c.isdigit()) or "0"
        model_id = model_id or Path(index.facts.model["name"]).name
        source = source or f"{layer}-lensing-{str(sae.site).partition('.')[0]}-{index.d_sae}"
        if form == "upload":
            made = write_upload(index, out, model_id=model_id, source=source, notes=said, subject=subject)
        else:
            made = write_neuronpedia(index, sae, out, model_id=model_id, source=source, notes=said, subject=subject)
    facts = _Made(folder=str(made), form=form, latents=index.d_sae)
    show(facts, lambda c: c.print(f"{index.d_sae:,} latents are in {made}.", soft_wrap=True), as_json=json)


def take_in(
    dashboards: Path, /, *, dictionary: str, out: Path, model: str | None = None, allow_pickle: bool = False,
    json: bool = False,
) -> None:  # fmt: skip
    """Make an index of dashboards that Neuronpedia (its export, v1) or SAEDashboard (batch-N.json) wrote.

    Parameters
    ----------
    dashboards
        The folder that holds them.
    dictionary
        The dictionary that they are about: a shipped id, a folder, or a dictionary of another tool.
    out
        The folder of the index.
    model
        A shipped model, a folder, or a hub id; the dictionary's own model if not given.
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    import lensing as ln
    from lensing.cli.options import absolute
    from lensing.config import called, recorded_options
    from lensing.index.imports import import_index

    options = dict(locals())
    sae = ln.load_dictionary(dictionary, allow_pickle=allow_pickle)
    loaded = ln.load_model(
        model or recorded_options(dictionary).get("model") or str(sae.model_name), allow_pickle=allow_pickle
    )
    kept = {name: options[name] for name in ("dictionary", "model", "out", "allow_pickle")}
    with called("import", absolute(kept)):
        index = import_index(loaded, sae, dashboards, out=out)
    facts = _Made(folder=str(out), latents=int((index.array("count") > 0).sum()), text=index.facts.text["name"])
    show(facts, lambda c: c.print(f"{index.facts.text['name']} are in {out}. Show them: lensing serve {out}",
                                  soft_wrap=True), as_json=json)  # fmt: skip
