import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lensing as ln
from lensing.dictionary import load as loading
from lensing.dictionary.base import Dictionary, new_dictionary
from lensing.dictionary.load import check_fits, load_dictionary, refuse_unknown_latent
from lensing.dictionary.statistics import Sample
from lensing.errors import DictionaryError, FileFormatError, LensingError, UnknownNameError, UnsafeFileError, UsageError
from lensing.training.finish import measure_statistics


def _dictionary(architecture: str = "topk", d_in: int = 12) -> Dictionary:
    config = ln.TopK(width=40, k=4) if architecture == "topk" else ln.BatchTopK(width=40, k=4)
    sae = new_dictionary(config, d_in, seed=1)
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        sae.encoder += 0.1 * torch.randn(sae.encoder.shape, generator=g)
        sae.b_enc += 0.1 * torch.randn(40, generator=g)
        sae.b_dec += torch.randn(d_in, generator=g)
        if architecture == "batchtopk":
            sae.load_extra_tensors({"threshold": torch.tensor([0.8])})
    sae.site, sae.model_name = "mlp_out.1", "tiny"
    return sae.requires_grad_(False)


def _rows(n: int = 50, d_in: int = 12) -> torch.Tensor:
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return _dictionary().save(tmp_path / "sae")


def test_encode_and_decode_are_their_formulas() -> None:
    sae, x = _dictionary(), _rows().view(5, 10, 12)
    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    assert torch.allclose(sae.pre_activations(x), pre, atol=1e-6)
    f = torch.zeros_like(pre).scatter(-1, pre.topk(4).indices, pre.topk(4).values.relu())
    codes = sae.encode(x)
    assert codes.leading == (5, 10)
    assert torch.allclose(codes.dense().view(5, 10, 40), f, atol=1e-5)
    x_hat = f @ sae.W_dec + sae.b_dec
    assert torch.allclose(sae.decode(codes), x_hat, atol=1e-5)
    assert torch.allclose(sae(x), x_hat, atol=1e-5)
    assert sae.W_enc.shape == (12, 40)
    assert sae.W_dec.shape == (40, 12)


def test_batchtopk_is_one_threshold_at_inference() -> None:
    sae, x = _dictionary("batchtopk"), _rows()
    pre = sae.pre_activations(x)
    assert torch.allclose(sae.encode(x).dense(), torch.where(pre > 0.8, pre, 0.0), atol=1e-5)
    alone = torch.cat([sae.encode(row[None]).dense() for row in x])
    assert torch.allclose(alone, sae.encode(x).dense(), atol=1e-5), "a row's codes depend on no other row"


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_gradients_reach_the_input(architecture: str) -> None:
    sae, x = _dictionary(architecture), _rows(6).requires_grad_()
    active = sae.encode(x).dense() > 0
    dense = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc) * active @ sae.W_dec + sae.b_dec
    (mine,) = torch.autograd.grad(sae.reconstruct(x).square().sum(), x)
    (truth,) = torch.autograd.grad(dense.square().sum(), x)
    assert torch.allclose(mine, truth, atol=1e-4)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_saved_and_loaded_is_the_same(architecture: str, tmp_path: Path) -> None:
    sae, x = _dictionary(architecture), _rows()
    sae.statistics = measure_statistics(sae, [x[:30], x[30:]], corpus="tiny/rows", documents=3)
    sae.sample = Sample.of([[1, 5, 6], [1, 7]])
    again = load_dictionary(sae.save(tmp_path / "sae"))
    assert torch.equal(again.reconstruct(x), sae.reconstruct(x))
    assert (again.site, again.model_name, again.config) == ("mlp_out.1", "tiny", sae.config)
    assert again.statistics is not None
    assert again.sample is not None
    assert again.statistics.facts() == sae.statistics.facts()
    for name, tensor in sae.statistics.tensors().items():
        assert torch.equal(getattr(again.statistics, name), tensor.float())
    assert again.sample.documents() == [[1, 5, 6], [1, 7]]
    stored = load_file(tmp_path / "sae" / "weights.safetensors")
    assert stored["W_enc"].shape == (12, 40)
    assert stored["W_dec"].shape == (40, 12)


def test_half_precision_files_are_half_as_large(tmp_path: Path) -> None:
    sae, x = _dictionary(), _rows()
    full, half = sae.save(tmp_path / "a"), sae.save(tmp_path / "b", dtype=torch.float16)
    sizes = [(folder / "weights.safetensors").stat().st_size for folder in (full, half)]
    assert sizes[1] < 0.65 * sizes[0]
    again = load_dictionary(half)
    assert again.W_dec.dtype == torch.float32
    assert torch.allclose(again.W_dec, sae.W_dec, atol=1e-3)
    assert torch.equal(load_dictionary(again.save(tmp_path / "c")).reconstruct(x), again.reconstruct(x))


