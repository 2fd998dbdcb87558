"""The documents tell the truth: Python blocks run, commands parse, links lead somewhere."""

from __future__ import annotations

import re
import shlex

import pytest
from rules.house import ROOT, python

from lensing.cli.app import build

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = [ROOT / "README.md", ROOT / "docs" / "quickstart.md"]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
TARGETS = re.findall(r"^([a-z-]+): ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", RUN, ids=["README", "quickstart"])
def test_python_blocks_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert blocks(page, "python")
    exec(compile("\n".join(blocks(page, "python")), str(page), "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_exist(page):
    for block in blocks(page, "console"):
        for line in re.findall(r"^\$ (.+)$", block, re.MULTILINE):
            words = shlex.split(re.split(r" [|>] ", line)[0], comments=True)
            if words[0] == "lensing":
                build().parse_args(words[1:], exit_on_error=False, print_error=False)
            elif words[0] == "make":
                assert set(words[1:]) <= set(TARGETS), line


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


def test_the_command_page_is_current():
    # In a process of its own: the page's usage lines would otherwise name pytest.
    done = python("import runpy; print(runpy.run_path('docs/make_cli.py')['page'](), end='')")
    assert done.stdout == (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), f"say make docs\n{done.stderr}"
