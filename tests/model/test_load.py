"""Loading: a folder gives the plain model to the bit; every bad folder gets its own sentence, and quickly."""

import json
import shutil
import time

import pytest
import torch

import lensing.model.load as load
from lensing.errors import FileFormatError, ModelError, UnknownNameError, UnsafeFileError, UsageError
from lensing.model.load import is_at_hand, load_model
from lensing.model.weigh import weight_bytes

TEXT = "the reliability of the almanac is very"


@pytest.fixture
def broken(model_folder, tmp_path):
    """A copy of a good checkpoint, to be broken."""
    return shutil.copytree(model_folder("llama"), tmp_path / "model")


@pytest.mark.parametrize("family", ["gemma2", "llama"])
def test_a_folder_gives_the_plain_model(model_folder, family):
    from transformers import AutoModelForCausalLM

    folder = model_folder(family)
    model = load_model(folder)
    tokens = model.encode(TEXT)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder)(tokens.ids).logits
    assert torch.equal(model.logits(TEXT), expected)
    assert model.name == folder.name
    assert model.dtype == torch.float32
    assert (model.bos_id, model.pad_id, model.eos_ids) == (1, 0, (2,))
    assert not any(p.requires_grad for p in model.hf.parameters())
    assert not model.hf.training


def test_loading_says_nothing_and_leaves_the_settings(model_folder, capfd):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_model(model_folder("gemma2"))
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_dtype_and_device(model_folder):
    folder = model_folder("llama")
    assert load_model(folder, dtype="bfloat16").logits(TEXT).dtype == torch.bfloat16
    assert load_model(folder, dtype=torch.float64, device="cpu").dtype == torch.float64
    with pytest.raises(UsageError, match="There is no number format 'float31'"):
        load_model(folder, dtype="float31")
    with pytest.raises(UsageError, match="There is no number format 'int8'"):
        load_model(folder, dtype="int8")
    with pytest.raises(UsageError, match=r"There is no device 'gpu'. Give 'cpu'"):
        load_model(folder, device="gpu")


def test_a_shipped_model_goes_by_its_id(model_folder, monkeypatch):
    monkeypatch.setattr(load, "shipped_models", lambda: {"almanac": model_folder("gemma2")})
    model = load_model("almanac")
    assert model.name == "almanac"
    assert model.logits(TEXT).dtype == torch.float32


@pytest.mark.parametrize("name", ["almanak", "nobody/almanak", "./almanak", "/no/such/folder", "a b c"])
def test_unknown_names_offer_the_nearest_and_fail_fast(monkeypatch, model_folder, name):
    import huggingface_hub  # its import is not what is timed

    assert huggingface_hub.__version__
    shipped = {"almanac": model_folder("gemma2")}
    monkeypatch.setattr(load, "shipped_models", lambda: shipped)
    monkeypatch.setattr(load, "_reachable", lambda endpoint: False)
    started = time.monotonic()
    with pytest.raises(UnknownNameError) as caught:
        load_model(name)
    assert time.monotonic() - started < 2
    assert str(caught.value).startswith(f"There is no model named {name!r}. ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    if name == "almanak":
        assert "Did you mean 'almanac'?" in str(caught.value)


def test_the_hub_is_asked_once_for_a_connection(monkeypatch):
    for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(key, raising=False)
    assert not load._reachable("https://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    assert load._reachable("https://127.0.0.1:9")


def test_a_folder_that_is_no_model(tmp_path, broken):
    with pytest.raises(ModelError, match=r"is not a model: it has no config.json. Give a model's folder"):
        load_model(tmp_path)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="is not a model: it holds no weights"):
        load_model(broken)
    (broken / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"its config.json names no model_type"):
        load_model(broken)
    (broken / "config.json").write_text("{,")
    with pytest.raises(FileFormatError, match=r"config.json is not JSON"):
        load_model(broken)
    (broken / "config.json").write_text("[]")
    with pytest.raises(FileFormatError, match="does not hold a JSON object"):
        load_model(broken)
    with pytest.raises(ModelError, match="is a file, not a model"):
        load_model(broken / "config.json")


def test_a_model_type_that_nobody_knows(broken):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "nonsense", "architectures": ["Nonsense"]}))
    with pytest.raises(ModelError, match="cannot be loaded as a causal language model"):
        load_model(broken)


