"""`lensing label`: what latents stand for, asked of a language model and scored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from lensing.cli.options import several
from lensing.cli.show import show
from lensing.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 12  # scores


def label(
    folder: Path,
    /,
    *,
    llm: str,
    endpoint: str | None = None,
    latents: Annotated[list[int] | None, Parameter(consume_multiple=True, converter=several(int))] = None,
    score: Annotated[list[Literal["detection", "fuzzing"]] | None, Parameter(consume_multiple=True)] = None,
    n: int = 20,
    model: str | None = None,
    dictionary: str | None = None,
    notes: Path | None = None,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Ask a language model what latents stand for, score its answers, and keep them where the page finds them.

    The same command again tries only those that failed. Without --endpoint nothing leaves this machine.

    Parameters
    ----------
    folder
        An index that lensing index made.
    llm
        The language model's name at the endpoint; without one, a folder or hub id to load here.
    endpoint
        A server that speaks OpenAI's chat form (http://127.0.0.1:8000/v1); its key is that of LENSING_API_KEY or
        OPENAI_API_KEY.
    latents
        Which latents; all of them if not given.
    score
        How answers are scored: detection, fuzzing; detection if not given.
    n
        How many contexts with the latent, and without it, an answer is scored on.
    model
        Where the model lies, if not where it was when the index was built.
    dictionary
        Where the dictionary lies, likewise.
    notes
        The file that labels are kept in; ~/.lensing/notes.sqlite if not given.
    seed
        Which contexts are drawn.
    json
        Print the result as JSON.
    """
    import lensing as ln
    from lensing.config import recorded_options
    from lensing.data.identity import dictionary_digest
    from lensing.db import Notes
    from lensing.index.endpoint import Endpoint, Local
    from lensing.index.label import label as ask
    from lensing.registry import home

    index = ln.open_index(folder)
    where = recorded_options(folder)
    name = dictionary or where.get("dictionary") or index.facts.dictionary["id"]
    if not name:
        raise UsageError(f"{folder} does not say where its dictionary lies. Give --dictionary.")
    asker = Endpoint(endpoint, llm) if endpoint else Local(ln.load_model(llm))
    loaded = ln.load_model(
        model or where.get("model") or recorded_options(name).get("model") or index.facts.model["name"]
    )
    sae = ln.load_dictionary(name, model=loaded)
    subject = dictionary_digest(sae.weights() | sae.extra_tensors())
    if subject != index.facts.dictionary["weights"]:
        raise UsageError(f"{folder} was built for another dictionary than {name}. Give --dictionary.")
    kept = Notes(notes or home() / "notes.sqlite")
    result = ask(
        loaded, sae, index, kept, subject, asker, latents=latents, kinds=tuple(score or ("detection",)), n=n, seed=seed,
        quiet=json,
    )  # fmt: skip

    def draw(console: Console) -> None:
        console.print(f"{result.made:,} latents labelled, {result.there:,} were, {len(result.failed):,} failed.")
        for s in result.scores[:SHOWN]:
            low, high = s.interval
            control = "" if s.control is None else f", another latent's explanation {s.control:.2f}"
            about = f"{low:.2f} to {high:.2f}, n {s.n}"
            console.print(f"  {s.latent:6} {s.kind} {s.accuracy:.2f} ({about}){control}", soft_wrap=True)
        for i, why in list(result.failed.items())[:3]:
            console.print(f"  {i:6} failed: {why}", soft_wrap=True)
        console.print(f"The labels are in {kept.path}.", soft_wrap=True)

    show(result, draw, as_json=json)
