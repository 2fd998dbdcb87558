"""Pictures: written whole, in the format that the name says, refused with a sentence otherwise."""

import sys

import pytest

from lensing.errors import UsageError
from lensing.plots import draw_lens, pyplot

CELLS = [[("the", 0.9, 0.1), (" a", 0.2, 1.0)], [("b", 0.5, 0.0), ("an everlasting word", 1.0, 0.0)]]


@pytest.mark.parametrize(("name", "first"), [("a.svg", b"<?xml"), ("a.png", b"\x89PNG"), ("a.pdf", b"%PDF")])
def test_a_lens_grid_is_drawn(tmp_path, name, first):
    pytest.importorskip("matplotlib")
    path = draw_lens(["<bos>", "x"], [-1, 0], CELLS, tmp_path / name)
    assert path.read_bytes().startswith(first)
    assert not pyplot().get_fignums()
    assert list(tmp_path.iterdir()) == [path]


def test_other_formats_are_refused(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(UsageError, match=r"a.txt ends with no format of pictures"):
        draw_lens(["x", "y"], [0, 1], CELLS, tmp_path / "a.txt")


def test_without_matplotlib_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'lensing\[plots\]'"):
        pyplot()
