"""The drawing of the walk: nine beats of few lines within the console's width, with and without colour."""

from __future__ import annotations

import dataclasses
import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console
from walking import PROMPT, tiny_dictionary

import lensing as ln
from lensing.draw.contexts import context_lines
from lensing.draw.image import image, images, shape
from lensing.draw.walk import draw_walk
from lensing.measure.contexts import Context
from lensing.measure.cover import Cover


@pytest.fixture(scope="module")
def walk(make_model):
    model = make_model("gemma2")
    return ln.walk(PROMPT, model=model, dictionary=tiny_dictionary(model), new_tokens=6)


def console(width: int = 100, colour: bool = False) -> Console:
    return Console(
        file=io.StringIO(), width=width, force_terminal=colour, color_system="truecolor" if colour else None,
        highlight=False,
    )  # fmt: skip


def drawn(found, **settings) -> str:
    target = console(**settings)
    draw_walk(found, target)
    return target.file.getvalue()  # type: ignore[attr-defined]


def beats(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        title = re.match(r" ([0-9-]+)  .*─", line)
        if title:
            found[title[1]] = []
        elif found:
            found[list(found)[-1]].append(line)
    return found


@pytest.mark.parametrize("width", [100, 80])
def test_nine_beats_of_few_lines(walk, width):
    text = drawn(walk, width=width)
    found = beats(text)
    assert list(found) == [str(i) for i in range(1, 10)]
    assert all(any(line.strip() for line in lines) for lines in found.values())
    assert max(map(len, text.splitlines())) <= width
    if width == 100:
        assert {n: len(lines) for n, lines in found.items() if len(lines) > 27} == {}


def test_the_numbers_are_there(walk):
    found = {n: "\n".join(lines) for n, lines in beats(drawn(walk)).items()}
    b = walk.beyond
    assert "almanac" in found["1"]
    assert "32 numbers" in found["2"]
    assert all(f"layer {i}" in found["2"] for i in range(3))
    assert f"{walk.lens.top(2)[0][1]:.2f}" in found["3"]
    assert walk.text in found["3"]
    assert f"Neuron {b.neuron.index} of mlp_post.1" in found["4"]
    assert f"{b.neuron.top[0].value:+.2f}" in found["4"]
    assert f"{b.neuron.bottom[0].value:+.2f}" in found["4"]
    assert "random direction, median of 5" in found["4"]
    assert "other neuron, median of 5" in found["4"]
    assert "error" in found["5"]
    assert f"{b.effects.error.effect:+.2f}" in found["5"]
    assert f"latent {b.latent}" in drawn(walk)
    assert f"{b.followed.examples[0].value:+.2f}" in found["6"]
    assert f"{b.splice.kl:.3f}" in found["7"]
    assert "random latent" in found["8"]
    assert f"{b.steering.doses[-1].coherence_cost:+.2f}" in found["8"]
    assert f"{b.ledger[-1].not_reconstructed:.2f}" in found["9"]
    assert " ".join(b.says.split()) in " ".join(found["9"].split())


def test_colours_change_no_text(walk):
    plain = drawn(walk)
    coloured = drawn(walk, colour=True)
    assert "\x1b[" in coloured
    assert "\x1b[" not in plain
    bare = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert beats(bare)["5"] == beats(plain)["5"]
    assert "▀" in bare
    assert "▀" not in plain  # without colour, half blocks would all look alike


def test_text_is_never_wrapped(walk):
    long = dataclasses.replace(walk, text=walk.text + " word" * 60, continuation=walk.continuation + " word" * 60)
    assert walk.text + " word" * 60 in drawn(long)


def test_without_a_dictionary(walk):
    text = drawn(dataclasses.replace(walk, beyond=None, missing="They need a dictionary: " + "x" * 120))
    assert list(beats(text)) == ["1", "2", "3", "4-9"]
    assert "They need a dictionary: " + "x" * 120 in text


def test_covers_that_fail_say_so(walk):
    b = walk.beyond
    covers = {
        "positive": Cover(("word.a", "word.b"), None, 0.35, 9), "negative": Cover((), None, 0.0, 0),
        "latent": Cover(("word.a",), 1, 0.9, 9),
    }  # fmt: skip
    neuron = dataclasses.replace(b.neuron, covers=covers, others=(), random=())
    text = drawn(dataclasses.replace(walk, beyond=dataclasses.replace(b, neuron=neuron)))
    assert re.search(r"above zero +9 +not within 2 +\(35% covered\) word\.a, word\.b", text)
    assert re.search(r"below zero +0 +never fires", text)
    none = drawn(dataclasses.replace(walk, beyond=dataclasses.replace(b, neuron=None)))
    assert "so none is shown" in none


@pytest.mark.parametrize(("n", "rows", "columns"), [(144, 12, 12), (64, 8, 8), (2304, 48, 48), (32, 4, 8), (62, 8, 8)])
def test_shapes(n, rows, columns):
    assert shape(n) == (rows, columns)
    assert len(image([1.0] * n, console(colour=True))) == -(-rows // 2)
    assert {line.cell_len for line in image([1.0] * n, console(colour=True))} == {columns}


def test_pixels_have_the_sign_and_place_of_their_numbers():
    vector = [-9.0, 0.0, 0.0, 9.0]
    assert [line.plain for line in image(vector, console())] == ["-·", "·+"]
    (line,) = image(vector, console(colour=True))
    first, second = (span.style for span in line.spans)
    assert first.color.triplet.blue > first.color.triplet.red  # above: -9
    assert first.bgcolor.triplet == (247, 247, 247)
    assert second.color.triplet == (247, 247, 247)
    assert second.bgcolor.triplet.red > second.bgcolor.triplet.blue  # below: 9


def test_wide_images_are_chosen_evenly():
    named = [(f"layer {i}", [1.0] * 2304, "") for i in range(27)]
    lines = images(named, console())
    assert lines[0].plain.split("layer")[1:] == [" 0" + " " * 43, " 26"]
    assert max(line.cell_len for line in lines) <= 100


def test_contexts_stand_under_one_another():
    def context(before, after):
        tokens = [f" {w}" for w in [*before, "peak", *after]]
        values = [0.0] * len(before) + [2.0] + [-1.0] * len(after)
        return Context(0, len(before), 2.0, tuple(tokens), tuple(values), len(before))

    both = [context(["a"], ["b\n"]), context(["word"] * 40, ["word"] * 40)]
    lines = [line.plain for line in context_lines(both, console())]
    assert lines[0].index("[peak]") == lines[1].index("[peak]")
    assert max(map(len, lines)) <= 100
    assert "b↵" in lines[0]
    coloured = context_lines(both, console(colour=True))
    assert "[" not in coloured[0].plain


def test_a_context_without_strength_draws():
    assert context_lines([], console()) == []
    odd = SimpleNamespace(tokens=("a",), values=(0.0,), peak=0, value=0.0)
    assert len(context_lines([odd], console())) == 1
