"""Continuations: the same with and without the cache, edited or not; sampling that depends on the seed alone."""

import pytest
import torch
from conftest import CONTEXT, D_MODEL, FAMILIES, VOCAB

from lensing.errors import PromptError, UsageError
from lensing.model.edit import Add, Apply, Replace
from lensing.model.generate import _choose

TEXT = "the reliability of the almanac is very"
families = pytest.mark.parametrize("family", [f for f in FAMILIES if f != "opt_post_norm"])


def vector(scale=2.0):
    return scale * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(3))


@families
def test_greedy_equals_a_loop_of_plain_forwards(make_model, family):
    model = make_model(family)
    ids = model.encode(TEXT).ids
    with torch.no_grad():
        for _ in range(6):
            ids = torch.cat([ids, model.hf(input_ids=ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
    made = model.generate(TEXT, max_new_tokens=6, stop_ids=())
    assert made.ids.tolist() == ids[:, 8:].tolist()
    assert made.text == [model.tokenizer.decode(ids[0])[len(model.tokenizer.decode(ids[0, :8])) :]] or made.text


@families
@pytest.mark.parametrize("at", ["all", "prompt", "generated", slice(3, 10), -1])
def test_an_edit_gives_the_same_tokens_with_and_without_cache(make_model, family, at):
    model = make_model(family)
    prompts = [TEXT, "a bird sang by the river on"]
    edits = [
        Add("resid_post.1", vector(), at=at),
        Apply("mlp_out.0", lambda h: 0.5 * h),
        Add("attn_out.2", vector(), at=at),
    ]
    plain = model.generate(prompts, max_new_tokens=8, stop_ids=())
    with model.edit(*edits):
        fast = model.generate(prompts, max_new_tokens=8, stop_ids=(), sites=["resid_post.2", "mlp_out.1"])
        slow = model.generate(prompts, max_new_tokens=8, stop_ids=(), sites=["resid_post.2", "mlp_out.1"], cache=False)
    assert fast.ids.tolist() == slow.ids.tolist()
    torch.testing.assert_close(fast.logprobs, slow.logprobs, rtol=1e-3, atol=1e-3)
    for site in fast.cache:
        torch.testing.assert_close(fast.cache[site], slow.cache[site], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(fast.logprobs, plain.logprobs)


def test_edits_of_logits_and_of_a_window_that_slides_past(make_model):
    """The prompt's logits are cut short unless somebody edits them, and 30 tokens outgrow the window of 8."""
    for family in ("gemma2", "mistral", "gemma3_text"):
        model = make_model(family)
        ban = torch.zeros(VOCAB)
        ban[:20] = -1e4
        with model.edit(Add("logits", ban), Add("embed", vector(0.5), at=slice(2, None, 5))):
            fast, slow = (model.generate(TEXT, max_new_tokens=30, stop_ids=(), cache=c) for c in (True, False))
        assert fast.ids.tolist() == slow.ids.tolist()
        assert fast.ids.min() >= 20


def test_a_generated_edit_leaves_the_first_token_alone(model):
    plain = model.generate(TEXT, max_new_tokens=6, stop_ids=())
    with model.edit(Add("resid_post.2", vector(20), at="generated")):
        edited = model.generate(TEXT, max_new_tokens=6, stop_ids=())
    assert edited.ids[0, 0] == plain.ids[0, 0]
    assert edited.ids.tolist() != plain.ids.tolist()


def test_captures_cover_prompt_and_continuation(model):
    made = model.generate(TEXT, max_new_tokens=5, sites=["resid_post.*", "logits"], stop_ids=())
    whole = torch.cat([made.prompt.ids, made.ids], 1)
    logits, cache = model.run_with_cache(whole[0, :-1], sites=["resid_post.*"])
    assert made.cache.ids.tolist() == whole[:, :-1].tolist()
    assert made.cache.tokens == cache.tokens
    torch.testing.assert_close(made.cache["resid_post.1"], cache["resid_post.1"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.cache["logits"], logits, rtol=1e-4, atol=1e-4)
    new = logits[0, 7:].log_softmax(-1).gather(-1, made.ids[0][:, None])[:, 0]
    torch.testing.assert_close(made.logprobs[0], new, rtol=1e-4, atol=1e-4)
    assert model.generate(TEXT, max_new_tokens=2).cache is None


def test_writing_back_inside_generate_changes_nothing(model):
    made = model.generate(TEXT, max_new_tokens=6, sites="mlp_out.1", stop_ids=())
    with model.edit(Replace("mlp_out.1", made.cache["mlp_out.1"])):
        again = model.generate(TEXT, max_new_tokens=6, stop_ids=())
    assert torch.equal(again.ids, made.ids)
    assert torch.equal(again.logprobs, made.logprobs)


def test_sampling_depends_on_a_rows_own_seed(model):
    def sample(prompts, seed):
        return model.generate(prompts, max_new_tokens=8, temperature=1.0, seed=seed, stop_ids=()).ids.tolist()

    rows = sample([TEXT] * 4, 5)
    assert rows == sample([TEXT] * 4, 5)
    assert len({tuple(r) for r in rows}) == 4
    assert sample(TEXT, 5) == rows[:1]
    assert sample([TEXT] * 4, 6) != rows
    assert sample([TEXT] * 3, [5, 9, 5])[::2] == rows[:1] * 2
    with pytest.raises(UsageError, match="2 seeds do not fit 3 rows"):
        sample([TEXT] * 3, [1, 2])


def test_samples_follow_the_distribution(model):
    probs = (model.logits(TEXT)[0, -1] / 0.7).softmax(-1)
    n = 1500
    made = model.generate([TEXT] * n, max_new_tokens=1, temperature=0.7, stop_ids=())
    counts = torch.bincount(made.ids[:, 0], minlength=VOCAB)
    expected = n * probs
    common = expected > 5
    chi2 = ((counts - expected)[common] ** 2 / expected[common]).sum()
    assert chi2 < common.sum() + 5 * (2 * common.sum()) ** 0.5
    assert counts[~common].sum() < 5 * (~common).sum() + 5


def test_greedy_ties_go_to_the_lowest_id():
    logits = torch.zeros(2, 500)
    logits[1, [37, 444]] = 3.0
    new, logprob = _choose(logits, 0.0, None)
    assert new.tolist() == [0, 37]
    torch.testing.assert_close(logprob[0], -torch.tensor(500.0).log())


def test_a_row_stops_alone_and_is_padded(model):
    rows = model.generate([TEXT] * 6, max_new_tokens=12, temperature=1.5, seed=1, stop_ids=())
    stop = int(rows.ids[0, 2])
    made = model.generate([TEXT] * 6, max_new_tokens=12, temperature=1.5, seed=1, stop_ids=[stop])
    for row in range(6):
        free = rows.ids[row].tolist()
        end = free.index(stop) + 1 if stop in free else len(free)
        assert made.ids[row, :end].tolist() == free[:end]
        assert made.mask[row].tolist() == [i < end for i in range(made.mask.shape[1])]
        assert (made.ids[row, end:] == model.pad_id).all()
        assert (made.logprobs[row, end:] == 0).all()
        assert (made.logprobs[row, :end] < 0).all()
        assert len(made.text[row].split()) == sum(t > 3 for t in free[:end])
    everyone = model.generate(TEXT, max_new_tokens=12, stop_ids=range(VOCAB))
    assert everyone.ids.shape == (1, 1)


def test_the_models_own_end_of_text_stops(model):
    boost = torch.zeros(VOCAB)
    boost[2] = 1e4
    with model.edit(Add("logits", boost, at=9)):
        assert model.generate(TEXT, max_new_tokens=10).ids.shape == (1, 3)
        assert model.generate(TEXT, max_new_tokens=10, stop_ids=()).ids.shape == (1, 10)


def test_text_joins_the_prompt(model):
    made = model.generate(TEXT, max_new_tokens=4, stop_ids=())
    assert TEXT + made.text[0] == model.decode([*made.prompt.ids[0], *made.ids[0]])
    assert made.to_json()["ids"] == made.ids.tolist()


def test_a_lone_bos_can_be_continued(model):
    assert model.generate([1], max_new_tokens=3, stop_ids=()).ids.shape == (1, 3)


def test_bad_requests(model):
    with pytest.raises(
        PromptError, match=rf"8 tokens of prompt and 99 new ones are more than the model's context of {CONTEXT}"
    ):
        model.generate(TEXT, max_new_tokens=99)
    assert model.generate(TEXT, max_new_tokens=CONTEXT - 7, stop_ids=()).ids.shape[1] == CONTEXT - 7
    with pytest.raises(PromptError, match=r"Prompts padded on the right cannot be continued"):
        model.generate(model.encode([TEXT, "a bird sang"]))
    with pytest.raises(UsageError, match="0 new tokens cannot be generated"):
        model.generate(TEXT, max_new_tokens=0)
    for temperature in (-1.0, float("nan")):
        with pytest.raises(UsageError, match="There is no temperature"):
            model.generate(TEXT, temperature=temperature)
