"""The logit lens against the model itself and against a lens written out by hand."""

import json

import pytest
import torch
from conftest import FAMILIES, LAYERS, VOCAB

from lensing.errors import UsageError
from lensing.lens.lens import Lens, lens_grid, logit_lens
from lensing.model.edit import Replace

TEXT = "the reliability of the almanac is very"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_is_exactly_the_model(make_model, family):
    model = make_model(family)
    lens = logit_lens(model, TEXT, top=5)
    best = model.logits(TEXT).float().log_softmax(-1).topk(5)
    assert lens.layers == [-1, *range(LAYERS)]
    assert torch.equal(lens.ids[-1], best.indices)
    assert torch.equal(lens.probs[-1], best.values.exp())


def test_every_layer_by_hand_soft_cap_and_all(model):
    lens = logit_lens(model, TEXT)
    hidden = model.hf(model.encode(TEXT).ids, output_hidden_states=True).hidden_states
    cap = model.hf.config.final_logit_softcapping
    for row in range(LAYERS):  # hidden_states[i] is what enters block i; the last one is normed already
        x = hidden[row].double()
        norm = x * (x.pow(2).mean(-1, keepdim=True) + model.hf.config.rms_norm_eps).rsqrt()
        logits = norm * (1 + model.hf.model.norm.weight.double()) @ model.hf.lm_head.weight.double().T
        probs = (cap * torch.tanh(logits / cap)).softmax(-1)
        torch.testing.assert_close(lens.probs[row].double(), probs.topk(10).values, rtol=1e-4, atol=1e-6)
        entropy = -(probs * probs.log()).sum(-1)
        torch.testing.assert_close(lens.entropy[row].double(), entropy, rtol=1e-4, atol=1e-5)


def test_a_cache_and_a_text_give_the_same(model):
    _, cache = model.run_with_cache(TEXT, sites=["resid_pre.0", "resid_post.*"])
    for source in (cache, model.encode(TEXT), [TEXT]):
        assert torch.equal(logit_lens(model, source).probs, logit_lens(model, TEXT).probs)
    _, some = model.run_with_cache(TEXT, sites=["resid_post.{0,2}"])
    assert logit_lens(model, some).layers == [0, 2]
    _, few = model.run_with_cache(TEXT, sites="resid_post.1")
    with pytest.raises(UsageError, match=rf"The cache lacks resid_post.{LAYERS - 1}"):
        logit_lens(model, few)


def test_the_lead_layer_is_where_the_final_word_takes_the_lead_for_good(model):
    lens = logit_lens(model, [TEXT, "a bird sang by the river"])
    leaders = lens.ids[..., 0]
    for row, tokens in enumerate(lens.tokens):
        for position in range(len(tokens)):
            words = leaders[:, row, position].tolist()
            expected = next(i for i in range(len(words)) if len(set(words[i:])) == 1)
            assert lens.lead_layer(position, row) == lens.layers[expected]
    assert lens.lead_layer(-1, 1) == lens.lead_layer(6, 1)


def test_a_stream_that_never_changes_leads_from_the_start(model):
    from lensing.model.edit import Apply

    with model.edit(Apply("mlp_out.*", torch.zeros_like), Apply("attn_out.*", torch.zeros_like)):
        assert {logit_lens(model, TEXT).lead_layer(p) for p in range(8)} == {-1}
    _, cache = model.run_with_cache(TEXT, sites="resid_post.2")
    with model.edit(Replace("resid_post.2", -cache["resid_post.2"])):
        assert LAYERS - 1 in {logit_lens(model, TEXT).lead_layer(p) for p in range(8)}


def test_words_and_json(model):
    lens = logit_lens(model, TEXT, top=3)
    word, prob = lens.top(2)[0]
    assert word == model.tok_str(model.logits(TEXT)[0, -1].argmax()[None])[0]
    assert prob == pytest.approx(float(model.logits(TEXT)[0, -1].softmax(-1).max()))
    assert lens.strings[-1][0][-1][0] == word
    value = json.loads(json.dumps(lens.to_json()))
    assert value["strings"][-1][0][-1][0] == word
    assert value["lead_layer"][0][-1] == lens.lead_layer()
    assert value["tokens"] == [["<bos>", *TEXT.split()]]
    assert logit_lens(model, TEXT, top=VOCAB).probs.sum(-1).allclose(torch.tensor(1.0))


