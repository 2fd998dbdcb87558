"""`lensing sweep` and TOML files: options from a file, what is wrong in one by file and line, the table."""

from __future__ import annotations

import json

import pytest

import lensing as ln
from lensing.cli import main
from lensing.config import Toml


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join("the old book that a reader kept by the river" for _ in range(60)), encoding="utf-8")
    return file


@pytest.fixture
def run(model_folder, text, tmp_path):
    """What to read and where to write, as options."""
    options = {"model": model_folder("llama"), "site": "mlp_out.1", "text": text, "batch": 64}
    options |= {"out": tmp_path / "out", "tokens": 256}
    return {name: str(value) for name, value in options.items()}


def flags(options):
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def toml(path, options, more=""):
    lines = [f"{name} = {value if value.isdigit() else json.dumps(value)}" for name, value in options.items()]
    path.write_text("\n".join(lines) + "\n" + more, encoding="utf-8")
    return str(path)


def test_a_grid_on_the_command_line(run, tmp_path, capsys):
    grid = ["--architecture", "topk,relu", "--width", "8", "16", "--k", "2,3", "--l0", "3"]
    assert main(["sweep", *flags(run), *grid, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    names = [member["name"] for member in table["members"]]
    assert names == ["topk-w8-k2", "topk-w8-k3", "topk-w16-k2", "topk-w16-k3", "relu-w8-l0_3", "relu-w16-l0_3"]
    assert json.loads((tmp_path / "out" / "sweep.json").read_text()) == table
    for member in table["members"]:
        sae = ln.load_dictionary(tmp_path / "out" / member["name"])
        assert sae.statistics.fvu == pytest.approx(member["fvu"])
        assert member["loss_recovered"] is not None
        assert member["loss_recovered_se"] >= 0
    assert main(["sweep", *flags(run), *grid]) == 0
    shown = capsys.readouterr().out
    assert "loss recovered" in shown
    assert all(name in shown for name in names)


def test_a_member_is_what_train_makes(run, tmp_path, capsys):
    assert main(["sweep", *flags(run), "--architecture", "topk", "--width", "8", "--k", "2,3", "--seed", "4"]) == 0
    run["out"] = str(tmp_path / "alone")
    more = ["--width", "8", "--k", "3", "--seed", "4", "--text-seed", "0"]
    assert main(["train", "topk", *flags(run), *more]) == 0
    assert (tmp_path / "alone" / "weights.safetensors").read_bytes() == (
        tmp_path / "out" / "k3" / "weights.safetensors"
    ).read_bytes()


def test_a_member_that_fails_gives_exit_code_1_and_a_line(run, capsys):
    more = ["--architecture", "topk", "--width", "8", "--k", "2", "--lr", "0.001,1e9"]
    assert main(["sweep", *flags(run), *more]) == 1
    shown = capsys.readouterr()
    assert "lr1e+09 failed at step 1: The loss is" in " ".join(shown.out.split())
    assert "lr0.001" in shown.out


def test_grids_from_a_file_and_the_command_line_wins(run, tmp_path, capsys):
    more = 'width = [8, 16]\n\n[[grid]]\narchitecture = "topk"\nk = 2\naux_coef = 0.0\n\n[[grid]]\n'
    file = toml(tmp_path / "sweep.toml", run, more + 'architecture = ["relu", "gated"]\nsparsity = 0.1\n')
    assert main(["sweep", "--config", file, "--width", "12", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [m["name"] for m in table["members"]] == ["topk-k2-auxcoef0", "relu-sparsity0.1", "gated-sparsity0.1"]
    assert {m["config"]["width"] for m in table["members"]} == {12}
    assert table["members"][0]["config"]["aux_coef"] == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "widht = 8\n",
            "There is no option of a sweep named 'widht'. Did you mean 'width' or 'bandwidth'? (FILE, line 7)",
        ),
        ('\nwidth = "8"\n', 'FILE, line 8: width is "8". Give a whole number or a list of whole numbers there.'),
        ("batch = 8.5\n", "FILE is not TOML: Cannot overwrite a value"),
        ("ema = true\n", "FILE, line 7: ema is true. Give a number there."),
        (
            "[[grid]]\nk = 2\n[[grid]]\nkk = 3\n",
            "There is no axis of a sweep named 'kk'. Did you mean 'k'? (FILE, line 10)",
        ),
        ("[grid]\nk = 2\n", "FILE, line 7: grid is no table. Write each grid below [[grid]]."),
        ('log = "wand"\n', 'FILE, line 7: log is "wand". Give "wandb" or "trackio" or "tensorboard"'),
        ("width = [\n", "FILE is not TOML: Invalid value"),
    ],
)
def test_what_is_wrong_in_a_file(more, said, run, tmp_path, capsys):
    file = toml(tmp_path / "sweep.toml", run, more)
    assert main(["sweep", "--config", file, "--architecture", "topk"]) in (1, 2)
    shown = capsys.readouterr().err
    assert shown.startswith(f"lensing: {said.replace('FILE', file)}")
    assert shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "sweep needs --out. Give the folder for its dictionaries and its table."),
        (["--out", "o", "--width", "8,x"], 'Invalid value for --width: unable to convert "x" into int.'),
        (["--out", "o", "--width", "8"], "A sweep needs an architecture. Give one or several: topk"),
        (["--out", "o", "--architecture", "topk", "--width", "8"], "topk lacks k. Give every setting"),
        (["--out", "o", "--architecture", "topk", "--k", "2", "--l0", "3"], "There is no setting of these"),
        (["--config", "none.toml"], "There is no file none.toml. Give the path of a TOML file."),
    ],
)
def test_what_is_wrong_on_the_command_line(arguments, said, capsys):
    assert main(["sweep", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"lensing: {said}")


# --- lensing train --config ---


def test_teams_need_processes(run, tmp_path, capsys):
    assert main(["sweep", *flags(run), "--architecture", "topk", "--width", "8", "--k", "2", "--teams", "2"]) == 2
    assert capsys.readouterr().err.startswith("lensing: 1 process cannot be dealt out as 1 for the latents (--tp)")
    assert not (tmp_path / "out").exists()


def test_train_from_a_file(run, tmp_path, capsys):
    more = 'architecture = "topk"\nwidth = 16\nk = 2\nprefixes = [4, 8]\nskip = false\n'
    file = toml(tmp_path / "run.toml", run, more)
    assert main(["train", "--config", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 256
    sae = ln.load_dictionary(tmp_path / "out")
    assert (sae.d_sae, sae.config.k, sae.config.prefixes, sae.architecture) == (16, 2, (4, 8), "topk")
    more = ["--config", file, "--k", "3", "--out", str(tmp_path / "other")]
    assert main(["train", *more]) == 0
    assert ln.load_dictionary(tmp_path / "other").config.k == 3
    assert main(["train", "batchtopk", *more[:-1], str(tmp_path / "third")]) == 0
    assert ln.load_dictionary(tmp_path / "third").architecture == "batchtopk"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "FILE names no architecture. Add a line such as architecture"),
        ('architecture = "topq"\n', "There is no architecture named 'topq'. Did you mean 'topk'? (FILE, line 7)"),
        ('architecture = ["topk"]\n', "FILE, line 7: a training has one architecture. Give it in quotes"),
        ('architecture = "topk"\nkk = 2\n', "There is no option named 'kk'. Did you mean 'k'? (FILE, line 8)"),
        ('architecture = "topk"\nk = "2"\n', 'FILE, line 8: k is "2". Give a whole number there.'),
        ('architecture = "topk"\nk = 2\n', "train topk needs --width."),
    ],
)
def test_what_is_wrong_in_a_training_file(more, said, run, tmp_path, capsys):
    file = toml(tmp_path / "run.toml", run, more)
    assert main(["train", "--config", file]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"lensing: {said.replace('FILE', file)}"), shown
    assert not (tmp_path / "out").exists()


def test_lines_are_found_past_comments_texts_and_tables(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text('# k = 1\nnote = """\nk = 2\n"""\n"k" = 3\n[[grid]]\nk = 4\n[[grid]]\n  k= 5\n[other]\nk = 6\n')
    found = Toml(file)
    assert (found.line("note"), found.line("k")) == (2, 5)
    assert (found.line("k", "grid", 0), found.line("k", "grid", 1), found.line("k", "other")) == (7, 9, 11)
    assert (found.line("grid"), found.line("absent")) == (6, 1)
