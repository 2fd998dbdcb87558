"""Where a training reads its rows: a store, or a model with text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lensing.dictionary.configs import JOIN
from lensing.errors import UsageError
from lensing.files import check_writable


def open_source(
    *,
    model: str | None,
    store: Path | None,
    text: Path | None,
    sample: int | None,
    flags: Mapping[str, str | None],
    seed: int,
    out: Path,
    allow_pickle: bool,
    patterns: bool = False,
) -> tuple[Any, Any, dict[str, str | None]]:
    """The source, the model to measure a splice with (None: the source's own), and the sites of `flags` by full name.

    `flags` are the sites that options name, by option; several may be joined by `+`, and with
    `patterns` a name may mean several.
    """
    if store is None:
        source, names = _live(model, text, sample, flags, seed, out, allow_pickle, patterns)
        return source, None, names
    if not (text is sample is None):
        raise UsageError("There must be one source of activations. Give either --store, or --model with text.")
    import lensing as ln

    names = [name for joined in flags.values() if joined is not None for name in joined.split(JOIN)]
    source = ln.open_store(store, sites=list(dict.fromkeys(names)) or None)
    if not names and len(source.sites) != 1:
        raise UsageError(f"{store} holds {len(source.sites)} sites. Give one, such as --site {source.sites[0]}.")
    check_writable(out)
    loaded = ln.load_model(model, allow_pickle=allow_pickle) if model is not None else None
    return source, loaded, dict(flags) if names else {**flags, "site": source.sites[0]}


def _live(
    name: str | None, text: Path | None, sample: int | None, flags: Mapping[str, str | None], seed: int, out: Path,
    allow_pickle: bool, patterns: bool,
) -> tuple[Any, dict[str, str | None]]:  # fmt: skip
    if name is None or not any(flags.values()):
        missing = "--model" if name is None else "--site"
        raise UsageError(f"There is no {missing}. Give --model and --site with text, or --store FOLDER.")
    if (text is None) == (sample is None):
        raise UsageError("There must be one source of text. Give either --text FILE or --sample TOKENS.")
    import lensing as ln
    from lensing.data.text import read_documents, sample_documents

    # The text is read before the model is loaded: a wrong path should be said at once.
    documents, corpus = (read_documents(text), text.name) if text is not None else ([], "")
    model = ln.load_model(name, allow_pickle=allow_pickle)
    resolved = {flag: _sites(model, flag, joined, patterns) if joined else None for flag, joined in flags.items()}
    # Sampling takes minutes: a folder that cannot be written should be said before it.
    check_writable(out)
    if sample is not None:
        documents = sample_documents(model, sample, seed=seed)
        corpus = f"{sample} tokens sampled from {model.name}, seed {seed}"
    names = [name for joined in resolved.values() if joined for name in joined.split(JOIN)]
    return ln.live(model, documents, sites=list(dict.fromkeys(names)), seed=seed, corpus=corpus), resolved


def _sites(model: Any, flag: str, joined: str, patterns: bool) -> str:
    names: list[str] = []
    for name in joined.split(JOIN):
        found = model.resolve_all(name)
        if patterns:
            names += [site.name for site in found]
            continue
        if len(found) != 1:
            option = flag.partition(" ")[0]
            raise UsageError(f"--{option} {name} means {len(found)} sites. Give one, such as {found[0]}.")
        names.append(found[0].name)
    return JOIN.join(names)
