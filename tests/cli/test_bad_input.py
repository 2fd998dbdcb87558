"""What `harvest`, `train`, `convert` and `verify` say to bad input: one line that names it, and nothing left behind."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lensing.cli import main
from lensing.shards import write_shard

HUGE = str(10**15)
SENTENCES = ["the bird sang by the river", "the reader trusts the almanac on monday", "he said that she was seen"]


@pytest.fixture(scope="module")
def base(model_folder: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good and bad files of every kind; no test changes it."""
    base = tmp_path_factory.mktemp("input")
    text = "\n\n".join(SENTENCES[i % 3] for i in range(60))
    (base / "good.txt").write_text(text)
    (base / "other.txt").write_text(text + "\n\na bird")
    (base / "empty.txt").write_text("")
    (base / "blank.txt").write_text(" \n\n\t\n\n")
    (base / "binary.txt").write_bytes(b"the old\n\n\x00\x01\x02\xff\n\nbook")
    (base / "latin.txt").write_bytes("the caf\xe9\n\nthe book\n\nun \xe9t\xe9\n".encode("latin-1"))
    (base / "fields.jsonl").write_text('{"txet": "the old book"}\n{"txet": "a bird"}\n[1]\n')
    (base / "broken.jsonl").write_text('{"text": "the old book"}\n{"text": \n')
    (base / "cut.txt.gz").write_bytes(gzip.compress(text.encode() * 50)[:-30])
    (base / "plain.txt.gz").write_text(text)
    (base / "folder.txt").mkdir()
    (base / "letter.pdf").write_text("dear")
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"content": ["the old book"]}), base / "table.parquet")
    (base / "broken.parquet").write_bytes(b"PAR1 no table PAR1")

    shutil.copytree(model_folder("llama"), base / "model")
    shutil.copytree(base / "model", base / "pickled")
    weights = next((base / "pickled").glob("*.safetensors"))
    torch.save({"w": torch.zeros(2)}, base / "pickled" / "pytorch_model.bin")
    weights.unlink()
    (base / "no-model").mkdir()

    torch.save({"encoder.weight": torch.zeros(4, 2)}, base / "ae.pt")
    assert main(_harvest(base, out=base / "store")) == 0
    shutil.copytree(base / "store", base / "not-finite")
    path = base / "not-finite" / "mlp_out.1" / "00000.safetensors"
    write_shard(path, {"x": torch.full((_rows(base), 32), float("nan"), dtype=torch.bfloat16)})
    shutil.copytree(base / "store", base / "removed")
    (base / "removed" / "mlp_out.1" / "00000.safetensors").unlink()
    shutil.copytree(base / "store", base / "unfinished")
    (base / "unfinished" / "mlp_out.1" / "stats.json").unlink()
    assert main([*_train("--store", base / "store"), "--out", str(base / "sae")]) == 0
    shutil.copytree(base / "sae", base / "absurd")
    record = json.loads((base / "absurd" / "config.json").read_text())
    record["config"]["width"] = 10**12
    (base / "absurd" / "config.json").write_text(json.dumps(record))
    return base


def _rows(base: Path) -> int:
    return int(json.loads((base / "store" / "store.json").read_text())["train_shards"][0])


def _harvest(base: Path, **other: Any) -> list[str]:
    options = {"model": base / "model", "text": base / "good.txt", "sites": "mlp_out.1", **other}
    return ["harvest", *(str(word) for name, value in options.items() for word in (f"--{name}", value))]


def _train(*more: Any, architecture: str = "topk", width: Any = 16, k: Any = 2) -> list[str]:
    sparse = ["--k", str(k)] if architecture == "topk" else []
    some = [] if "--batch" in more else ["--batch", "64"]
    some += [] if "--tokens" in more else ["--tokens", "256"]
    return ["train", architecture, "--width", str(width), *sparse, *some, *map(str, more)]


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    found = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in found if p.is_file()}