def test_statistics_are_their_definitions() -> None:
    sae, x = _dictionary(), _rows(400)
    s = measure_statistics(sae, x.split(64), corpus="c", documents=1)
    f = sae.encode(x).dense()
    assert s.n == 400
    assert torch.allclose(s.mean, x.mean(0), atol=1e-6)
    assert s.total_variance == pytest.approx(float(x.var(0, correction=0).sum()), rel=1e-5)
    error = (x - sae.reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert s.fvu == pytest.approx(float(error), rel=1e-5)
    assert s.l0 == pytest.approx(float((f > 0).sum(1).float().mean()))
    assert torch.equal(s.max_activation, f.amax(0))
    assert torch.allclose(s.density, (f > 0).float().mean(0))
    assert s.dead_share == pytest.approx(float((f.amax(0) == 0).float().mean()))
    for j in range(40):
        active = f[:, j][f[:, j] > 0]
        assert float(s.p999[j]) == pytest.approx(float(active.quantile(0.999)) if len(active) else 0.0, rel=1e-4)


# --- bad input ---


def test_unknown_id_offers_the_nearest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = {"almanac/mlp_out.2/w1024": tmp_path, "almanac/resid_post.4/w2048": tmp_path}
    monkeypatch.setattr(loading, "shipped_dictionaries", lambda: shipped)
    with pytest.raises(
        UnknownNameError, match=r"no dictionary named 'almanac/mlp_out.2/w1042'.*almanac/mlp_out.2/w1024"
    ):
        load_dictionary("almanac/mlp_out.2/w1042")


@pytest.mark.parametrize("file", ["weights.safetensors", "statistics.safetensors"])
@pytest.mark.parametrize("damage", ["truncate", "scramble", "empty"])
def test_damaged_files_are_named(damage: str, file: str, tmp_path: Path) -> None:
    sae = _dictionary()
    sae.statistics = measure_statistics(sae, [_rows()], corpus="c", documents=1)
    path = sae.save(tmp_path / "sae") / file
    data = path.read_bytes()
    path.write_bytes({"truncate": data[: len(data) // 2], "scramble": b"\xff" * len(data), "empty": b""}[damage])
    with pytest.raises(FileFormatError, match=rf"{file} is truncated or corrupt"):
        load_dictionary(tmp_path / "sae")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "does not describe a lensing dictionary"),
        ({"version": 99}, "format version 99"),
        ({"architecture": "topkk"}, "no architecture named 'topkk'. Did you mean"),
        ({"config": {"width": 41, "k": 4}}, r"W_enc has shape \[12, 40\]"),
        ({"config": {"width": 40, "k": 4, "kk": 1}}, "no setting of TopK named 'kk'"),
        ({"d_in": None}, "is not what lensing writes"),
    ],
)
def test_a_config_that_lies_is_refused(change: dict[str, Any], message: str, saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(LensingError, match=message):
        load_dictionary(saved)


def test_broken_config_and_folders_that_are_no_dictionary(saved: Path, tmp_path: Path) -> None:
    (saved / "config.json").write_text("{")
    with pytest.raises(FileFormatError, match="is not JSON"):
        load_dictionary(saved)
    (saved / "config.json").unlink()
    with pytest.raises(DictionaryError, match=r"holds no config.json"):
        load_dictionary(saved)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DictionaryError, match=r"holds no weights.safetensors"):
        load_dictionary(tmp_path / "empty")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    sae = _dictionary()
    sae.W_dec[0, 0] = float("nan")
    with pytest.raises(FileFormatError, match="W_dec holds numbers that are not finite"):
        load_dictionary(sae.save(tmp_path / "sae"))


def test_pickles_are_refused_unless_allowed(saved: Path) -> None:
    tensors = load_file(saved / "weights.safetensors")
    (saved / "weights.safetensors").unlink()
    torch.save(tensors, saved / "weights.pt")
    for name in (saved, saved / "weights.pt"):
        with pytest.raises(UnsafeFileError, match=r"weights.pt is a pickle.*--allow-pickle"):
            load_dictionary(name)
        assert torch.equal(load_dictionary(name, allow_pickle=True).W_dec, _dictionary().W_dec)
    (saved / "weights.pt").write_bytes(b"not a pickle")
    with pytest.raises(FileFormatError, match="truncated or corrupt"):
        load_dictionary(saved, allow_pickle=True)


def test_saving_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LensingError, match="cannot be written"):
        _dictionary().save(tmp_path / "file" / "sae")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_saving_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(LensingError, match="No permission to write"):
            _dictionary().save(tmp_path / "sae")
    finally:
        tmp_path.chmod(0o700)


def test_a_width_that_does_not_fit(make_model: Callable[[str], Any], tmp_path: Path) -> None:
    model = make_model("gemma2")
    fitting = _dictionary(d_in=model.d_model)
    check_fits(fitting, model)
    with pytest.raises(DictionaryError, match=r"reads vectors of 12 numbers, but mlp_out.1 of tiny-gemma2 has 32"):
        check_fits(_dictionary(), model)
    with pytest.raises(DictionaryError, match="12 numbers"):
        load_dictionary(_dictionary().save(tmp_path / "sae"), model=model)
    with pytest.raises(DictionaryError, match="Vectors of 13 numbers do not fit"):
        _dictionary().encode(torch.zeros(2, 13))
    with pytest.raises(DictionaryError, match="Codes of 40 latents"):
        new_dictionary(ln.TopK(width=8, k=2), 12).decode(_dictionary().encode(_rows()))


def test_unknown_latents_and_bad_configs() -> None:
    refuse_unknown_latent(_dictionary(), 39)
    with pytest.raises(UnknownNameError, match=r"no latent named '40'.*0 to 39"):
        refuse_unknown_latent(_dictionary(), 40)
    for bad in ({"width": 0, "k": 1}, {"width": 4, "k": 5}, {"width": 4, "k": 0}, {"width": 4, "k": 1, "k_aux": -1}):
        with pytest.raises(UsageError):
            ln.TopK(**bad)
    assert ln.TopK(width=4, k=1).dead_latents_used(144) == 64
    assert ln.TopK(width=4, k=1, k_aux=3).dead_latents_used(144) == 3


def test_a_new_dictionary_needs_no_other_import():
    code = (
        "from lensing.dictionary.base import new_dictionary\nfrom lensing.dictionary.configs import TopK\n"
        "print(new_dictionary(TopK(width=8, k=2), 4).d_sae)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "8", done.stderr


def test_flipped_bits_are_noticed(saved: Path) -> None:
    path = saved / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        FileFormatError, match=r"weights.safetensors is truncated or corrupt: its hash is not the recorded one"
    ):
        load_dictionary(saved)
