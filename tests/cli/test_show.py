"""Errors become one line and an exit code, results become JSON that any reader accepts."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import pytest

from lensing.cli.show import finite, guarded
from lensing.errors import Interrupted, LensingError, TrainingError, UsageError


def fail(error):
    def call():
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (LensingError("It broke. Mend it."), 1, "It broke. Mend it."),
        (TrainingError("The loss is nan at step 3. Lower --lr."), 1, "The loss is nan at step 3. Lower --lr."),
        (UsageError("No. Yes."), 2, "No. Yes."),
        (Interrupted("Stopped; the checkpoint is in runs/a."), 130, "Stopped; the checkpoint is in runs/a."),
        (KeyboardInterrupt(), 130, "Interrupted. Nothing is left half-written; run the same command again."),
        (
            PermissionError(errno.EACCES, "Permission denied", "runs/a"),
            1,
            "runs/a: Permission denied. Check the path and its rights.",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "The system: No space left on device. Check the path and its rights.",
        ),
        (MemoryError(), 1, "Out of memory. Use a shorter prompt, a smaller --batch or a smaller model."),
    ],
)
def test_errors_for_a_person(error, code, said, capsys):
    assert guarded(fail(error)) == code
    assert capsys.readouterr().err == f"lensing: {said}\n"


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 / 0)


def test_a_command_may_return_its_exit_code():
    assert guarded(lambda: 1) == 1
    assert guarded(lambda: None) == 0


def test_a_reader_that_leaves_early_is_no_crash():
    code = "import sys\nfrom lensing.cli.show import guarded\nsys.exit(guarded(lambda: print('x' * 10**6, flush=True)))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.wait() == 1
    assert process.stderr.read() == b""
    process.stderr.close()


def test_numbers_that_json_cannot_hold_become_null():
    value = {"a": [1.5, float("nan"), (float("inf"), 2)], 3: "x", "b": True, "c": None}
    text = json.dumps(finite(value), allow_nan=False)
    assert json.loads(text) == {"a": [1.5, None, [None, 2]], "3": "x", "b": True, "c": None}