# what is given (paths are in the folder of files), the exit code, and words of the one line that is said
HARVEST: dict[str, tuple[dict[str, Any], list[str], int, str]] = {
    "empty file": ({"text": "empty.txt"}, [], 2, "empty.txt holds no text. Give a file with at least one document."),
    "blank file": ({"text": "blank.txt"}, [], 2, "blank.txt holds no text"),
    "binary": ({"text": "binary.txt"}, [], 1, "binary.txt, line 3 is binary: not UTF-8 text. Correct it, or leave"),
    "wrong encoding": ({"text": "latin.txt"}, [], 1, "line 1 is not UTF-8 text: unexpected end of data at byte 7. So"),
    "no usable row": ({"text": "fields.jsonl"}, [], 1, "line 1 has no text field 'text'. Did you mean 'txet'? So are"),
    "none but bad rows": (
        {"text": "fields.jsonl"}, ["--skip-bad"], 2, "holds no text (3 rows that cannot be used were left out)",
    ),
    "broken JSON": ({"text": "broken.jsonl"}, [], 1, "broken.jsonl, line 2 is not JSON: Expecting value"),
    "cut gzip": ({"text": "cut.txt.gz"}, [], 1, "cut.txt.gz is not a whole gzip file"),
    "no gzip": ({"text": "plain.txt.gz"}, [], 1, "plain.txt.gz is not a whole gzip file"),
    "no such column": ({"text": "table.parquet"}, [], 2, "There is no column named 'text'"),
    "its columns": ({"text": "table.parquet"}, [], 2, "has: content. Name one with --field"),
    "broken parquet": ({"text": "broken.parquet"}, [], 1, "broken.parquet is not a whole parquet file"),
    "folder for a file": ({"text": "folder.txt"}, [], 2, "folder.txt holds no file that is read: .txt"),
    "another ending": ({"text": "letter.pdf"}, [], 2, "letter.pdf is no kind of file that is read"),
    "no such file": ({"text": "none.txt"}, [], 2, "There is no file"),
    "file for a folder": ({"out": "good.txt"}, [], 1, "good.txt cannot be written: Not a directory"),
    "below a file": ({"out": "good.txt/acts"}, [], 1, "good.txt/acts cannot be written: Not a directory"),
    "other files": ({"out": "no-model/../model"}, [], 2, "holds other files and no store"),
    "file for a model": ({"model": "good.txt"}, [], 1, "good.txt"),
    "no model": ({"model": "no-model"}, [], 1, "no-model"),
    "pickled weights": ({"model": "pickled"}, [], 1, "is a pickle, which can run code when it is read"),
    "negative tokens": ({}, ["--tokens", "-5"], 2, "tokens is -5. Give a positive number."),
    "negative shuffle": ({}, ["--shuffle-rows", "-1"], 2, "shuffle_rows is -1"),
    "no shard rows": ({}, ["--shard-rows", "0"], 2, "shard_rows is 0"),
    "negative batch": ({}, ["--batch-tokens", "-1"], 2, "batch_tokens -1"),
    "negative share": ({}, ["--held-out", "-0.1"], 2, "held_out -0.1"),
    "all held out": ({}, ["--held-out", "1"], 2, "held_out 1.0"),
    "share of nothing": ({}, ["--held-out", "nan"], 2, "held_out nan"),
    "negative context": ({}, ["--context", "-3"], 2, "The context is -3. Give 2 to 48 tokens."),
    "long context": ({}, ["--context", HUGE], 2, f"The context is {HUGE}. Give 2 to 48 tokens."),
    "absurd tokens": ({}, ["--tokens", HUGE], 2, "fewer than the 1,000,000,000,000,000 asked for"),
    "absurd batch": ({}, ["--batch-tokens", HUGE], 2, "A pass of 1,000,000,000,000,000 tokens needs 128,000,000 GB"),
    "no number": ({}, ["--tokens", "many"], 2, 'unable to convert "many" into int'),
    "another number format": ({}, ["--dtype", "int8"], 2, "int8"),
    "another seed": ({"out": "store"}, ["--seed", "3"], 2, "holds another harvest (seed: 0, now 3"),
    "another site": ({"out": "store", "sites": "mlp_out.0"}, [], 2, "site mlp_out.1: 32 x bfloat16, now none; site"),
    "another text": ({"out": "store", "text": "other.txt"}, [], 2, "text source: good.txt, now other.txt"),
    "an unknown site": ({"sites": "mlp_uot.1"}, [], 2, "There is no site named 'mlp_uot.1'. Did you mean 'mlp_out.1'"),
}  # fmt: skip


@pytest.mark.parametrize("case", HARVEST)
def test_harvest(case: str, base: Path, tmp_path: Path, capsys: Any) -> None:
    other, flags, code, said = HARVEST[case]
    given = {name: value if name == "sites" else base / value for name, value in other.items()}
    _check([*_harvest(base, **{"out": tmp_path / "out", **given}), *flags], code, said, base, tmp_path, capsys)


