"""The repository as text: short files, one version, and no path that exists only on somebody's machine."""

from __future__ import annotations

import re
import tomllib

import pytest
from rules.house import ROOT, texts

import lensing

MAX_LINES = 450
# Absolute paths of a machine, and the one folder beside the repository, whose name only conftest.py may know.
OUTSIDE = re.compile(r"(?<![\w.~/])/(?:work|root|home|opt|tmp|mnt|data|Users|usr/local)/[\w.]|\.\./shared")
DEFAULT = re.compile(r"LENSING_TEST_DATA")
FILES = list(texts())


@pytest.mark.parametrize(("path", "text"), FILES, ids=[str(path) for path, _ in FILES])
def test_no_path_outside_the_repository(path, text):
    allowed = DEFAULT if path.name == "conftest.py" else re.compile(r"(?!)")
    lines = enumerate(text.splitlines(), start=1)
    outside = [f"{path}:{n} {line[:120]}" for n, line in lines if OUTSIDE.search(line) and not allowed.search(line)]
    assert not outside or path.name == "test_repository.py"


def test_no_source_file_is_long():
    written = [(p, t) for p, t in FILES if p.suffix in (".py", ".ts", ".tsx") and not p.name.endswith(".d.ts")]
    long = {str(p): n for p, t in written if (n := t.count("\n")) > MAX_LINES}
    assert not long


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == lensing.__version__
    assert f"version: {lensing.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert lensing.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
