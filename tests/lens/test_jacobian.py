"""The Jacobian lens against torch's own Jacobians, and its file."""

import pytest
import torch
from conftest import LAYERS

from lensing.errors import FileFormatError, UsageError
from lensing.lens.jacobian import jacobian_lens, load_jacobian_lens, save_jacobian_lens
from lensing.lens.lens import Lens, lens_grid

TEXTS = [[1, 5, 6, 7, 8], [1, 9, 20, 21]]


def brute(model, ids, layer):
    """d x_L(t') / d x_l(t), summed over later tokens, by torch.autograd.functional, BOS left out."""
    _, cache = model.run_with_cache([ids], sites=[f"resid_pre.{layer + 1}"])

    def rest(h):
        _, out = model.run_with_cache(
            [ids], sites=f"resid_post.{LAYERS - 1}", start=(f"resid_pre.{layer + 1}", h), grad="edits", stop=True
        )
        return out[f"resid_post.{LAYERS - 1}"]

    h = cache[f"resid_pre.{layer + 1}"].clone()
    with torch.enable_grad():
        whole = torch.autograd.functional.jacobian(rest, h)[0, :, :, 0]  # [t', i, t, j]
    return whole[1:, :, 1:].sum(0).mean(1).double()


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_it_is_the_mean_jacobian(make_model, family):
    model = make_model(family)
    lens = jacobian_lens(model, TEXTS, quiet=True)
    assert sorted(lens.matrices) == list(range(-1, LAYERS - 1))
    for layer in (-1, 0, 1):
        want = (brute(model, TEXTS[0], layer) + brute(model, TEXTS[1], layer)) / 2
        torch.testing.assert_close(lens.matrices[layer].double(), want, rtol=1e-3, atol=1e-4)


def test_it_reads_and_is_saved(make_model, tmp_path):
    model = make_model("gemma2")
    lens = jacobian_lens(model, TEXTS, layers=[1], quiet=True)
    grid = lens_grid(model, TEXTS[0], lens, top=3)
    _, cache = model.run_with_cache([TEXTS[0]], sites="resid_post.1")
    want = model.unembed(cache["resid_post.1"] @ lens.matrices[1].T).log_softmax(-1).topk(3)
    assert torch.equal(grid.ids[2], want.indices)
    back = load_jacobian_lens(save_jacobian_lens(lens, tmp_path / "lens.pt", n_prompts=2))
    torch.testing.assert_close(back.matrices[1], lens.matrices[1], rtol=1e-2, atol=1e-2)
    (tmp_path / "lens.pt").write_bytes(b"no")
    with pytest.raises(FileFormatError, match="is no Jacobian lens"):
        load_jacobian_lens(tmp_path / "lens.pt")
    with pytest.raises(UsageError, match="A logit lens has no place"):
        save_jacobian_lens(Lens(), tmp_path / "a.pt", n_prompts=1)
    with pytest.raises(UsageError, match=r"from layers -1 to 1 to the last"):
        jacobian_lens(model, TEXTS, layers=[2])
    with pytest.raises(UsageError, match="There is no text"):
        jacobian_lens(model, [])
