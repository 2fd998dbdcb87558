"""`lensing contrast`: what tells two files of documents apart at a site."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lensing.cli.show import show
from lensing.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console


def contrast(
    a: Path,
    b: Path,
    /,
    *,
    site: str | None = None,
    dictionary: str | None = None,
    model: str | None = None,
    at: Literal["last", "all"] = "last",
    top: int = 10,
    seed: int = 0,
    vectors: Path | None = None,
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """Find what tells two kinds of text apart: a difference of means, a linear probe, and latents.

    Each is chosen on one half of the documents and scored on the other, beside the same with shuffled labels.

    Parameters
    ----------
    a
        A file of documents that have what is looked for.
    b
        A file of documents that lack it.
    site
        Where the vectors are read, such as resid_post.3; the dictionary's site if not given.
    dictionary
        A shipped dictionary's id or a folder, whose latents are scored too.
    model
        A shipped model, a folder, or a hub id; the dictionary's own model, or almanac, if not given.
    at
        The last token of each document, or all of them.
    top
        How many latents are listed.
    seed
        How the documents are halved.
    vectors
        Also write both directions to this safetensors file, as `means` and `probe`.
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    import lensing as ln
    from lensing.data.text import read_documents
    from lensing.dictionary.tensors import write_tensors

    if site is None and dictionary is None:
        raise UsageError("There is no site. Give --site resid_post.3, say, or --dictionary.")
    texts = [read_documents(path) for path in (a, b)]
    chosen = None if dictionary is None else ln.load_dictionary(dictionary, allow_pickle=allow_pickle)
    if model is None:
        model = "almanac" if chosen is None else str(chosen.model_name)
    loaded = ln.load_model(model, allow_pickle=allow_pickle)
    found = ln.contrast(loaded, chosen, *texts, site=site, at=at, seed=seed, keep=top)
    if vectors is not None:
        write_tensors(vectors, {"means": found.vector.contiguous(), "probe": found.probe_vector.contiguous()})
    show(found, lambda console: _draw(found, console), as_json=json)


def _draw(found: Any, console: Console) -> None:
    from rich.table import Table

    console.print(
        f"{found.site}: {found.positives} rows of the first file and {found.negatives} of the second, in "
        f"{found.documents} documents that nothing was chosen on."
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "AUROC", "where chosen", "average precision", "shuffled labels", "their 95%"):
        table.add_column(column, justify="left" if not column else "right")
    rows = [("difference of means", found.means, found.means_null), ("linear probe", found.probe, found.probe_null)]
    rows += [(f"latent {s.latent}", s, found.null) for s in found.latents]
    for name, score, null in rows:
        table.add_row(
            name, f"{score.auroc:.3f}", f"{score.auroc_chosen_on:.3f}", f"{score.average_precision:.3f}",
            f"{null.mean:.3f}", f"{null.p95:.3f}",
        )  # fmt: skip
    console.print(table)
