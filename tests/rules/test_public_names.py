"""`lensing` is a table of contents: every name in it is there, stays what it is, and is no module's name."""

from __future__ import annotations

from rules.house import SOURCE, python

import lensing

IMPORT_ALL = """
import importlib, pkgutil, types
import lensing
before = {name: getattr(lensing, name) for name in lensing.__all__}
for module in pkgutil.walk_packages(lensing.__path__, "lensing."):
    if not module.name.endswith(("__main__", "triton_kernels")):  # which needs triton, and so a GPU
        importlib.import_module(module.name)
after = {name: getattr(lensing, name) for name in lensing.__all__}
moved = [name for name in before if before[name] is not after[name] or isinstance(after[name], types.ModuleType)]
assert not moved, f"importing every module changed {moved}"
"""


def test_importing_every_module_moves_no_public_name():
    done = python(IMPORT_ALL)
    assert done.returncode == 0, done.stderr


def test_no_public_name_is_a_top_level_module():
    modules = {path.name.removesuffix(".py") for path in SOURCE.iterdir()}
    assert not modules & set(lensing.__all__)


def test_unknown_names_are_attribute_errors():
    assert not hasattr(lensing, "no_such_name")
    assert set(dir(lensing)) == set(lensing.__all__)
