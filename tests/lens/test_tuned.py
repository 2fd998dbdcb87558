"""The tuned lens: it learns a known map, leaves less KL than the logit lens, and keeps the hub's layout."""

import json

import pytest
import torch
from conftest import LAYERS

from lensing.errors import FileFormatError, UsageError
from lensing.lens.lens import Lens
from lensing.lens.tuned import lens_quality, load_lens, save_lens, train_tuned_lens


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(4, 40, (12,), generator=generator).tolist() for _ in range(120)]


@pytest.fixture(scope="module")
def trained(make_model, texts):
    return train_tuned_lens(make_model("gemma2"), texts[:90], steps=60, batch_tokens=360, quiet=True)


def test_it_leaves_less_kl_than_the_logit_lens_on_held_out_text(make_model, texts, trained):
    model = make_model("gemma2")
    before, after = lens_quality(model, Lens(), texts[90:]), lens_quality(model, trained, texts[90:])
    assert before.layers == after.layers == [-1, *range(LAYERS)]
    assert all(a < b for a, b in zip(after.kl[:-1], before.kl[:-1], strict=True))
    assert all(a < b for a, b in zip(after.bias[:-1], before.bias[:-1], strict=True))
    assert after.kl[-1] == before.kl[-1] == 0.0
    assert after.tokens == 30 * 12  # BOS is put in front and left out
    assert all(0 < se < kl for se, kl in zip(after.se[:-1], after.kl[:-1], strict=True))


def test_quality_by_hand(make_model, texts, trained):
    model, few = make_model("gemma2"), texts[90:94]
    found = lens_quality(model, trained, few)
    total, p_sum, q_sum = [], 0.0, 0.0
    for ids in few:
        _, cache = model.run_with_cache([ids], sites=["resid_post.*"])
        p = model.logits([ids])[0, 1:].double().softmax(-1)
        q = trained.logits(model, 0, cache["resid_post.0"])[0, 1:].double().softmax(-1)
        total.append((p * (p / q).log()).sum(-1))
        p_sum, q_sum = p_sum + p.sum(0), q_sum + q.sum(0)
    assert found.kl[1] == pytest.approx(float(torch.cat(total).mean()), rel=1e-4)
    p, q = p_sum / 48, q_sum / 48
    assert found.bias[1] == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-4)


def test_the_gradient_is_that_of_the_plain_loss(make_model, texts):
    """One step without momentum or decay moves against the gradient of the mean KL over tokens."""
    model = make_model("gemma2")
    lens = train_tuned_lens(model, texts[:1], steps=1, batch_tokens=1, quiet=True)
    _, cache = model.run_with_cache([texts[0]], sites=["embed"])
    h = cache["embed"][0, 1:]
    bias = torch.zeros(model.d_model, requires_grad=True)
    p = model.logits([texts[0]])[0, 1:].log_softmax(-1)
    q = model.unembed(h + bias).log_softmax(-1)
    (p.exp() * (p - q)).sum(-1).mean().backward()
    moved = lens.biases[-1]
    assert torch.nn.functional.cosine_similarity(moved, -bias.grad, dim=0) > 0.9999
    assert sorted(lens.matrices) == list(range(-1, LAYERS - 1))


def test_saved_in_the_hubs_layout_and_read_back(make_model, trained, tmp_path):
    model = make_model("gemma2")
    folder = save_lens(trained, tmp_path / "lens", model)
    params = torch.load(folder / "params.pt", weights_only=True)
    assert sorted(params) == sorted(f"{i}.{part}" for i in range(LAYERS) for part in ("weight", "bias"))
    config = json.loads((folder / "config.json").read_text())
    assert set(config) == {
        "base_model_name_or_path", "base_model_revision", "d_model", "num_hidden_layers", "bias", "unembed_hash",
        "lens_type",
    }  # fmt: skip
    back = load_lens(folder)
    h = torch.randn(3, model.d_model)
    for layer in range(-1, LAYERS):
        torch.testing.assert_close(back.translate(layer, h), trained.translate(layer, h))
    # index i reads the input of block i: x + A_i x + b_i
    want = h + h @ params["1.weight"].T + params["1.bias"]
    torch.testing.assert_close(back.translate(0, h), want)


def test_bad_files_are_refused(make_model, trained, tmp_path):
    model = make_model("gemma2")
    with pytest.raises(FileFormatError, match=r"holds no config.json"):
        load_lens(tmp_path)
    folder = save_lens(trained, tmp_path / "lens", model)
    params = torch.load(folder / "params.pt", weights_only=True)
    (folder / "params.pt").write_bytes((folder / "params.pt").read_bytes()[:500])
    with pytest.raises(FileFormatError, match="Copy it again"):
        load_lens(folder)
    torch.save({k: v for k, v in params.items() if k != "1.weight"}, folder / "params.pt")
    with pytest.raises(FileFormatError, match=r"has nothing under 1.weight"):
        load_lens(folder)
    torch.save({"0.weight": Lens()}, folder / "params.pt")
    with pytest.raises(FileFormatError, match="holds more than tensors"):
        load_lens(folder)
    with pytest.raises(UsageError, match="A logit lens has no place"):
        save_lens(Lens(), tmp_path / "other", model)
    with pytest.raises(UsageError, match="There is no text"):
        train_tuned_lens(model, [], quiet=True)