S = ["--store", "{base}/store"]
TRAIN: dict[str, tuple[dict[str, Any], list[str], int, str]] = {
    "k beyond the width": ({"k": 17}, S, 2, "k is 17, outside 1 to the width 16. Give fewer active latents."),
    "negative k": ({"k": -1}, S, 2, "k is -1, outside 1 to the width 16"),
    "negative width": ({"width": -4}, S, 2, "A dictionary cannot have width -4"),
    "absurd width": ({"width": HUGE}, S, 2, "Training width 1,000,000,000,000,000 on vectors of 32 needs 1,024,000"),
    "absurd batch": ({}, [*S, "--batch", HUGE], 2, "A batch of 1,000,000,000,000,000 rows needs 384,000,000 GB"),
    "no batch": ({}, [*S, "--batch", "0"], 2, "in batches of 0. Give positive numbers."),
    "negative tokens": ({}, [*S, "--tokens", "-9"], 2, "Cannot train on -9 rows"),
    "negative rate": ({}, [*S, "--lr", "-0.1"], 2, "lr is -0.1. Give a positive number"),
    "rate of nothing": ({}, [*S, "--lr", "nan"], 2, "lr is nan"),
    "no rate": ({}, [*S, "--lr", "0"], 2, "lr is 0.0"),
    "negative seed": ({}, [*S, "--seed", "-1"], 2, "seed is -1"),
    "absurd seed": ({}, [*S, "--seed", str(10**30)], 2, f"seed is {10**30}"),
    "long memory": ({}, [*S, "--ema", "1.5"], 2, "ema is 1.5"),
    "memory of nothing": ({}, [*S, "--ema", "nan"], 2, "ema is nan"),
    "negative prefix": ({}, [*S, "--prefixes", "-2"], 2, "The prefixes [-2] do not rise"),
    "negative k_aux": ({}, [*S, "--k-aux", "-2"], 2, "k_aux is -2"),
    "weight of nothing": ({}, [*S, "--aux-coef", "nan"], 2, "aux_coef is nan"),
    "absurd silence": ({}, [*S, "--dead-after-tokens", str(10**30)], 2, f"dead_after_tokens is {10**30}"),
    "negative penalty": ({"architecture": "relu"}, [*S, "--sparsity", "-1"], 2, "sparsity is -1.0"),
    "penalty of nothing": ({"architecture": "relu"}, [*S, "--sparsity", "nan"], 2, "sparsity is nan"),
    "absurd L0": ({"architecture": "relu"}, [*S, "--l0", "1e9"], 2, "l0 is 1000000000.0, outside 0 to the width 16"),
    "absurd bandwidth": (
        {"architecture": "jumprelu"}, [*S, "--l0", "4", "--bandwidth", "inf"], 2, "bandwidth inf, frequency",
    ),
    "a device that is not here": ({}, [*S, "--device", "cuda:77"], 2, "The device 'cuda:77' is not here: torch sees"),
    "a device of no name": ({}, [*S, "--device", "gpu"], 2, "There is no device 'gpu'. Give auto, cpu, cuda or cuda"),
    "a device without float64": ({}, [*S, "--device", "mps"], 2, "Dictionaries are not trained on 'mps'"),
    "negative minutes": ({}, [*S, "--checkpoint-minutes", "-1"], 2, "checkpoint_minutes is -1.0"),
    "an unknown site": ({}, [*S, "--site", "mlp_uot.1"], 2, "There is no stored site named 'mlp_uot.1'. Did you mean"),
    "a site that is not stored": ({}, [*S, "--target", "mlp_out.0"], 2, "There is no stored site named 'mlp_out.0'"),
    "no store": ({}, ["--store", "{base}/model"], 2, "model is no store: it has no store.json"),
    "file for a store": ({}, ["--store", "{base}/good.txt"], 2, "good.txt is no store"),
    "unfinished store": ({}, ["--store", "{base}/unfinished"], 1, "stats.json is missing or broken: the harvest was"),
    "removed shard": ({}, ["--store", "{base}/removed"], 1, "00000.safetensors is missing. Run the same harvest again"),
    "rows that are not finite": ({}, ["--store", "{base}/not-finite"], 1, "00000.safetensors has changed: its hash"),
    "absurd sample": (
        {}, ["--model", "{base}/model", "--site", "mlp_out.1", "--sample", HUGE], 2, "A text of 1,000,000,000,000,000",
    ),
    "negative sample": (
        {}, ["--model", "{base}/model", "--site", "mlp_out.1", "--sample", "-4"], 2, "-4 tokens cannot be sampled",
    ),
    "empty text": (
        {}, ["--model", "{base}/model", "--site", "mlp_out.1", "--text", "{base}/empty.txt"], 2, "holds no text",
    ),
    "another run": ({"k": 3, "out": "sae"}, S, 2, "sae holds a dictionary of another run (jobs.config.k was 2, is 3)"),
    "file for a folder": ({"out": "good.txt"}, S, 1, "good.txt cannot be written"),
}  # fmt: skip


