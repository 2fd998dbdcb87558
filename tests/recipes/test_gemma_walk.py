"""The published walk on Gemma 2 2B: it computes what hooks by hand compute, and without weights gives no number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from lensing.cli import main
from lensing.errors import UsageError
from lensing.model.create import save_model
from lensing.recipes import gemma_walk
from lensing.recipes.gemma_walk import verify_gemma_walk

WORDS = ("<pad>", "<bos>", "The", " reliability", " of", " Wikipedia", " is", *sorted({
    *gemma_walk.NEXT, *(word for _, word, _ in gemma_walk.LENS), *gemma_walk.STEERED[500.0],
}))  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A random Gemma 2 of the true depth, whose tokens are the walk's words, and a dictionary of the true width."""
    home = tmp_path_factory.mktemp("gemma")
    model, sae = gemma_walk._stand_in()
    save_model(model.hf, home / "model")
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = Split(" ", "merged_with_next")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>", pad_token="<pad>")
    tokenizer.save_pretrained(home / "model")
    sae.model_name = "model"
    sae.save(home / "sae")
    return home / "model", home / "sae"


def test_numbers_are_those_of_hooks_by_hand(folders: tuple[Path, Path]) -> None:
    found = verify_gemma_walk(str(folders[0]), str(folders[1]))
    assert found.missing is None
    assert not found.good
    got = {(c.beat, c.what): c.got for c in found.checks}
    assert len(got) == len(found.checks) == 34
    model, sae = gemma_walk._stand_in()
    ids = torch.tensor([[1, *(WORDS.index(w) for w in ("The", " reliability", " of", " Wikipedia", " is", " very"))]])

    def next_word(change) -> torch.Tensor:
        hook = model.hf.model.layers[20].post_feedforward_layernorm.register_forward_hook(lambda m, a, out: change(out))
        with torch.no_grad():
            p = model.hf(ids).logits[0, -1].softmax(-1)
        hook.remove()
        return p

    caught: list[torch.Tensor] = []
    plain = next_word(lambda h: caught.append(h))
    assert got["next word", "much"] == pytest.approx(float(plain[WORDS.index(" much")]), rel=1e-5)
    clamped = next_word(lambda h: h.index_fill(-1, torch.tensor([1393 % 64]), -160.0))
    p = float(clamped[WORDS.index(" important")])
    assert got["channel 1393 at -160", "important"] == pytest.approx(p, rel=1e-4)
    steered = next_word(lambda h: h + 500 * sae.W_dec[8249])
    assert got["latent 8249 at 500", "question"] == pytest.approx(float(steered[WORDS.index(" question")]), rel=1e-4)
    spliced = next_word(lambda h: sae.reconstruct(h[0])[None])
    assert got["splice", "high"] == pytest.approx(float(spliced[WORDS.index(" high")]), rel=1e-4)
    codes = sae.encode(caught[0][0, -1:]).dense()[0]
    assert got["latents", "7344"] == pytest.approx(float(codes[7344].detach()), rel=1e-5, abs=1e-7)
    with torch.no_grad():
        hidden = model.hf(ids, output_hidden_states=True).hidden_states[20][0, -1]
        lens = torch.tanh(model.hf.lm_head(model.hf.model.norm(hidden)) / 30) * 30
    key = "logit lens", "questionable at resid_post.19"
    assert got[key] == pytest.approx(float(lens.softmax(-1)[WORDS.index(" questionable")]), rel=1e-4)


def test_without_weights_no_number_is_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["verify", "gemma-walk"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "None of the 34 numbers was compared" in said
    assert "0.2021" in said
    assert main(["verify", "gemma-walk", "--json"]) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert all(check["got"] is None and check["good"] is None for check in checks)


def test_another_model_is_refused(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"6 blocks.*Give Gemma 2 2B"):
        verify_gemma_walk("almanac", "almanac/mlp_out.2/w1024")
    assert main(["verify", str(folders[1]), "--model", "almanac"]) == 2
    assert "Only gemma-walk takes --model" in capsys.readouterr().err
