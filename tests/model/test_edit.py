"""Edits: order, places, rows, positions; they come off whatever happens."""

import pytest
import torch
from conftest import D_HEAD, D_MODEL, HEADS

from lensing.errors import UnknownNameError, UsageError
from lensing.model.edit import Add, Apply, Edit, EditContext, Replace, where

TEXT = "the reliability of the almanac is very"


def context(start, length, prompt=4, batch=2, lengths=None, special=None):
    return EditContext(
        positions=torch.arange(start, start + length),
        prompt_length=prompt,
        lengths=torch.tensor(lengths or [prompt] * batch),
        special=torch.zeros(batch, length, dtype=torch.bool) if special is None else torch.tensor(special),
    )


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("all", [0, 1, 2, 3, 4, 5]),
        ("prompt", [0, 1, 2, 3]),
        ("generated", [4, 5]),
        (2, [2]),
        (-1, [3]),
        (0, [0]),
        (slice(1, 3), [1, 2]),
        (slice(-2, None), [2, 3, 4, 5]),
        (slice(None, -1), [0, 1, 2]),
        (slice(None, None, 2), [0, 2, 4]),
        (slice(1, None, 3), [1, 4]),
        (99, []),
    ],
)
def test_positions_count_over_prompt_and_continuation(at, expected):
    whole = where(context(0, 6), at)
    assert whole.shape == (2, 6)
    assert [i for i in range(6) if whole[0, i]] == expected
    # The same under the cache, one token at a time.
    single = torch.cat([where(context(i, 1), at) for i in range(6)], dim=1)
    assert torch.equal(single, whole)


def test_negative_positions_count_from_the_end_of_each_row():
    found = where(context(0, 4, lengths=[4, 2]), -1)
    assert found.tolist() == [[False, False, False, True], [False, True, False, False]]


def test_bos_and_padding_are_left_out_unless_asked_for():
    at = context(0, 3, batch=1, special=[[True, False, False]])
    assert where(at, "all").tolist() == [[False, True, True]]
    assert where(at, "all", include_special=True).all()
    assert not where(at, 0).any()


@pytest.mark.parametrize("at", ["everywhere", True, 1.5, None])
def test_positions_that_mean_nothing(at):
    with pytest.raises(UsageError, match="There are no positions"):
        where(context(0, 3), at)


def test_a_backward_slice_of_positions():
    with pytest.raises(UsageError, match="cannot have the step -1"):
        where(context(0, 3), slice(None, None, -1))


def test_edits_compose_in_the_order_given(model):
    double, add = Apply("resid_post.1", lambda h: 2 * h), Add("resid_post.1", torch.ones(D_MODEL), include_special=True)
    _, plain = model.run_with_cache(TEXT, sites="resid_post.1")
    for edits, expected in (
        ((double, add), 2 * plain["resid_post.1"] + 1),
        ((add, double), 2 * (plain["resid_post.1"] + 1)),
    ):
        with model.edit(*edits):
            assert torch.equal(model.run_with_cache(TEXT, sites="resid_post.1")[1]["resid_post.1"], expected)
        with model.edit(edits[0]), model.edit(edits[1]):
            assert torch.equal(model.run_with_cache(TEXT, sites="resid_post.1")[1]["resid_post.1"], expected)


def test_two_names_of_one_place_compose_in_the_order_given(make_model):
    """On Llama mlp_out and mlp_out_raw are one tensor; the order of the edits must not depend on the name."""
    model = make_model("llama")
    _, plain = model.run_with_cache(TEXT, sites="mlp_out.1")
    with model.edit(Apply("mlp_out_raw.1", lambda h: 2 * h), Apply("mlp_out.1", lambda h: h + 1)):
        _, cache = model.run_with_cache(TEXT, sites=["mlp_out.1", "mlp_out_raw.1"])
    assert torch.equal(cache["mlp_out.1"], 2 * plain["mlp_out.1"] + 1)
    assert torch.equal(cache["mlp_out_raw.1"], cache["mlp_out.1"])


