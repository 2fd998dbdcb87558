"""What a person sees when the command line itself is wrong: one sentence, the nearest name, exit code 2."""

from __future__ import annotations

import pytest

from lensing.cli import main
from lensing.cli.steer import positions
from lensing.errors import UsageError

TRAIN = ["train", "topk", "--model", "m", "--site", "s", "--tokens", "9", "--out", "o", "--width", "8", "--k", "2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["wlak", "x"], "There is no command named 'wlak'. Did you mean 'walk'?"),
        (["train", "topq"], "There is no command named 'topq'. Did you mean 'topk'?"),
        (["--verson"], "There is no option named '--verson'. Did you mean '--version'?"),
        (["walk", "x", "--modle", "y"], "Unknown option: --modle. Did you mean --model?"),
        (["walk"], "walk needs PROMPT. See lensing walk --help."),
        (["walk", "x", "--model"], "walk needs a value for --model. See lensing walk --help."),
        (["train", "topk", "--width", "8"], "train topk needs --k. See lensing train topk --help."),
        (
            ["walk", "The", "reliability", "of"],
            "'reliability of' was left over. Put a prompt of several words in quotes, or see lensing walk --help.",
        ),
        (
            ["walk", "x", "--latent", "two"],
            'Invalid value for --latent: unable to convert "two" into int. See lensing walk --help.',
        ),
        (
            ["steer", "x", "--dictionary", "d", "--latent", "1", "--at", "here"],
            "'here' is no range of positions. Give --at all, prompt, generated, a position such as 5, "
            "or a range such as 3:7.",
        ),
        (TRAIN, "There must be one source of text. Give either --text FILE or --sample TOKENS."),
        (
            [*TRAIN, "--text", "a.txt", "--sample", "5"],
            "There must be one source of text. Give either --text FILE or --sample TOKENS.",
        ),
        ([*TRAIN, "--text", "none.txt"], "There is no file none.txt. Give the path of a .txt or .jsonl file."),
        ([*TRAIN[:-1], "20", "--sample", "5"], "k is 20, outside 1 to the width 8. Give fewer active latents."),
    ],
)
def test_one_sentence_and_exit_code_2(arguments, said, capsys):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err == f"lensing: {said}\n"
    assert shown.out == ""


@pytest.mark.parametrize("arguments", [["--help"], [], ["walk", "--help"], ["train", "--help"], ["--version"]])
def test_help_is_no_error(arguments, capsys):
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out
    assert not shown.err
    assert max(map(len, shown.out.splitlines())) <= 100


def test_each_architecture_has_its_own_command(capsys):
    from lensing.dictionary.configs import ARCHITECTURES

    main(["train", "--help"])
    shown = capsys.readouterr().out
    assert {"topk", "batchtopk"} <= set(ARCHITECTURES)
    assert all(f" {name} " in shown for name in ARCHITECTURES)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("all", "all"),
        ("prompt", "prompt"),
        ("generated", "generated"),
        ("3:7", slice(3, 7)),
        ("3:", slice(3, None)),
        (":7", slice(None, 7)),
        ("5", 5),
        ("-1", -1),
    ],
)
def test_positions(text, meant):
    assert positions(text) == meant


@pytest.mark.parametrize("text", ["", "a:b", "1:2:3", "1.5", "every"])
def test_positions_that_are_none(text):
    with pytest.raises(UsageError, match="is no range of positions"):
        positions(text)
