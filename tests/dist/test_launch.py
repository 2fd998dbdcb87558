"""The launch files call commands with options that exist, and shells and YAML readers take them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lensing.cli.app import build
from lensing.errors import UsageError
from lensing.training.device import find_device

LAUNCH = Path(__file__).resolve().parents[2] / "examples" / "launch"
FILES = sorted(LAUNCH.iterdir())


def commands(path: Path) -> list[list[str]]:
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    # in quotes of a shell's own, the last word ends with the outer quote
    found = re.findall(r"(?:-m lensing|^ *run) +((?:harvest|train) [^'\n]*)'?$", text, re.MULTILINE)
    return [shlex.split(line) for line in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands_parse(path: Path) -> None:
    found = commands(path)
    assert found, "a launch file launches something"
    for words in found:
        build().parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.skipif(sys.platform == "win32", reason="no bash")
@pytest.mark.parametrize("path", [path for path in FILES if path.suffix != ".yaml"], ids=lambda path: path.name)
def test_the_shell_reads_it(path: Path) -> None:
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_yaml_is_read() -> None:
    yaml = pytest.importorskip("yaml")
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text(encoding="utf-8"))
    assert set(task) == {"name", "num_nodes", "resources", "file_mounts", "setup", "run"}


def test_every_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert find_device("auto").type == "cuda"
    assert find_device("cpu").type == "cpu"
    for name, processes in (("cuda:1", "2"), ("auto", "3"), ("cuda", "3")):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        with pytest.raises(UsageError, match=f"{processes} processes were started on this machine, which has 2 GPUs"):
            find_device(name)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert find_device("cuda:1").index == 1
