"""`lensing steer` on a tiny model, end to end, and what it says when it cannot."""

from __future__ import annotations

import json

import pytest

import lensing as ln
from lensing.cli import main


@pytest.fixture(scope="module")
def dictionary(model_folder, tmp_path_factory):
    model = ln.load_model(model_folder("llama"))
    texts = ["the bird sang by the river", "the reader trusts the almanac on monday", "he said that she was seen"] * 20
    folder = tmp_path_factory.mktemp("dictionary") / "d"
    ln.train(ln.live(model, texts, sites="resid_post.1"), ln.TopK(width=16, k=2), batch=64, out=folder, quiet=True)
    return folder


@pytest.fixture
def arguments(dictionary, model_folder):
    found = ln.load_dictionary(dictionary)
    alive = int(found.statistics.max_activation.argmax())
    return ["steer", "the reliability of the almanac is very", "--dictionary", str(dictionary), "--model",
            str(model_folder("llama")), "--new-tokens", "4", "--seeds", "2", "--latent", str(alive)]  # fmt: skip


def test_doses_as_json(arguments, capsys):
    assert main([*arguments, "--strength", "0", "1.5", "--watch", "doubtful", "certain", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    by_name = {d["name"]: d for d in found["directions"]}
    assert {"latent", "random latent", "random direction"} <= set(by_name)
    assert [dose["strength"] for dose in by_name["latent"]["doses"]] == [0, 1.5]
    assert by_name["latent"]["doses"][0]["coherence_cost"] == 0
    assert by_name["latent"]["doses"][1]["side_effect"] > 0
    assert sorted(found["watch"]["watched"]) == ["certain", "doubtful"]


def test_two_files_give_the_latent_and_the_difference_of_means(arguments, tmp_path, capsys):
    for name, text in (("a", "the bird sang by the river"), ("b", "he said that she was seen")):
        (tmp_path / f"{name}.txt").write_text("\n\n".join([text] * 6), encoding="utf-8")
    del arguments[arguments.index("--latent") :]
    files = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    assert main([*arguments, "--contrast", *files, "--strength", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "difference of means" in [d["name"] for d in found["directions"]]


def test_a_latent_that_is_not_there(arguments, capsys):
    assert main([*arguments[:-1], "16"]) == 2
    assert "There is no latent named '16'." in capsys.readouterr().err


def test_no_latent_at_all(arguments, capsys):
    assert main(arguments[:-2]) == 2
    said = "There is no latent to steer. Give --latent N, or --contrast A.txt B.txt to find one."
    assert capsys.readouterr().err == f"lensing: {said}\n"


def test_a_dictionary_of_another_model_needs_the_model(arguments, dictionary, capsys):
    place = arguments.index("--model")
    assert main(arguments[:place] + arguments[place + 2 :]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"lensing: {dictionary} was trained on ")
    assert said.endswith("which is not shipped. Give --model FOLDER.\n")


def test_an_unknown_dictionary(arguments, capsys):
    arguments[arguments.index("--dictionary") + 1] = "almanac/mlp_uot.2/w9"
    assert main(arguments) == 2
    assert "There is no dictionary named 'almanac/mlp_uot.2/w9'." in capsys.readouterr().err


def test_a_prompt_with_unknown_words(arguments, capsys):
    assert main([*arguments[:1], "the zebra is very", *arguments[2:]]) == 2
    assert "zebra" in capsys.readouterr().err
