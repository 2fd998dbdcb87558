"""`lensing walk` as it is typed: the drawing, the JSON, text of one's own, and one line where something is wrong."""

from __future__ import annotations

import json

import pytest
from walking import tiny_dictionary

from lensing.cli import main

PROMPT = "the reliability of the almanac is very"


@pytest.fixture
def run(model_folder, capsys):
    folder = str(model_folder("gemma2"))
    capsys.readouterr()  # what saving the model said

    def run(*arguments: str, prompt: str = PROMPT):
        code = main(["walk", prompt, "--model", folder, "--new-tokens", "3", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_drawn_and_as_json_with_text_of_ones_own(run, make_model, tmp_path):
    tiny_dictionary(make_model("gemma2")).save(tmp_path / "a")
    (tmp_path / "text.txt").write_text("a bird sang by the river\n\nold book on monday")
    arguments = ("--dictionary", str(tmp_path / "a"), "--text", str(tmp_path / "text.txt"))
    code, out, _ = run(*arguments)
    assert code == 0
    assert " 9  The ledger of this sentence" in out
    code, out, _ = run(*arguments, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["text"] == {"name": "the text given", "tokens": 10, "labelled": False}
    assert len(found["ledger"]) == 8


def test_without_a_dictionary_it_says_how_to_train_one(run, model_folder):
    code, out, _ = run()
    assert code == 0
    assert f"lensing train topk --model {model_folder('gemma2')} --site resid_post.1" in out


@pytest.mark.parametrize(
    ("arguments", "prompt", "said"),
    [
        (("--text", "nowhere.txt"), PROMPT, "There is no file nowhere.txt."),
        (("--latent", "3"), PROMPT, "Latent 3 belongs to no dictionary here."),
        ((), "the reliability of wikipedia", "'wikipedia' is not a word"),
        ((), " ", "The prompt is empty."),
    ],
)
def test_one_line_where_something_is_wrong(run, arguments, prompt, said):
    code, out, err = run(*arguments, prompt=prompt)
    assert (code, out) == (2, "")
    assert err.startswith(f"lensing: {said}")
    assert err.count("\n") == 1
