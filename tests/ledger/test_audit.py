"""The ledger of a dictionary on a text: the same as by hand from all rows at once, and its pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import lensing as ln
from lensing.cli import main
from lensing.data.forward import activations
from lensing.data.pieces import read_pieces
from lensing.errors import DictionaryError, UsageError
from lensing.ledger import audit as module
from lensing.ledger.gram import Gram
from lensing.ledger.variance import GROUPS, least_squares, variance
from lensing.world.shipped import shipped_text


@pytest.fixture(scope="module")
def model():
    return ln.load_model("almanac")


@pytest.fixture(scope="module")
def documents():
    text = shipped_text("almanac")
    return [text.ids[a:b].tolist() for a, b in zip(text.starts[:60], text.starts[1:61], strict=True)]


@pytest.fixture(scope="module")
def sae(model):
    return ln.load_dictionary("almanac/resid_post.2/w1024", model=model)


def test_the_account_is_that_of_all_rows_at_once(model, sae, documents, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 700)
    found = ln.audit(model, sae, documents, quiet=True)
    pieces = read_pieces(model, documents)
    group = np.repeat((np.random.default_rng(0).permutation(pieces.documents) % GROUPS)[pieces.parents], pieces.rows)
    x = activations(model, list(pieces), [str(sae.site)], batch_tokens=4096)[str(sae.site)]
    codes = sae.encode(x)
    error, better = x - sae.decode(codes), least_squares(x, sae, codes)
    grams = [Gram.none(x.shape[1]) for _ in range(GROUPS)]
    for g, gram in enumerate(grams):
        rows = torch.from_numpy(group == g)
        gram.add(x[rows], error[rows], better[rows])
    want = variance(grams, shift=torch.zeros(x.shape[1]).double(), documents=60)
    for a, b in zip((*found.variance.lines, *found.variance.probe), (*want.lines, *want.probe), strict=True):
        assert (a.name, a.share) == (b.name, pytest.approx(b.share, abs=2e-5))
    assert found.variance.engels == pytest.approx(want.engels, abs=1e-4)
    assert found.l0 == pytest.approx(codes.l0())
    energy = error.double().square().sum(1)
    k = max(int(len(energy) * 0.01), 1)
    assert found.where.top == pytest.approx(float(energy.topk(k).values.sum() / energy.sum()), rel=1e-4)
    assert sum(share for _, _, share in found.where.words) <= 1
    assert 0 < found.beside["bigram table"] < found.beside["token table"] < 1
    fvu = float(error.double().square().sum() / (x.double() - x.double().mean(0)).square().sum())
    assert found.variance.fvu.share == pytest.approx(fvu, rel=0.02)


def test_a_transcoder_is_audited_on_what_it_writes(model, documents):
    found = ln.audit(model, ln.load_dictionary("almanac/mlp_in.2/transcoder-w1024"), documents, quiet=True)
    assert found.site == "mlp_out.2"
    assert 0 < found.variance.fvu.share < 1


def test_seeds_split_the_error_and_their_mean_is_the_identity(model, sae, documents):
    others = [ln.load_dictionary(f"almanac/resid_post.2/w1024/seed{k}", model=model) for k in (1, 2)]
    found = ln.audit(model, sae, documents, seeds=others, quiet=True).seeds
    pieces = read_pieces(model, documents)
    x = activations(model, list(pieces), [str(sae.site)], batch_tokens=4096)[str(sae.site)].double()
    errors = [x - d.reconstruct(x.float()).double() for d in (sae, *others)]
    size = (x - x.mean(0)).square().sum()
    pairs = [(errors[a] * errors[b]).sum() / size for a in range(3) for b in range(3) if a != b]
    assert found.systematic.share == pytest.approx(float(sum(pairs) / 6), rel=1e-4)
    assert found.fvu.share == pytest.approx(float(sum(e.square().sum() for e in errors) / 3 / size), rel=1e-4)
    assert found.ensemble == pytest.approx(float((sum(errors) / 3).square().sum() / size), rel=1e-4)
    assert found.systematic.share + found.run_specific.share == pytest.approx(found.fvu.share, rel=1e-12)
    with pytest.raises(DictionaryError, match="seeds of one site"):
        ln.audit(model, sae, documents, seeds=[ln.load_dictionary("almanac/resid_post.4/w1024")], quiet=True)


def test_too_little_text_is_refused(model, sae, documents):
    with pytest.raises(UsageError, match="documents"):
        ln.audit(model, sae, documents[:5], quiet=True)


def test_the_command_draws_and_closes(tmp_path, capsys, documents, model):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(model.decode(d[1:]) for d in documents[:40]))
    command = ["ledger", "almanac/resid_post.2/w1024", "--text", str(text)]
    assert main([*command, "--html", str(tmp_path / "l.html")]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("mean error", "calibration", "amortisation", "remainder", "nonlinear"))
    assert max(map(len, said.splitlines()[2:12])) <= 100
    assert "<h1>The ledger" in (tmp_path / "l.html").read_text()
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["variance"]
    assert sum(line["share"] for line in found["lines"]) == pytest.approx(found["fvu"]["share"], rel=1e-9)
