"""Options from elsewhere than the command line: a TOML file; and options on their way into a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cyclopts import Token

from lensing.config import Toml
from lensing.registry import shipped_models

SinkName = Literal["wandb", "trackio", "tensorboard"]
_PLACES = ("model", "store", "text", "out", "dictionary")  # options that may name a file or folder
_UNSET = ("config", "json", "help", "version")  # what a file cannot set


def several(kind: type) -> Callable[[Any, Sequence[Token]], list[Any]]:
    """A converter of the values of one option, which commas part too."""

    def convert(type_: Any, tokens: Sequence[Token]) -> list[Any]:
        words = [word.strip() for token in tokens for word in token.value.split(",")]
        for word in words:
            try:
                kind(word)
            except ValueError:
                raise ValueError(f'unable to convert "{word}" into {kind.__name__}.') from None
        return [kind(word) for word in words if word]

    return convert


def fill_from_toml(app: Any, commands: tuple[str, ...], arguments: Any) -> None:
    """Give every option that stands in the file of `--config`, and not on the command line, its value from there.

    cyclopts calls this once the command line is parsed. Raises: UnknownNameError, UsageError: a key that is no option,
    or a value of another type, with file and line. FileFormatError: the file is not TOML.
    """
    options = {_key(argument.name): argument for argument in arguments if argument.name.startswith("--")}
    given = options.get("config")
    if given is None or not given.tokens or len(commands) < 2:
        return  # `lensing train --config FILE` first finds its architecture there, and is then called again with it
    file = Toml(given.tokens[-1].value)
    values = {key.replace("-", "_"): value for key, value in file.values.items()}
    values.pop("architecture", None)  # it chose the command, or the command line chose another
    hints = {key: argument.hint for key, argument in options.items() if key not in _UNSET}
    file.check(values, hints, "option")
    for key, value in values.items():
        if not options[key].tokens:
            _fill(options[key], value, f"{file.path}, line {file.line(key)}")


def _fill(argument: Any, value: Any, source: str) -> None:
    if isinstance(value, bool):
        if value:
            argument.append(Token(keyword=argument.name, implicit_value=True, source=source))
        return
    for place, one in enumerate(value if isinstance(value, list) else [value]):
        argument.append(Token(keyword=argument.name, value=str(one), source=source, index=place))


def _key(name: str) -> str:
    return name.removeprefix("--").replace("-", "_")


def absolute(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the files and folders that they name by their whole paths, so that they hold elsewhere too."""
    found = dict(options)
    for key in _PLACES:
        value = found.get(key)
        if value in shipped_models():
            continue
        if value is not None and (isinstance(value, Path) or Path(value).expanduser().exists()):
            found[key] = str(Path(value).expanduser().resolve())
    return found