def test_two_edits_of_the_middle_both_reach_the_stream(model):
    one = torch.ones(D_MODEL)
    with model.edit(Add("resid_mid.1", 3 * one)):
        once = model.run_with_cache(TEXT, sites="*")[1]
    with model.edit(Add("resid_mid.1", one), Add("resid_mid.1", 2 * one)):
        twice = model.run_with_cache(TEXT, sites="*")[1]
    torch.testing.assert_close(once["resid_post.1"], twice["resid_post.1"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(once["resid_post.2"], twice["resid_post.2"], rtol=1e-4, atol=1e-4)


def test_edits_come_off_after_an_exception(model):
    plain = model.logits(TEXT)
    n_hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())

    def explode(h):
        raise RuntimeError("inside the edit")

    with pytest.raises(RuntimeError, match="inside the edit"), model.edit(Apply("mlp_out.1", explode)):
        model.logits(TEXT)
    with pytest.raises(ValueError, match="in the body"), model.edit(Apply("mlp_out.1", torch.zeros_like)):
        raise ValueError("in the body")
    with pytest.raises(RuntimeError, match="inside the edit"), model.edit(Apply("mlp_out.1", explode)):
        model.generate(TEXT, max_new_tokens=2)
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules()) == n_hooks
    assert torch.equal(model.logits(TEXT), plain)


def test_an_unknown_site_fails_when_the_edit_is_put_in_force(model):
    with (
        pytest.raises(UnknownNameError, match=r"Did you mean 'mlp_out.1'"),
        model.edit(Apply("mlp_uot.1", torch.zeros_like)),
    ):
        pytest.fail("the body must not run")
    with pytest.raises(UsageError, match="A function is not an edit"), model.edit(lambda h: h):
        pytest.fail("the body must not run")


def test_a_pattern_edits_every_layer(model):
    with model.edit(Apply("mlp_out.*", torch.zeros_like), Apply("attn_out.*", torch.zeros_like)):
        _, cache = model.run_with_cache(TEXT, sites=["embed", "resid_post.2"])
    assert torch.equal(cache["resid_post.2"], cache["embed"])


def test_each_row_can_have_its_own_vector(model):
    vectors = torch.randn(3, D_MODEL, generator=torch.Generator().manual_seed(0))
    with model.edit(Add("resid_post.1", vectors)):
        together = model.logits([TEXT] * 3)
    for row in range(3):
        with model.edit(Add("resid_post.1", vectors[row])):
            torch.testing.assert_close(model.logits(TEXT)[0], together[row], rtol=1e-4, atol=1e-4)


def test_add_leaves_bos_alone_to_the_bit(model):
    _, plain = model.run_with_cache(TEXT, sites="resid_post.1")
    with model.edit(Add("resid_post.1", torch.ones(D_MODEL))):
        _, cache = model.run_with_cache(TEXT, sites="resid_post.1")
    assert torch.equal(cache["resid_post.1"][:, 0], plain["resid_post.1"][:, 0])
    assert torch.equal(cache["resid_post.1"][:, 1:], plain["resid_post.1"][:, 1:] + 1)


def test_heads_are_edited_by_head(model):
    keep = torch.ones(HEADS, D_HEAD)
    keep[2] = 0
    with model.edit(Apply("attn_z.1", lambda z: z * keep)):
        _, cache = model.run_with_cache(TEXT, sites="attn_z.1")
    assert not cache["attn_z.1"][:, :, 2].any()
    assert cache["attn_z.1"][:, :, 1].any()


def test_replace_at_some_positions(model):
    _, plain = model.run_with_cache(TEXT, sites="mlp_out.1")
    with model.edit(Replace("mlp_out.1", torch.zeros(D_MODEL), at=3)):
        _, cache = model.run_with_cache(TEXT, sites="mlp_out.1")
    changed = (cache["mlp_out.1"] != plain["mlp_out.1"]).any(-1)[0]
    assert changed.tolist() == [i == 3 for i in range(8)]


