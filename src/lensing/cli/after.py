"""What to run next: a command that works as it stands."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lensing.errors import LensingError
from lensing.registry import shipped_models

WORDS = 8  # tokens of the prompt
OFTEN, SELDOM = 0.1, 1e-3  # densities between which a latent is worth a look


def next_command(dictionary: Any, out: Path, *, name: str | None, model: Any, source: Any) -> str:
    """The command that shows a new dictionary: it steers a latent, where its model can be asked; else it verifies.

    The prompt is the beginning of a held-out document; the latent is, of those that fire neither always nor hardly
    ever, the one that fires most strongly. `name` is the model's as it was given, `model` the model if it was loaded.
    """
    verify = shlex.join(["lensing", "verify", str(out)])
    if dictionary.is_transcoder or dictionary.parts or dictionary.sample is None:
        return verify
    from lensing.training.behaviour import find_model, name_model

    try:
        loaded = model or find_model(source)
        prompt, latent, name = _prompt(loaded, dictionary), _latent(dictionary), name or name_model(source)
    except LensingError:
        return verify
    if prompt is None or latent is None:
        return verify
    words = ["lensing", "steer", prompt, "--dictionary", str(out), "--latent", str(latent)]
    # a shipped model is found by the dictionary itself
    return shlex.join(words if loaded.name in shipped_models() else [*words, "--model", name])


def _prompt(model: Any, dictionary: Any) -> str | None:
    if model.tokenizer is None:
        return None
    for document in dictionary.sample.documents():
        start = int(bool(document) and document[0] == model.bos_id)
        text = " ".join(model.tokenizer.decode(document[start : start + WORDS], skip_special_tokens=True).split())
        if not text or text.startswith("-") or not text.isprintable():
            continue
        try:
            model.encode(text)
        except LensingError:
            continue
        return text
    return None


def _latent(dictionary: Any) -> int | None:
    density, largest = dictionary.statistics.density, dictionary.statistics.max_activation
    for wanted in ((density > SELDOM) & (density < OFTEN), density > 0):
        if bool(wanted.any()):
            return int(largest.where(wanted, largest.min() - 1).argmax())
    return None
