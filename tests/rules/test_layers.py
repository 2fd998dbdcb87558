"""A file imports only from rooms above its own, or from its own room."""

from __future__ import annotations

import pytest
from rules.house import MODULES, SOURCE, imports

# From the top down. `__init__` is the table of contents: only rooms below it may write `import lensing`.
ORDER = """
    errors files memory progress config registry assets dist shards db draw model world data dictionary measure training
    lens causal index ledger evaluation graph toy walkthrough __init__ recipes plots server cli __main__
"""
ROOMS = ORDER.split()


def room(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def room_of_import(name):
    """`lensing.model.load.load_model` is of room model; `lensing` and `lensing.__version__` are of `__init__`."""
    first = [*name.split("."), "__init__"][1]
    return first if (SOURCE / first).is_dir() or (SOURCE / f"{first}.py").is_file() else "__init__"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_up_the_list(path):
    assert room(path) in ROOMS, f"{room(path)} is no room of the design"
    low = [
        f"{path.name}:{line} imports {name}"
        for line, name in imports(path)
        if name.split(".")[0] == "lensing" and ROOMS.index(room_of_import(name)) > ROOMS.index(room(path))
    ]
    assert not low


def test_the_rule_sees_a_breach():
    assert room_of_import("lensing") == room_of_import("lensing.__version__") == "__init__"
    assert ROOMS.index(room_of_import("lensing.cli.show.show")) > ROOMS.index("model")
