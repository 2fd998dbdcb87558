"""Write cli.md from the live command line; `make docs` runs this and a test asks that it was run."""

from pathlib import Path

from lensing.cli.app import build

HEAD = "<!-- Written by `make docs` from the live command line; do not edit. -->\n\n"


def page() -> str:
    """Return the page as Markdown."""
    text = build().generate_docs(max_heading_level=3, usage_name="lensing")
    return HEAD + "\n".join(line.rstrip() for line in text.splitlines()).strip() + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(page(), encoding="utf-8")
