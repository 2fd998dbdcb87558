"""Parts of a run: start and stop at a block, some positions only, padding on either side."""

import pytest
import torch
from conftest import D_MODEL, FAMILIES, HEADS, LAYERS, VOCAB

from lensing.errors import UsageError
from lensing.model.edit import Add, Apply, Replace

IDS = [1, 4, 5, 6, 7, 8, 9, 12]
families = pytest.mark.parametrize("family", FAMILIES)
PROMPTS = ["the reliability of almanac is very", "a bird sang"]


@families
def test_a_run_that_starts_at_a_block_is_the_rest_of_a_whole_one(make_model, family):
    model = make_model(family)
    logits, cache = model.run_with_cache(IDS, sites=["resid_pre.*", "resid_post.*"])
    for layer in range(LAYERS):
        later, rest = (
            model.run_with_cache(
                IDS, sites=["resid_post.{1,2}"], start=(f"resid_pre.{layer}", cache["resid_pre", layer])
            )
            if layer < 2
            else model.run_with_cache(IDS, sites="resid_post.2", start=("resid_pre.2", cache["resid_pre", 2]))
        )
        assert torch.equal(later, logits)
        for site in rest:
            assert torch.equal(rest[site], cache[site])
    assert torch.equal(model.logits(IDS), logits)  # the blocks are back


def test_the_blocks_before_the_start_do_not_run(make_model):
    model = make_model("gemma2")
    ran = []
    hooks = [b.module.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, b in enumerate(model.adapter.blocks)]
    try:
        model.run_with_cache(IDS, start=("resid_post.0", torch.zeros(1, len(IDS), D_MODEL)))
    finally:
        for hook in hooks:
            hook.remove()
    assert ran == [1, 2]


def test_starts_that_cannot_be(make_model):
    model, h = make_model("gemma2"), torch.zeros(1, len(IDS), D_MODEL)
    for site in ("mlp_out.1", "logits", "resid_post.2"):
        with pytest.raises(UsageError, match=r"A run cannot start at"):
            model.run_with_cache(IDS, start=(site, h))
    with pytest.raises(UsageError, match=r"A tensor of shape \[1, 3, 32\] cannot start this run. Give \[1, 8, 32\]"):
        model.run_with_cache(IDS, start=("resid_pre.1", h[:, :3]))
    with pytest.raises(UsageError, match=r"attn_out.0 lies before the start at block 1"):
        model.run_with_cache(IDS, sites="attn_out.0", start=("resid_pre.1", h))


def test_gradients_through_captures(make_model):
    model = make_model("gemma2")
    logits, cache = model.run_with_cache(IDS, sites=["resid_post.0", "attn_pattern.1", "attn_z.1"], grad=True)
    grads = torch.autograd.grad(logits[0, -1, 5], [cache[s] for s in cache], retain_graph=True)
    assert all(g.abs().sum() > 0 for g in grads)
    # the gradient is the slope of the edited run
    step = torch.zeros_like(cache["attn_z.1"])
    step[0, 3, 1, 2] = 1e-2
    with model.edit(Replace("attn_z.1", cache["attn_z.1"].detach() + step)):
        up = model.logits(IDS)
    with model.edit(Replace("attn_z.1", cache["attn_z.1"].detach() - step)):
        down = model.logits(IDS)
    slope = (up - down)[0, -1, 5] / 2e-2
    assert abs(float(slope - grads[2][0, 3, 1, 2])) < 0.02 * float(grads[2].abs().max()) + 1e-3


def test_some_positions_and_another_device(make_model):
    model = make_model("gemma2")
    _, cache = model.run_with_cache(IDS, sites=["resid_post.1", "attn_z.0", "attn_pattern.2"])
    for positions in (-1, [0, 3], slice(2, 5)):
        _, some = model.run_with_cache(IDS, sites=["resid_post.1", "attn_z.0", "attn_pattern.2"], positions=positions)
        index = [positions] if isinstance(positions, int) else positions
        assert torch.equal(some["resid_post.1"], cache["resid_post.1"][:, index])
        assert torch.equal(some["attn_z.0"], cache["attn_z.0"][:, index])
        assert torch.equal(some["attn_pattern.2"], cache["attn_pattern.2"][:, :, index])
        assert some["resid_post.1"].untyped_storage().nbytes() < cache["resid_post.1"].untyped_storage().nbytes()
    with pytest.raises(UsageError, match=r"There is no position 8 among 8. Give -8 to 7"):
        model.run_with_cache(IDS, sites="embed", positions=8)
    _, meta = model.run_with_cache(IDS, sites="embed", device="meta")
    assert meta["embed"].device.type == "meta"


