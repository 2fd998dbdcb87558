"""The page as a stranger gets it: the wheel in an empty folder, served, and a real browser without a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """A folder that holds what the wheel holds, and nothing of this one."""
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(out), str(ROOT)], check=True, capture_output=True)
    found = next(out.glob("lensing-*.whl"))
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(out / "site"), str(found)], check=True, capture_output=True
    )
    return out / "site", found


@pytest.fixture(scope="session")
def address(wheel, tmp_path_factory):
    """The address of a server that runs the wheel in a folder of its own."""
    site, _ = wheel
    home = tmp_path_factory.mktemp("home")
    run = home / "runs" / "sparse"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("".join(f'{{"step": {i}, "loss": {9 / (i + 1)}}}\n' for i in range(50)))
    env = os.environ | {"PYTHONPATH": str(site), "LENSING_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    code = "import lensing, sys; print(lensing.__file__, flush=True); from lensing.cli import main; main(sys.argv[1:])"
    server = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--port", "0"], cwd=home, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert server.stdout is not None
    assert server.stderr is not None
    assert str(site) in server.stdout.readline(), "the source tree was served, not the wheel"
    for line in server.stderr:
        if found := re.search(r"http://\S+", line):
            break
    else:
        pytest.fail("the server ended without an address")
    yield found.group().rstrip("/")
    server.terminate()
    server.wait(10)


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        assert not os.environ.get("CI"), "CI must have a browser"
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser, address, request):
    """Open a page; at the end nothing may stand in the console, and nothing may have asked for another machine."""
    opened, said, strayed = [], [], []

    def visiting(path, *, width=1440, scheme="light", height=1000):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, base_url=address
        )
        context.set_default_timeout(20_000)
        context.route(
            lambda url: not url.startswith((address, "data:", "blob:")),
            lambda route: (strayed.append(route.request.url), route.abort()),
        )
        page = context.new_page()
        page.on("console", lambda m: said.append(f"{path}: {m.text}") if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: said.append(f"{path}: {e}"))
        opened.append(context)
        page.goto(path)
        page.wait_for_selector("h1")
        return page

    yield visiting
    for context in opened:
        context.close()
    assert strayed == []
    assert said == [], "the console is not empty"