@pytest.mark.parametrize("shape", [(D_MODEL + 1,), (3, D_MODEL), (1, 1, 1, D_MODEL), (1,)])
def test_a_vector_of_another_width_is_refused(model, shape):
    with model.edit(Add("resid_post.1", torch.zeros(shape))), pytest.raises(UsageError, match="does not fit this site"):
        model.logits([TEXT] * 2)


def test_an_edit_that_changes_the_shape_is_refused(model):
    with (
        model.edit(Apply("resid_post.1", lambda h: h[:, :1])),
        pytest.raises(UsageError, match=r"Apply at resid_post.1 returned"),
    ):
        model.logits(TEXT)
    with model.edit(Apply("resid_post.1", lambda h: None)), pytest.raises(UsageError, match="returned NoneType where"):
        model.logits(TEXT)


def test_an_edit_is_told_where_it_stands(model):
    class Look(Edit):
        site = "resid_post.1"

        def __init__(self):
            self.seen = []

        def apply(self, h, at):
            self.seen.append((at.positions.tolist(), at.prompt_length, at.special.tolist(), at.batch))
            return h

    look = Look()
    with model.edit(look):
        model.generate(TEXT, max_new_tokens=3, stop_ids=())
    prompt = (list(range(8)), 8, [[True, *[False] * 7]], 1)
    assert look.seen[0] == prompt
    assert [s[0] for s in look.seen[1:]] == [[8], [9]]
    assert all(s[1] == 8 for s in look.seen)


def test_edits_keep_the_number_format(make_hf):
    from lensing.model.run import Model

    model = Model(make_hf("gemma2").bfloat16())
    with model.edit(Apply("resid_post.1", lambda h: h.double() + 1)):
        logits, cache = model.run_with_cache([1, 4, 5], sites="resid_post.1")
    assert cache["resid_post.1"].dtype == logits.dtype == torch.bfloat16


def test_a_model_is_not_run_from_inside_its_own_edit(model):
    plain = model.logits(TEXT)
    edit = Apply("resid_post.1", lambda h: h + model.logits(TEXT).mean())
    with model.edit(edit), pytest.raises(UsageError, match="cannot be run from inside one of its own edits"):
        model.logits(TEXT)
    assert torch.equal(model.logits(TEXT), plain)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda: Add("resid_post.1", torch.ones(32), at=50), r"no position 50 in the 8 tokens of text 0. Give -8 to 7"),
        (lambda: Add("resid_post.1", torch.ones(32), at=6), r"no position 6 in the 4 tokens of text 1. Give -4 to 3"),
        (lambda: Add("resid_post.1", torch.ones(32), at=-5), r"no position -5 in the 4 tokens of text 1"),
        (lambda: Add("resid_post.1", torch.ones(32), at=slice(40, 50)), r"no positions from 40 on in 8 tokens"),
        (lambda: Add("resid_post.1", torch.ones(32), at=0), r"Position 0 is a special token \(BOS\)"),
        (lambda: Add("resid_post.1", torch.full((32,), torch.nan)), r"not a number \(NaN\)"),
        (lambda: Replace("resid_post.1", torch.full((32,), torch.nan)), r"not a number \(NaN\)"),
        (lambda: Add("resid_post.1", torch.ones(32, dtype=torch.complex64)), r"complex64 cannot be an activation"),
        (lambda: Apply("resid_post.1", lambda h: h.long()), r"returned int64 where float32 went in"),
    ],
)
def test_edits_that_would_do_nothing_or_harm_are_refused(model, edit, why):
    texts = ["the reliability of the almanac is very", "the old book"]
    with pytest.raises(UsageError, match=why), model.edit(edit()):
        model.logits(texts)


def test_a_position_that_is_still_to_come_is_edited_when_it_does(model):
    with model.edit(Add("resid_post.1", 9 * torch.ones(32), at=5)):
        made = model.generate("the old book", max_new_tokens=4, sites="resid_post.1", stop_ids=())
    plain = model.generate("the old book", max_new_tokens=4, sites="resid_post.1", stop_ids=())
    changed = (made.cache["resid_post.1"] != plain.cache["resid_post.1"]).any(-1)[0]
    assert changed[5]
    assert not changed[:5].any()
