"""Every error that lensing raises on purpose: one sentence of what, one of what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LensingError(Exception):
    """Root of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(LensingError):
    """The caller asked for something that cannot be: a bad value, an unknown name, an impossible pair."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that nobody knows, with the nearest names that exist."""

    def __init__(self, kind: str, name: str, choices: Iterable[str], hint: str = "") -> None:
        self.kind, self.name = kind, name
        self.choices = sorted(set(choices))
        super().__init__(f"There is no {kind} named {name!r}. {hint or suggest(name, self.choices)}")


class PromptError(UsageError):
    """A prompt that the model cannot read: empty, too long, or with words its tokenizer does not know."""


class SiteError(UsageError):
    """A site that this model does not have or cannot give."""


class ModelError(LensingError):
    """A folder or id that does not hold a usable causal language model."""


class DictionaryError(LensingError):
    """A dictionary that does not fit the site, the model or itself."""


class FileFormatError(LensingError):
    """A file that is truncated, corrupt or not of the expected format."""


class UnsafeFileError(LensingError):
    """A file that could run code when read (a pickle), refused without an explicit flag."""


class TrainingError(LensingError):
    """Training stopped: a loss that is not finite, or no data left."""


class Interrupted(LensingError):
    """The person pressed Ctrl-C; the message says what was saved and where."""

    exit_code = 130


def nearest(name: str, choices: Iterable[str], n: int = 3) -> list[str]:
    """Return up to `n` of `choices` that look most like `name`, best first."""
    choices = list(choices)
    lowered = {c.lower(): c for c in reversed(choices)}
    found = difflib.get_close_matches(name.lower(), list(lowered), n=n, cutoff=0.5)
    return [lowered[f] for f in found]


def suggest(name: str, choices: Iterable[str]) -> str:
    """Say which names were probably meant, or list those that exist when nothing is near."""
    choices = list(choices)
    near = nearest(name, choices)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    if not choices:
        return "There are none."
    shown = ", ".join(choices[:12])
    return f"There are: {shown}{', ...' if len(choices) > 12 else ''}."