def test_bad_requests(model):
    lens = logit_lens(model, TEXT)
    with pytest.raises(UsageError, match="The lens has no layer 7"):
        lens.top(7)
    with pytest.raises(UsageError, match="There is no position 8 among 8 tokens"):
        lens.lead_layer(8)
    for top in (0, VOCAB + 1):
        with pytest.raises(UsageError, match=f"top={top} is not possible"):
            logit_lens(model, TEXT, top=top)


def test_kl_entropy_answer_and_rank_by_hand(model):
    grid = lens_grid(model, TEXT, answer="doubtful")
    token = model.encode("doubtful", bos=False).ids[0, 0]
    _, cache = model.run_with_cache(TEXT, sites=["embed", "resid_post.*"])
    final = model.logits(TEXT).double().log_softmax(-1)
    for i, layer in enumerate(grid.layers):
        logp = model.unembed(cache["embed"] if layer < 0 else cache["resid_post", layer]).double().log_softmax(-1)
        torch.testing.assert_close(grid.kl[i].double(), (final.exp() * (final - logp)).sum(-1), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(grid.answer_probs[i].double(), logp[..., token].exp(), rtol=1e-4, atol=1e-7)
        for p in range(logp.shape[1]):
            order = logp[0, p].argsort(descending=True).tolist()
            assert grid.rank[i, 0, p] == order.index(int(token))
    assert not grid.kl[-1].any()
    path = grid.trajectory(-1)
    assert [at["layer"] for at in path] == grid.layers
    assert path[-1]["word"] == grid.top(LAYERS - 1)[0][0]
    own = lens_grid(model, TEXT)
    assert own.rank[-1].eq(0).all()
    assert own.first_lead() is not None
    assert own.first_lead() <= own.lead_layer()
    with pytest.raises(UsageError, match="There is no token 999"):
        lens_grid(model, TEXT, answer=999)


def test_padding_on_the_left_changes_no_guess(model):
    texts = [TEXT, "a bird sang"]
    left, right = (lens_grid(model, model.encode(texts, padding=side)) for side in ("left", "right"))
    for row in range(2):
        for position in range(len(left.tokens[row])):
            for layer in left.layers:
                assert left.top(layer, position, row)[0][0] == right.top(layer, position, row)[0][0]
            assert left.lead_layer(position, row) == right.lead_layer(position, row)
    assert [len(c) for c in left.cells(1)] == [4] * (LAYERS + 1)


def test_a_lens_translates_before_it_reads(model):
    d = model.d_model
    matrix = torch.randn(d, d, generator=torch.Generator().manual_seed(0))
    lens = Lens("tuned", {0: matrix}, {0: torch.ones(d)})
    _, cache = model.run_with_cache(TEXT, sites=["resid_post.*"])
    want = model.unembed(cache["resid_post.0"] @ matrix.T + 1).log_softmax(-1).topk(3)
    grid = lens_grid(model, cache, lens, top=3)
    assert torch.equal(grid.ids[0], want.indices)
    assert torch.equal(grid.ids[1:], logit_lens(model, cache, top=3).ids[1:])
    with pytest.raises(UsageError, match="This lens reads 3 numbers after layer 0"):
        lens_grid(model, cache, Lens("tuned", {0: torch.eye(3)}))


def test_the_grid_is_drawn(model, tmp_path):
    from rich.console import Console

    from lensing.draw.lens import grid_table, shade, visible

    grid = lens_grid(model, TEXT)
    page = grid._repr_html_()
    assert page.count("<tr>") == LAYERS + 2
    assert "KL to the model" in page
    assert "&lt;bos&gt;" in page
    console = Console(width=80, record=True, quiet=True)
    console.print(grid_table(grid.tokens[0], grid.layers, grid.cells(), columns=3))
    assert "reliability" not in console.export_text()  # only the last three positions
    assert shade(0.0)[0] == "#fafafa"
    assert shade(1.0) == ("#2166ac", "#ffffff")
    assert visible(" ") == "␣"
    assert visible("\n") == "⏎"
