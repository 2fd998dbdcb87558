"""The ladder: what it holds, and that each rung is trained as it says and once."""

from __future__ import annotations

import pytest
import torch

import lensing as ln
from lensing.model.create import new_gemma2, save_model
from lensing.model.load import load_model
from lensing.recipes.ladder import SITES, make_ladder, rungs
from lensing.world.almanac.grammar import almanac
from lensing.world.corpus import write_corpus
from lensing.world.tokens import vocabulary, write_tokenizer


def test_it_holds_widths_seeds_architectures_and_a_transcoder_for_every_layer():
    found = rungs()
    for site in SITES:
        here = {name.removeprefix(f"{site}/") for name in found if name.startswith(f"{site}/")}
        assert here == {
            "w256", "w512", "w1024", "w2048", "w4096", "w1024/seed1", "w1024/seed2", "matryoshka-w1024",
            "jumprelu-w1024", "relu-w1024",
        }  # fmt: skip
        plain = [rung for name, rung in found.items() if name.startswith(f"{site}/w")]
        assert {(r.job.config.k, r.job.lr, r.batch) for r in plain} == {(16, 3e-3, 4096)}  # matched
        assert sorted(r.job.seed for r in plain if r.job.config.width == 1024) == [0, 1, 2]
    assert [r.job.target for n, r in found.items() if "transcoder" in n] == [f"mlp_out.{i}" for i in range(6)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    shape = {"d_model": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_mlp": 24, "context": 256, "window": 8}
    model = new_gemma2(**shape, d_vocab=len(vocabulary(almanac())), bos_id=1, eos_id=2, pad_id=0, seed=3)
    save_model(model, folder)
    write_tokenizer(almanac(), folder)
    return load_model(folder)


def test_rungs_are_trained_from_one_reader_a_site_and_only_where_they_are_missing(small, tmp_path):
    corpus = write_corpus(almanac(), 30, quiet=True)
    documents = [corpus[i].tolist() for i in range(30)]
    wanted = {
        name: rung for name, rung in rungs(("resid_post.0",), 1).items()
        if name.rpartition("/")[2] in ("w256", "seed1", "w1024", "relu-w1024", "transcoder-w1024")
    }  # fmt: skip
    assert len(wanted) == 5

    def make():
        make_ladder(
            small, documents, "tests", wanted, tokens=8_192, work=tmp_path / "work", home=tmp_path / "home",
            quiet=True, held_out_rows=500,
        )  # fmt: skip

    make()
    made = {name: ln.load_dictionary(tmp_path / "home" / name) for name in wanted}
    for name, dictionary in made.items():
        assert (dictionary.site, dictionary.target) == (wanted[name].job.site, wanted[name].job.target)
        assert dictionary.stored_dtype == torch.int8
        assert dictionary.sample is None
    first, second = made["resid_post.0/w1024"], made["resid_post.0/w1024/seed1"]
    assert not torch.allclose(first.W_dec, second.W_dec)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "home").rglob("*.safetensors")}
    (tmp_path / "home/resid_post.0/w256/config.json").unlink()
    make()
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "home").rglob("*.safetensors")}
    assert {p.parent.name for p in before if after[p] != before[p]} == {"w256"}
    assert torch.equal(
        ln.load_dictionary(tmp_path / "home/resid_post.0/w256").encoder, made["resid_post.0/w256"].encoder
    )
