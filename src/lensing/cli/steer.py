"""`lensing steer`: one latent, a list of strengths, and what each does to the model's words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from lensing.cli.show import show
from lensing.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

UNRELATED = 16  # documents of the dictionary's own sample that the side effect is measured on


def steer(
    prompt: str,
    /,
    *,
    dictionary: str,
    latent: int | None = None,
    strength: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    unit: Literal["max", "raw", "norm"] = "max",
    mode: Literal["add", "clamp", "scale", "ablate"] = "add",
    at: str = "all",
    watch: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    contrast: tuple[Path, Path] | None = None,
    model: str | None = None,
    new_tokens: int = 32,
    seeds: int = 8,
    seed: int = 0,
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """Turn one latent up or down and watch the model's words change.

    Parameters
    ----------
    prompt
        The sentence, in quotes.
    dictionary
        A shipped dictionary's id or a folder.
    latent
        The latent's number in the dictionary; the one that --contrast finds if not given.
    strength
        One or more strengths; 0 0.25 0.5 1 2 4 8 16 if not given.
    unit
        What strength 1 is: the latent's largest activation (max), 1 (raw), or the mean norm of the site (norm).
    mode
        Add to the latent, clamp it to a value, scale it, or ablate it.
    at
        Positions to steer: all, prompt, generated, or a range such as 3:7.
    watch
        Words whose probability to come next is shown together (each by its first token).
    contrast
        Two files of documents (doubting.txt trusting.txt); their difference of means is shown beside the latent.
    model
        A shipped model, a folder, or a hub id; the dictionary's own model if not given.
    new_tokens
        How many tokens each continuation has.
    seeds
        How many continuations each strength is judged by.
    seed
        The first of these seeds, and that of the random directions.
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    where = positions(at)
    import torch

    import lensing as ln
    from lensing.causal.dose import dose_response
    from lensing.data.text import read_documents
    from lensing.evaluation.contrast import contrast as contrast_texts
    from lensing.registry import shipped_models
    from lensing.world.shipped import steering_aids

    texts = [read_documents(path) for path in contrast or ()]
    chosen = ln.load_dictionary(dictionary, allow_pickle=allow_pickle)
    if model is None and chosen.model_name not in shipped_models():
        raise UsageError(f"{dictionary} was trained on {chosen.model_name}, which is not shipped. Give --model FOLDER.")
    loaded = ln.load_model(model or str(chosen.model_name), allow_pickle=allow_pickle)
    found = contrast_texts(loaded, chosen, *texts, seed=seed) if texts else None
    aids = steering_aids(loaded, chosen)
    if latent is None:
        latent = found.best.latent if found is not None else aids.latent if aids is not None else None
    if latent is None:
        raise UsageError("There is no latent to steer. Give --latent N, or --contrast A.txt B.txt to find one.")
    vector = found.vector if found is not None else None
    if found is None and aids is not None and aids.vector is not None and latent == aids.latent:
        vector = torch.tensor(aids.vector)
    watched = {"watched": [int(loaded.encode(w, bos=False).ids[0, 0]) for w in watch]} if watch else None
    result = dose_response(
        loaded, chosen, latent, prompt, strengths=strength, unit=unit, mode=mode, at=where,
        new_tokens=new_tokens, seeds=seeds, seed=seed,
        watch=watched or (aids.watch if aids is not None else None),
        contrast=vector,
        impossible=aids.impossible if aids is not None else None,
        unrelated=[] if chosen.sample is None else chosen.sample.documents()[:UNRELATED],
    )  # fmt: skip

    def draw(console: Console) -> None:
        from lensing.draw.steer import draw_doses

        draw_doses(result, console)

    show(result, draw, as_json=json)


def positions(text: str) -> Any:
    """Read `--at`: all, prompt, generated, one position (5) or a range without its end (3:7, 3:, :7)."""
    if text in ("all", "prompt", "generated"):
        return text
    try:
        if ":" not in text:
            return int(text)
        start, stop = (int(part) if part else None for part in text.split(":"))
    except ValueError:
        raise UsageError(
            f"{text!r} is no range of positions. Give --at all, prompt, generated, a position such as 5, "
            "or a range such as 3:7."
        ) from None
    return slice(start, stop)
