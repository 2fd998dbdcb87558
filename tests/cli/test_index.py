"""`lensing index` and `lensing latent` as they are typed: built, shown, repeated, and wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from walking import tiny_dictionary

from lensing.cli import main


@pytest.fixture(scope="module")
def base(model_folder, make_model, tmp_path_factory):
    base = tmp_path_factory.mktemp("index")
    sentences = ["the bird sang by the river", "the reader trusts the almanac on monday", "he said that she was seen"]
    (base / "text.txt").write_text("\n\n".join(f"{sentences[i % 3]} {sentences[(i + 1) % 3]}" for i in range(40)))
    tiny_dictionary(make_model("gemma2")).save(base / "sae")
    (base / "model").symlink_to(model_folder("gemma2"), target_is_directory=True)
    return base


def run(capsys, *arguments):
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def build(base, out, *more):
    return ("index", base / "sae", "--model", base / "model", "--text", base / "text.txt", "--out", out, *more)


def test_build_show_and_repeat(base, capsys, tmp_path):
    out = tmp_path / "index"
    code, said, err = run(capsys, *build(base, out, "--top", 3))
    assert code == 0, err
    assert "latents never fire" in said
    assert f"lensing latent {out} 0" in said.replace("\n", "")
    facts = json.loads(run(capsys, *build(base, out, "--top", 3, "--json"))[1])
    count = np.load(out / "count.npy")
    assert facts["latents"] == len(count)
    assert facts["dead"] == int((count == 0).sum())
    assert facts["l0"] == pytest.approx(count.sum() / facts["tokens"])
    best = int(count.argmax())
    code, said, _ = run(capsys, "latent", out, best)
    assert code == 0
    for part in (f"Latent {best} fires on {count[best]:,} tokens", "the strongest: peaks", "fires on: ", "points as"):
        assert part in said
    page = json.loads(run(capsys, "latent", out, best, "--json")[1])
    assert page["count"] == count[best]
    assert len(page["groups"][0]["examples"]) <= 3
    code, _, err = run(capsys, "run", out, "--out", tmp_path / "again")
    assert code == 0, err
    assert np.array_equal(np.load(tmp_path / "again" / "count.npy"), count)


def test_silent_latents_say_so(base, capsys, tmp_path):
    out = tmp_path / "index"
    run(capsys, *build(base, out, "--tokens", 20))
    dead = np.flatnonzero(np.load(out / "count.npy") == 0)
    if not len(dead):
        pytest.skip("every latent fires on these tokens")
    assert f"Latent {dead[0]} never fires on this text." in run(capsys, "latent", out, dead[0])[1]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--top", "0"), "top is 0"),
        (("--tokens", "99999999"), "fewer than the 99,999,999 asked for"),
        (("--context", "1"), "The context is 1"),
    ],
)
def test_bad_input(base, capsys, tmp_path, more, why):
    code, _, err = run(capsys, *build(base, tmp_path / "x", *more))
    assert code == 2
    assert why in err
    assert "Traceback" not in err
    assert not (tmp_path / "x").exists()


def test_wrong_folders_and_latents(base, capsys, tmp_path):
    out = tmp_path / "index"
    run(capsys, *build(base, out, "--tokens", 100))
    code, _, err = run(capsys, *build(base, out, "--tokens", 150))
    assert code == 2
    assert "holds another index (text: digest" in err
    assert "no latent 100000" in run(capsys, "latent", out, 100000)[2]
    assert "holds no finished index" in run(capsys, "latent", tmp_path, 0)[2]
    (out / "index.json").write_text("{")
    code, _, err = run(capsys, "latent", out, 0)
    assert code == 1
    assert "is not JSON" in err
