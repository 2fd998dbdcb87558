"""Write world.md and its pictures from the report that ships with the model; a test asks that this was run."""

import json
from pathlib import Path

from lensing.draw.worldpage import FOLDER, world_page

HERE = Path(__file__).parent
REPORT = HERE.parent / "src" / "lensing" / "assets" / "almanac" / "report.json"
HEAD = "<!-- Written by `make docs` from the report that ships with the model; do not edit. -->\n\n"


def files() -> dict[str, str]:
    """Return the page and its pictures as text, by their paths beside this file."""
    text, pictures = world_page(json.loads(REPORT.read_text(encoding="utf-8")))
    return {"world.md": HEAD + text} | {f"{FOLDER}/{name}": picture for name, picture in pictures.items()}


if __name__ == "__main__":
    if not REPORT.exists():
        print(f"No {REPORT.name} ships with the model yet: docs/world.md is left as it is. `make world` makes it.")
    else:
        found = files()
        (HERE / FOLDER).mkdir(exist_ok=True)
        for old in (HERE / FOLDER).glob("*.svg"):
            if f"{FOLDER}/{old.name}" not in found:
                old.unlink()
        for name, text in found.items():
            (HERE / name).write_text(text, encoding="utf-8")
