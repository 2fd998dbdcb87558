"""`lensing lens` as it is typed: drawn, as JSON, as a picture, through a tuned lens, and wrong."""

from __future__ import annotations

import json

import pytest
import torch

from lensing.cli import main
from lensing.lens.lens import Lens
from lensing.lens.tuned import save_lens

PROMPT = "the reliability of the almanac is very"


@pytest.fixture
def run(model_folder, capsys):
    folder = str(model_folder("gemma2"))
    capsys.readouterr()

    def run(*arguments: str, prompt: str = PROMPT):
        code = main(["lens", prompt, "--model", folder, *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_drawn_and_as_json(run):
    code, out, _ = run("--answer", "doubtful")
    assert code == 0
    assert "p('doubtful')" in out
    assert "leads for good from" in out
    code, out, _ = run("--json", "--top", "3")
    found = json.loads(out)
    assert code == 0
    assert found["layers"] == [-1, 0, 1, 2]
    assert len(found["ids"][0][0][0]) == 3
    assert found["kl"][-1] == [[0.0] * 8]


def test_through_a_tuned_lens(run, make_model, tmp_path):
    model = make_model("gemma2")
    eye, zero = torch.eye(model.d_model), torch.zeros(model.d_model)
    same = Lens("tuned", dict.fromkeys(range(-1, 2), eye), dict.fromkeys(range(-1, 2), zero))
    save_lens(same, tmp_path / "lens", model)
    tuned, plain = (json.loads(run("--json", *more)[1]) for more in (("--tuned", str(tmp_path / "lens")), ()))
    assert (tuned["kind"], plain["kind"]) == ("tuned", "logit")
    assert tuned["ids"] == plain["ids"]
    code, _, err = run("--tuned", str(tmp_path))
    assert code == 1
    assert "holds no config.json" in err


def test_as_a_picture(run, tmp_path):
    pytest.importorskip("matplotlib")
    assert run("--picture", str(tmp_path / "lens.svg"))[0] == 0
    assert (tmp_path / "lens.svg").stat().st_size > 1000
    code, _, err = run("--picture", str(tmp_path / "lens.gif"))
    assert code == 2
    assert ".svg, .png, .pdf" in err


def test_bad_input(run):
    code, _, err = run("--answer", "zebra")
    assert code == 2
    assert "'zebra' is not a word" in err
    assert run(prompt="")[0] == 2
