"""dictionary_learning's and OpenAI's pickles: every class against its formula, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from dictionary.formats.making import D, F, check, keep_top, rows, weights

from lensing.dictionary.load import load_dictionary
from lensing.errors import DictionaryError, FileFormatError, UnknownNameError, UnsafeFileError


def trainer(folder: Path, name: str, tensors: dict[str, Any], **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "trainer": {
            "dict_class": name, "activation_dim": D, "dict_size": F, "layer": 12, "lm_name": "google/gemma-2-2b",
            "submodule_name": "resid_post_layer_12",
        } | changes,
        "buffer": {"ctx_len": 128},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(tensors, folder / "ae.pt")
    return folder


def linear(w: dict[str, torch.Tensor], **biases: str) -> dict[str, torch.Tensor]:
    """Weights as two linear layers hold them, with biases by their names."""
    return {"encoder.weight": w["W_enc"].t(), "decoder.weight": w["W_dec"].t()} | {
        theirs.replace("_dot_", "."): w[ours] for theirs, ours in biases.items()
    }


def tensors_of(name: str) -> tuple[dict[str, Any], torch.Tensor]:
    """A state dict of a class, and the codes of `rows()` by its formula."""
    w = weights()
    centred = (rows() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    plain = rows() @ w["W_enc"] + w["b_enc"]
    top = {"k": torch.tensor(4, dtype=torch.int), "threshold": torch.tensor(0.4)}
    match name:
        case "AutoEncoder":
            return linear(w, encoder_dot_bias="b_enc", bias="b_dec"), centred.relu()
        case "AutoEncoderNew":
            return linear(w, encoder_dot_bias="b_enc", decoder_dot_bias="b_dec"), plain.relu()
        case "GatedAutoEncoder":
            inner = centred - w["b_enc"]
            f = (centred > 0) * (inner * w["r_mag"].exp() + w["b_mag"]).relu()
            return linear(w, gate_bias="b_enc", mag_bias="b_mag", r_mag="r_mag", decoder_bias="b_dec"), f
        case "AutoEncoderTopK":
            return linear(w, encoder_dot_bias="b_enc", b_dec="b_dec") | top, keep_top(centred, 4)
        case "BatchTopKSAE":
            f = centred.relu() * (centred.relu() > 0.4)
            return linear(w, encoder_dot_bias="b_enc", b_dec="b_dec") | top, f
        case "JumpReluAutoEncoder":
            own = {n: w[n] for n in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}
            return own, (plain * (plain > w["threshold"])).relu()
    own = {n: w[n] for n in ("W_enc", "W_dec", "b_enc", "b_dec")} | top
    return own | {"group_sizes": torch.tensor([4, 8, 12])}, centred.relu() * (centred.relu() > 0.4)


CLASSES = {
    "AutoEncoder": "relu", "AutoEncoderNew": "relu", "GatedAutoEncoder": "gated", "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batchtopk", "JumpReluAutoEncoder": "jumprelu", "MatryoshkaBatchTopKSAE": "matryoshka",
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_dictionary_learning(tmp_path: Path, name: str) -> None:
    w = weights()
    tensors, f = tensors_of(name)
    path = trainer(tmp_path / "trainer_0", name, tensors)
    for given in (path, path / "ae.pt"):
        with pytest.raises(UnsafeFileError, match=r"ae.pt is a pickle.*--allow-pickle"):
            load_dictionary(given)
        sae = load_dictionary(given, allow_pickle=True)
    check(sae, f, f @ w["W_dec"] + w["b_dec"], w["W_dec"].norm(dim=1))
    assert (sae.architecture, sae.site, sae.model_name) == (CLASSES[name], "resid_post.12", "google/gemma-2-2b")
    if name == "MatryoshkaBatchTopKSAE":
        assert sae.config.prefixes == (4, 12)


@pytest.mark.parametrize(
    ("submodule", "site"),
    [
        (None, "resid_post.12"),
        ("mlp_out_layer_3", "mlp_out_raw.3"),
        ("gpt_neox.layers.4.mlp", "mlp_out_raw.4"),
        ("some.other.part", "module:some.other.part"),
    ],
)
def test_submodules_are_sites(tmp_path: Path, submodule: str | None, site: str) -> None:
    path = trainer(tmp_path / "x", "AutoEncoder", tensors_of("AutoEncoder")[0], submodule_name=submodule)
    assert load_dictionary(path, allow_pickle=True).site == site


@pytest.mark.parametrize(
    ("name", "change", "settings", "kind", "words"),
    [
        ("IdentityDict", {}, {}, UnknownNameError, "no dictionary_learning architecture named 'IdentityDict'"),
        ("BatchTopKSAE", {"threshold": None}, {}, FileFormatError, "lacks threshold"),
        ("AutoEncoderTopK", {}, {"k": 5}, FileFormatError, "says k is 4, config.json 5"),
        ("AutoEncoderTopK", {"k": None}, {}, FileFormatError, "does not say k"),
        ("AutoEncoder", {}, {"dict_size": 99}, FileFormatError, "the config says d_sae is 99"),
        ("MatryoshkaBatchTopKSAE", {"group_sizes": torch.tensor([4, 8])}, {}, FileFormatError, "do not sum to 24"),
        ("AutoEncoder", {"bias": torch.full((D,), torch.inf)}, {}, FileFormatError, "b_dec holds numbers"),
    ],
)
def test_dictionary_learning_refusals(
    tmp_path: Path, name: str, change: dict, settings: dict, kind: type[Exception], words: str
) -> None:
    tensors = tensors_of(name if name in CLASSES else "AutoEncoder")[0] | change
    path = trainer(tmp_path / "x", name, {k: v for k, v in tensors.items() if v is not None}, **settings)
    with pytest.raises(kind, match=words):
        load_dictionary(path, allow_pickle=True)


class Evil:
    """A pickle that would run code."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def test_even_an_allowed_pickle_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = trainer(tmp_path / "x", "AutoEncoder", {"encoder.weight": Evil()})
    with pytest.raises(FileFormatError, match="holds more than tensors"):
        load_dictionary(path, allow_pickle=True)
    assert not (tmp_path / "ran").exists()


def openai(path: Path, **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    state: dict[str, Any] = linear(weights(), latent_bias="b_enc", pre_bias="b_dec")
    torch.save(state | {"activation": "ReLU", "activation_state_dict": {}} | changes, path)
    return path


def test_openai(tmp_path: Path) -> None:
    w = weights()
    path = openai(tmp_path / "gpt2-small" / "resid_delta_mlp_v4" / "autoencoders" / "7.pt")
    with pytest.raises(UnsafeFileError, match="is a pickle"):
        load_dictionary(path)
    sae = load_dictionary(path, allow_pickle=True)
    f = ((rows() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    check(sae, f, f @ w["W_dec"] + w["b_dec"], w["W_dec"].norm(dim=1))
    assert (sae.site, sae.model_name) == ("mlp_out.7", "gpt2")


def test_openai_refusals(tmp_path: Path) -> None:
    path = openai(tmp_path / "1.pt", activation="TopK", activation_state_dict={"k": 32, "postact_fn": "ReLU"})
    with pytest.raises(DictionaryError, match="LayerNorm"):
        load_dictionary(path, allow_pickle=True)
    with pytest.raises(UnknownNameError, match="'Identity'"):
        load_dictionary(openai(tmp_path / "2.pt", activation="Identity"), allow_pickle=True)
    (tmp_path / "3.pt").write_bytes(b"not a pickle")
    with pytest.raises(FileFormatError, match="truncated or corrupt"):
        load_dictionary(tmp_path / "3.pt", allow_pickle=True)