def test_captures_that_never_fit_are_refused(make_model, monkeypatch):
    monkeypatch.setattr("lensing.memory.memory_bytes", lambda: 10_000)
    model = make_model("gemma2")
    with pytest.raises(UsageError, match=r"captured at \d+ sites of 1 x 8 tokens needs .* Capture fewer sites"):
        model.run_with_cache(IDS, sites="*")
    assert len(model.run_with_cache(IDS, sites="resid_post.1")[1]) == 1


@families
def test_padding_on_the_left_changes_no_row(make_model, family):
    """A padded row must give what it gives alone, up to the roundings of another shape."""
    model = make_model(family)
    tokens = model.encode(PROMPTS, padding="left")
    assert tokens.offsets.tolist() == [0, 3]
    logits, cache = model.run_with_cache(tokens, sites=["resid_post.1", "logits"])
    for row, prompt in enumerate(PROMPTS):
        alone = model.logits(prompt)[0]
        first = int(tokens.offsets[row])
        torch.testing.assert_close(logits[row, first:], alone, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(cache["logits"][row, first:], alone, rtol=1e-3, atol=1e-4)
    assert cache.tokens[1] == model.encode(PROMPTS[1]).strings[0]


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "llama", "opt", "bloom", "gpt_oss"])
def test_prompts_of_different_lengths_are_continued_together(make_model, family):
    model = make_model(family)
    sites = ["resid_post.1", "attn_pattern.1"]
    both = model.generate(PROMPTS, max_new_tokens=5, stop_ids=(), sites=sites)
    for row, prompt in enumerate(PROMPTS):
        alone = model.generate(prompt, max_new_tokens=5, stop_ids=(), sites=sites)
        assert both.ids[row].tolist() == alone.ids[0].tolist()
        assert both.text[row] == alone.text[0]
        first = int(both.prompt.offsets[row])
        torch.testing.assert_close(
            both.cache["resid_post.1"][row, first:], alone.cache["resid_post.1"][0], rtol=1e-3, atol=1e-4
        )
        torch.testing.assert_close(
            both.cache["attn_pattern.1"][row, :, first:, first:], alone.cache["attn_pattern.1"][0], rtol=1e-3, atol=1e-4
        )


def test_patterns_of_a_generation_are_those_of_its_text(make_model):
    for family in ("gpt2", "gemma2"):  # Gemma 2 has a window of 8
        model = make_model(family)
        done = model.generate(IDS, max_new_tokens=6, stop_ids=(), sites=["attn_pattern.*", "attn_scores.1"])
        _, whole = model.run_with_cache(done.cache.ids, sites=["attn_pattern.*", "attn_scores.1"])
        for layer in range(LAYERS):
            got = done.cache["attn_pattern", layer]
            assert got.shape == (1, HEADS, 13, 13)
            torch.testing.assert_close(got, whole["attn_pattern", layer], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            done.cache["attn_scores.1"].softmax(-1), whole["attn_scores.1"].softmax(-1), rtol=1e-4, atol=1e-5
        )


def test_positions_of_edits_count_tokens_and_not_padding(make_model):
    model = make_model("gpt2")
    vector = torch.ones(D_MODEL)
    tokens = model.encode(PROMPTS, padding="left")
    for at in (1, slice(1, 3), -1, "prompt"):
        with model.edit(Add("resid_post.0", vector, at=at)):
            logits = model.logits(tokens)
            for row, prompt in enumerate(PROMPTS):
                first = int(tokens.offsets[row])
                torch.testing.assert_close(logits[row, first:], model.logits(prompt)[0], rtol=1e-3, atol=1e-4)


def test_a_mask_marks_positions(make_model):
    model = make_model("gemma2")
    mask = torch.zeros(len(IDS), dtype=torch.bool)
    mask[[0, 2, 5]] = True  # 0 is BOS, which is left out
    _, before = model.run_with_cache(IDS, sites="resid_post.0")
    with model.edit(Add("resid_post.0", torch.ones(D_MODEL), at=mask)):
        _, after = model.run_with_cache(IDS, sites="resid_post.0")
    changed = (after["resid_post.0"] != before["resid_post.0"]).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == [2, 5]
    with (
        pytest.raises(UsageError, match=r"A mask of torch.bool and shape \[1, 3\] does not mark positions"),
        model.edit(Add("resid_post.0", torch.ones(D_MODEL), at=mask[:3])),
    ):
        model.logits(IDS)


def test_edits_that_break_are_refused(make_model):
    model = make_model("gemma2")
    for function, message in (
        (lambda h: h[:, :2], r"returned \[1, 2, 32\] where \[1, 8, 32\] went in"),
        (lambda h: h * float("nan"), "not a number"),
        (lambda h: h.to("meta"), "Move it with .to"),
        (lambda h: None, "returned NoneType"),
    ):
        with pytest.raises(UsageError, match=message), model.edit(Apply("resid_post.1", function)):
            model.logits(IDS)
    assert model.logits(IDS).shape == (1, len(IDS), VOCAB)