@pytest.mark.parametrize("case", TRAIN)
def test_train(case: str, base: Path, tmp_path: Path, capsys: Any) -> None:
    other, flags, code, said = TRAIN[case]
    out = base / other["out"] if "out" in other else tmp_path / "out"
    options = {name: value for name, value in other.items() if name != "out"}
    flags = [flag.format(base=base) for flag in [*flags, "--out", str(out)]]
    _check(_train(*flags, **options), code, said, base, tmp_path, capsys)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["convert", "{base}/ae.pt", "{tmp}/out"], 1, "ae.pt is a pickle, which can run code when it is read"),
        (["convert", "{base}/no-model", "{tmp}/out"], 1, "no-model"),
        (["convert", "{base}/good.txt", "{tmp}/out"], 1, "good.txt"),
        (["convert", "{base}/sae", "{base}/model"], 2, "model holds something already. Give a new folder."),
        (["convert", "{base}/sae", "{base}/good.txt/out"], 1, "good.txt/out cannot be written: File exists"),
        (
            ["convert", "{base}/absurd", "{tmp}/out"],
            2,
            "A dictionary of width 1,000,000,000,000 on vectors of 32 needs",
        ),
        (["convert", "{base}/sae", "{tmp}/out", "--to", "saelnes"], 2, "saelnes"),
        (["verify", "{base}/good.txt"], 2, "good.txt is neither a store nor a dictionary"),
        (["verify", "{base}/none"], 2, "none is neither a store nor a dictionary"),
        (["verify", "{base}/folder.txt"], 2, "folder.txt is neither a store nor a dictionary"),
    ],
)
def test_convert_and_verify(
    arguments: list[str], code: int, said: str, base: Path, tmp_path: Path, capsys: Any
) -> None:
    given = [argument.format(base=base, tmp=tmp_path) for argument in arguments]
    _check(given, code, said, base, tmp_path, capsys)


def _check(arguments: list[str], code: int, said: str, base: Path, tmp_path: Path, capsys: Any) -> None:
    """The exit code, one line on standard error with the words wanted, and no file that was not there before."""
    before = _snapshot(base)
    capsys.readouterr()
    assert main(arguments) == code, capsys.readouterr().err
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("lensing: ")
    assert shown.err.count("\n") == 1, "one line, no traceback"
    assert said in shown.err
    assert shown.err.rstrip().endswith((".", "?", ")")) or "--help" in shown.err or "http" in shown.err
    assert _snapshot(base) == before
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_run_is_not_continued_with_another_configuration(base: Path, tmp_path: Path, capsys: Any) -> None:
    """A checkpoint lies in the folder: whatever differs is listed, and the checkpoint stays as it is."""
    import signal

    from lensing.training import loop

    out, original = tmp_path / "run", loop._Run._note

    def note(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        if self.step == 2:
            signal.raise_signal(signal.SIGINT)

    call = [*_train("--store", base / "store"), "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "_note", note)
        assert main(call) == 130
    assert "Stopped by SIGINT at step 2 of 4" in capsys.readouterr().err
    before = _snapshot(out)
    other = _harvest(base, out=tmp_path / "acts", text=base / "other.txt")
    assert main(other) == 0
    for more, said in [
        ([*call, "--lr", "0.001"], "belongs to another run (jobs.lr was None, is 0.001). Give another folder"),
        ([*call, "--seed", "4", "--ema", "0.5"], "ema was None, is 0.5; jobs.seed was 0, is 4"),
        ([*_train("--store", tmp_path / "acts"), "--out", str(out)], "source.text.source was good.txt, is other.txt"),
    ]:
        capsys.readouterr()
        assert main(more) == 2
        shown = capsys.readouterr().err
        assert said in shown
        assert shown.count("\n") == 1
    assert _snapshot(out) == before
    assert main(call) == 0
