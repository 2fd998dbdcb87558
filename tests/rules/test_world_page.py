"""The page on the world is what the shipped report says, and so are its pictures."""

from __future__ import annotations

import runpy

import pytest
from rules.house import ROOT

MAKE = runpy.run_path(str(ROOT / "docs" / "make_world.py"))


@pytest.mark.skipif(not MAKE["REPORT"].exists(), reason="no report.json ships with the model")
def test_the_world_page_is_current():
    docs = ROOT / "docs"
    written = {f"world/{path.name}" for path in (docs / "world").glob("*.svg")} | {"world.md"}
    found = MAKE["files"]()
    assert written == set(found), "say make docs"
    for name, text in found.items():
        assert text == (docs / name).read_text(encoding="utf-8"), f"{name}: say make docs"