def test_code_in_a_folder_is_never_run(broken):
    marker = broken / "ran"
    (broken / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass C: pass\n")
    config = json.loads((broken / "config.json").read_text())
    auto = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C"}
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": auto}))
    with pytest.raises(UnsafeFileError, match=r"evil\.C.*trust_remote_code=True"):
        load_model(broken)
    assert not marker.exists()


def test_code_of_its_own_runs_where_it_is_trusted(broken, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    plain = load_model(broken).logits(TEXT)
    (broken / "mine.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class MyConfig(LlamaConfig):\n    model_type = 'mine'\n"
        "class MyForCausalLM(LlamaForCausalLM):\n    config_class = MyConfig\n"
    )
    config = json.loads((broken / "config.json").read_text())
    own = {"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyForCausalLM"}
    own = {"model_type": "mine", "architectures": ["MyForCausalLM"], "auto_map": own}
    (broken / "config.json").write_text(json.dumps(config | own))
    with pytest.raises(UnsafeFileError, match="brings code of its own"):
        load_model(broken)
    model = load_model(broken, trust_remote_code=True)
    assert type(model.hf).__name__ == "MyForCausalLM"
    assert torch.equal(model.logits(TEXT), plain)


def test_a_model_larger_than_memory_is_refused_before_it_is_read(model_folder, monkeypatch):
    folder = model_folder("llama")
    size = weight_bytes(folder, torch.float32)
    assert size == sum(p.numel() * 4 for p in load_model(folder, dtype="float32").hf.state_dict().values())
    monkeypatch.setattr("lensing.memory.memory_bytes", lambda: size - 1)
    monkeypatch.setattr(load, "_load_weights", lambda *_: pytest.fail("the weights were read"))
    with pytest.raises(UsageError, match=r"weights of .* needs? .*dtype='bfloat16'"):
        load_model(folder, dtype="float32")
    monkeypatch.undo()
    monkeypatch.setattr("lensing.memory.memory_bytes", lambda: size // 2)
    assert load_model(folder, dtype="bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize("keep", [0, 5, 2000, -100])
def test_truncated_weights(broken, keep):
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        FileFormatError, match=r"model.safetensors is truncated or corrupt: .*Copy or download it again"
    ):
        load_model(broken)


def test_corrupt_weights(broken):
    path = broken / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[8:40] = b"\xff" * 32
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="is truncated or corrupt"):
        load_model(broken)


def test_a_missing_shard(broken):
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileFormatError, match=r"model-00001-of-00002.safetensors is missing though the index names it"):
        load_model(broken)


def test_weights_that_are_not_there_are_not_made_up(broken):
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of its weights \(model.layers.1.mlp.up_proj.weight for one\)"):
        load_model(broken)


def test_pickles_are_refused_and_named_with_the_flag(broken):
    from safetensors.torch import load_file

    weights = load_file(broken / "model.safetensors")
    expected = load_model(broken).logits(TEXT)
    (broken / "model.safetensors").unlink()
    torch.save(weights, broken / "pytorch_model.bin")
    with pytest.raises(UnsafeFileError, match=r"pytorch_model.bin is a pickle, .*give --allow-pickle if you trust it"):
        load_model(broken)
    assert torch.equal(load_model(broken, allow_pickle=True).logits(TEXT), expected)


def test_safetensors_are_preferred_to_a_pickle_beside_them(broken):
    (broken / "pytorch_model.bin").write_bytes(b"not a pickle")
    expected = load_model(broken).logits(TEXT)
    assert torch.equal(load_model(broken, allow_pickle=True).logits(TEXT), expected)


def test_a_broken_tokenizer(broken):
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(FileFormatError, match="The tokenizer of model cannot be read"):
        load_model(broken)


def test_a_folder_without_tokenizer_reads_ids(broken):
    for path in broken.glob("token*"):
        path.unlink()
    model = load_model(broken)
    assert model.tokenizer is None
    assert model.logits([4, 5]).shape[1] == 3


def test_the_published_text_of_a_real_model(test_data):
    """Its greedy continuation is printed in the data's README by the people who converted it."""
    readme = (test_data / "data/README.md").read_text(encoding="utf-8")
    published = readme[readme.index('"Once upon a time') + 1 :]
    published = published[: published.index('it.""') + len('it."')].replace("\\n", "\n")
    model = load_model(test_data / "models/stories260K")
    start = "Once upon a time"
    made = model.generate(start, max_new_tokens=128)
    assert (start + made.text[0]).rstrip("\n") == published
    free = model.generate([model.bos_id], max_new_tokens=128)
    assert len(free.text[0]) > 300
    assert published.startswith(free.text[0])
    assert free.text[0].startswith(start)
    assert model.encode(start).strings == [["<s>", " Once", " upon", " a", " time"]]


def test_the_untrained_twin_and_snapshots_of_a_shipped_model(model_folder, monkeypatch, tmp_path):
    import shutil

    folder = model_folder("gemma2")
    monkeypatch.setattr(load, "shipped_models", lambda: {"almanac": folder})
    monkeypatch.chdir(tmp_path)
    twin, again = load_model("almanac", revision="random"), load_model("almanac@random")
    assert twin.name == again.name == "almanac@random"
    assert is_at_hand("almanac@random")
    trained = load_model("almanac")
    assert twin.name == "almanac@random"
    for (name, a), b, c in zip(twin.hf.named_parameters(), again.hf.parameters(), trained.hf.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.shape == c.shape
    assert not torch.equal(twin.logits(TEXT), trained.logits(TEXT))
    with pytest.raises(UnknownNameError, match=r"no revision of almanac named 'seed1'. Give one of: random"):
        load_model("almanac", revision="seed1")
    shutil.copytree(folder, tmp_path / "runs/almanac/seed1/model")
    shutil.copytree(folder, tmp_path / "runs/almanac/seed0/revisions/00500000")
    for revision in ("seed1", "00500000"):
        assert torch.equal(load_model("almanac", revision=revision).logits(TEXT), trained.logits(TEXT))
