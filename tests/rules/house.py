"""What the rule tests share: the repository's files and the modules that each one imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "lensing"
MODULES = sorted(SOURCE.rglob("*.py"))


def texts() -> Iterator[tuple[Path, str]]:
    """Yield every text file that a clone would hold (those of the index where there is git) with its content."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    skipped = {".git", ".venv", "__pycache__", "node_modules"}
    found = [ROOT / name for name in listed.split("\0") if name] or [
        path for path in ROOT.rglob("*") if path.is_file() and not skipped & set(path.relative_to(ROOT).parts)
    ]
    for path in found:
        if path.is_file() and b"\0" not in (raw := path.read_bytes()):
            yield path.relative_to(ROOT), raw.decode("utf-8")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full dotted name of everything that a file imports, wherever in the file it does so."""
    here = ["lensing", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
