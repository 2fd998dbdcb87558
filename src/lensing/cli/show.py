"""How every command shows a result and an error: rich at 100 columns, JSON, one line on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from cyclopts.exceptions import CycloptsError, MissingArgumentError, UnknownCommandError, UnusedCliTokensError

from lensing.errors import LensingError, UnknownNameError
from lensing.files import finite

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100  # columns; a narrower terminal is respected


class Result(Protocol):
    """What a public function returns: numbers that can become JSON."""

    def to_json(self) -> Any:
        """Return plain values."""
        ...


def show(result: Result, draw: Callable[[Console], None], *, as_json: bool) -> None:
    """Print `result` as JSON on standard output, or let `draw` draw it on a console."""
    if as_json:
        print(json.dumps(finite(result.to_json()), ensure_ascii=False))
    else:
        draw(console())
    sys.stdout.flush()


def is_main() -> bool:
    """Whether this process is the only one, or the first of those that torchrun started: it alone prints results."""
    return os.environ.get("RANK", "0") == "0"


def console() -> Console:
    """Return a console of at most 100 columns, and of exactly 100 where the output is not a terminal."""
    from rich.console import Console

    found = Console(highlight=False)
    return Console(highlight=False, width=min(found.width, WIDTH) if found.is_terminal else WIDTH)


def guarded(call: Callable[[], Any]) -> int:
    """Run `call` and return the exit code; an error that was meant for a person becomes one line on standard error.

    SIGTERM and SIGUSR1, which schedulers send before they take a machine away, end it as Ctrl-C does.
    """
    try:
        with _asked_to_stop():
            returned = call()
        return returned if isinstance(returned, int) else 0
    except CycloptsError as error:
        return _say(_usage(error), 2)
    except LensingError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say("Interrupted. Nothing is left half-written; run the same command again.", 130)
    except BrokenPipeError:
        # The reader went away (`lensing walk ... | head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _say(f"{error.filename or 'The system'}: {error.strerror or error}. Check the path and its rights.", 1)
    except MemoryError:
        return _say("Out of memory. Use a shorter prompt, a smaller --batch or a smaller model.", 1)


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _usage(error: CycloptsError) -> str:
    """One sentence of what is wrong on the command line, and one of what to do."""
    command = " ".join(["lensing", *(error.command_chain or ())])
    if isinstance(error, UnknownCommandError) and error.app is not None and error.unused_tokens:
        # Not cyclopts' own text: to find the nearest name it would import every command.
        name = error.unused_tokens[0]
        return str(UnknownNameError("option" if name.startswith("-") else "command", name, error.app))
    if isinstance(error, MissingArgumentError) and error.argument is not None and not error.argument.tokens:
        needed = f"a value for {error.keyword}" if error.keyword else error.argument.name
        return f"{' '.join(error.command_chain or ['lensing'])} needs {needed}. See {command} --help."
    if isinstance(error, UnusedCliTokensError):
        left = " ".join(error.unused_tokens or ())
        return f"{left!r} was left over. Put a prompt of several words in quotes, or see {command} --help."
    text = " ".join(str(error).split())
    return text if text.endswith("?") else f"{text} See {command} --help."


def _say(text: str, code: int) -> int:
    print(f"lensing: {text}", file=sys.stderr, flush=True)
    return code
