"""Classes are abstract (or private bases, `_Name`) or final; `Dictionary` is the one open base, errors form a tree."""

from __future__ import annotations

import ast

from rules.house import MODULES, SOURCE

OPEN = {"Dictionary"}


def classes():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                yield path, node


def names(bases):
    """`abc.ABC`, `ABC` and `Base[T]` are called ABC, ABC and Base."""
    plain = [base.value if isinstance(base, ast.Subscript) else base for base in bases]
    return {base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in plain}


def is_abstract(node):
    marked = {"abstractmethod"} & {n for part in ast.walk(node) for n in names(getattr(part, "decorator_list", []))}
    return bool(marked or names(node.bases) & {"ABC", "Protocol"} or node.name.startswith("_"))


def test_nobody_inherits_from_a_concrete_class():
    known = {node.name: is_abstract(node) for path, node in classes() if path != SOURCE / "errors.py"}
    inherited = [
        f"{path.relative_to(SOURCE)}:{node.lineno} {node.name} inherits from concrete {base}"
        for path, node in classes()
        for base in names(node.bases) & set(known)
        if not known[base] and base not in OPEN
    ]
    assert not inherited
