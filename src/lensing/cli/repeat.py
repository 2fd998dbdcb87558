"""`lensing run`: what a run.json recorded, once more."""

from __future__ import annotations

import importlib
import json as jsonlib
import sys
from pathlib import Path
from typing import Any

from lensing.config import repeating, say_differences, versions
from lensing.errors import FileFormatError, UsageError
from lensing.files import sha256

# the first word of a recorded command: what runs it again from its options
COMMANDS = {
    "train": "lensing.cli.train:repeat", "harvest": "lensing.cli.harvest:repeat", "sweep": "lensing.cli.sweep:repeat",
    "index": "lensing.cli.index:repeat",
}  # fmt: skip


def run(record: Path, /, *, out: Path | None = None, model: str | None = None, json: bool = False) -> int:
    """Repeat what a run.json recorded: a harvest, a training, a sweep, an index.

    Versions, source and weights that differ from those recorded are named on standard error. In its own folder a run
    that was stopped goes on; in a new one everything is made again, and its weights and rows are compared.

    Parameters
    ----------
    record
        A run.json, or the folder that holds one.
    out
        A new folder; the recorded one if not given.
    model
        Where the model lies now, if it was moved.
    json
        Print the result as JSON.
    """
    path = record / "run.json" if record.is_dir() else record
    before = _read(path)
    call = before["call"]
    name, options = str(call["command"]), dict(call["options"])
    word = name.partition(" ")[0]
    if word not in COMMANDS:
        raise FileFormatError(f"{path} records the command {name!r}, which cannot be repeated. Update lensing.")
    recorded = Path(str(options["out"]))
    # the record may have been moved with its folder since
    home = path.parent if (path.parent / "run.json") == path else recorded
    options |= {"out": str(out or home), "json": json} | ({"model": model} if model is not None else {})
    say_differences(before.get("versions"), versions(), "versions")
    where, _, function = COMMANDS[word].partition(":")
    with repeating(before):
        code = getattr(importlib.import_module(where), function)(name, options)
    if out is not None and out.resolve() != home.resolve():
        print(f"lensing: {compare(home, out)}", file=sys.stderr, flush=True)
    return code or 0


def compare(old: Path, new: Path) -> str:
    """Say whether two folders hold the same weights and rows, by the bytes of their safetensors files."""
    files = sorted(
        path.relative_to(old) for path in old.rglob("*.safetensors") if not path.name.startswith("checkpoint")
    )
    if not files:
        return f"{old} holds no weights or rows to compare with."
    differ = [str(name) for name in files if not (new / name).exists() or sha256(old / name) != sha256(new / name)]
    if not differ:
        return f"All {len(files)} files of weights and rows are byte for byte those of {old}."
    shown = ", ".join(differ[:5])
    return f"{len(differ)} of {len(files)} files of weights and rows differ from those of {old}: {shown}."


def _read(path: Path) -> dict[str, Any]:
    try:
        found = jsonlib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"There is no {path}. Give a run.json, or a folder that holds one.") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is not JSON: {error}. Give a run.json that lensing wrote.") from error
    if not isinstance(found, dict) or "what" not in found or "versions" not in found:
        raise FileFormatError(f"{path} is no record of a run. Give a run.json that lensing wrote.")
    call = found.get("call")
    if call is None:
        raise UsageError(
            f"{path} records a call from Python, whose text and model it does not hold. Make that call again."
        )
    if not isinstance(call, dict) or not isinstance(call.get("options"), dict) or "out" not in call["options"]:
        raise FileFormatError(f"{path} records no command and options. Give a run.json that lensing wrote.")
    return found
