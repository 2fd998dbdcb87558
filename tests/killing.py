"""Faults at every write: a copy of this process that is killed, or told that the disk is full, from its n-th one on."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from lensing.errors import LensingError

# What Python itself announces before it does it (sys.addaudithook): every change of a name in a folder is one of these.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.link")
TAKE_ROOM = ("open", "os.mkdir", "os.rename")
LIMIT = 1000  # writes of one call: far more than any here makes
REPORTED, NOT_REPORTED = 3, 4

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="a copy of this process is killed")


def _hook(folder: Path, n: int, fault: Literal["kill", "full"]) -> Callable[[str, tuple[Any, ...]], None]:
    seen = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "open":
            if not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return
        elif event not in CHANGES:
            return
        if fault == "full" and (event not in TAKE_ROOM or (event == "os.mkdir" and os.path.isdir(args[0]))):
            return
        if not any(isinstance(arg, str | bytes | Path) and os.fsdecode(arg).startswith(str(folder)) for arg in args):
            return
        seen += 1
        if seen >= n:  # a disk that is full stays full
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), args[0])

    return hook


def in_a_copy(call: Callable[[], Any], *, folder: Path, n: int, fault: Literal["kill", "full"]) -> int | None:
    """Run `call` in a copy of this process that fails from its n-th write to `folder` or below on.

    Returns what os.waitpid says; None where the call ended before. A full disk must end as an error for a person.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a copied process has none of the threads of the first
    try:
        child = os.fork()
        if not child:
            code = 0
            try:
                sys.addaudithook(_hook(folder, n, fault))
                call()
            except LensingError as error:
                code = REPORTED if "No space left on device" in str(error) else NOT_REPORTED
                if code == NOT_REPORTED:
                    traceback.print_exc()
            except BaseException:
                code = NOT_REPORTED
                traceback.print_exc()
            finally:
                os._exit(code)
        status = os.waitpid(child, 0)[1]
    finally:
        torch.set_num_threads(threads)
    return status or None


def every_write(call: Callable[[Path], Any], base: Path, fault: Literal["kill", "full"]) -> Iterator[tuple[int, Path]]:
    """For n = 1, 2, ... call with a new folder in a process that fails at its n-th write, and yield n and the folder.

    Ends with the first n that the call does not reach.
    """
    wanted = os.WEXITSTATUS if fault == "full" else os.WTERMSIG
    for n in range(1, LIMIT):
        folder = base / f"{fault}{n}"
        status = in_a_copy(lambda folder=folder: call(folder), folder=folder, n=n, fault=fault)  # type: ignore[misc]
        if status is None:
            return
        assert wanted(status) == (REPORTED if fault == "full" else signal.SIGKILL), f"write {n}: {status}"
        yield n, folder
    raise AssertionError(f"more than {LIMIT} writes")


def names(folder: Path) -> set[str]:
    """What is in a folder, half-written files left out."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix != ".part"}
