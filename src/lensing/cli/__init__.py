"""The command line: each command builds its arguments, calls one function, shows its result. No science is here."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `lensing` with `arguments` (those of the process by default) and return its exit code."""
    from lensing.cli.app import build
    from lensing.cli.show import guarded

    return guarded(lambda: build()(None if arguments is None else list(arguments)))
