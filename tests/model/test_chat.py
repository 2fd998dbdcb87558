"""Chats: the template's own ids, whose turn each token is, and edits that keep to a role's turns."""

import pytest
import torch

from lensing.errors import PromptError, UnknownNameError, UsageError
from lensing.model.edit import Add, Apply
from lensing.model.run import Model

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRIMMED = (  # in the manner of Gemma: other names for roles, trimmed messages, turns that must alternate
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<|im_start|>"
    "{{ 'model' if m['role'] == 'assistant' else m['role'] }} {{ m['content'] | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model {% endif %}"
)
ASKED = [
    {"role": "system", "content": "be kind."},
    {"role": "user", "content": "is a bird kind?\nor not?"},
    {"role": "assistant", "content": "a bird is a user"},
    {"role": "user", "content": "user"},
]
T, S, U, A = "template", "system", "user", "assistant"


def speaking(template, specials=("<pad>", "<bos>", "<|im_start|>", "<|im_end|>")):
    """A byte-level tokenizer with a chat template; bytes alone, so that every text is read."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(["system user assistant model a bird is kind. or not? be kind?"] * 9, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<bos>", eos_token="<|im_end|>", pad_token="<pad>", chat_template=template
    )
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    return made


def talking(template):
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = LlamaConfig(
            vocab_size=320, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=256, bos_token_id=1, eos_token_id=3, pad_token_id=0, initializer_range=0.4,
        )  # fmt: skip
        return Model(LlamaForCausalLM(config), speaking(template), name="talking")


@pytest.fixture(scope="module")
def model():
    return talking(CHATML)


def said(tokens, row=0):
    """The text of each run of one role."""
    found = []
    for word, role in zip(tokens.strings[row], tokens.roles[row], strict=True):
        if not found or found[-1][0] != role:
            found.append((role, ""))
        found[-1] = (role, found[-1][1] + word)
    return found


def test_a_chat_has_the_templates_ids_and_says_who_speaks(model):
    tokens = model.encode_chat(ASKED)
    expected = model.tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=False)
    assert tokens.ids[0].tolist() == list(expected)
    assert said(tokens) == [
        (T, "<|im_start|>system\n"), (S, "be kind."), (T, "<|im_end|>\n<|im_start|>user\n"),
        (U, "is a bird kind?\nor not?"), (T, "<|im_end|>\n<|im_start|>assistant\n"), (A, "a bird is a user"),
        (T, "<|im_end|>\n<|im_start|>user\n"), (U, "user"), (T, "<|im_end|>\n<|im_start|>assistant\n"),
    ]  # fmt: skip
    assert tokens.of("user").sum() + tokens.of(S).sum() + tokens.of(A).sum() + tokens.of(T).sum() == tokens.mask.sum()
    assert not tokens.special.any()  # this template writes no BOS, and none is added
    assert tokens.to_json()["roles"] == tokens.roles
    assert "| system: 'b' 'e' ' kind' '.' | template: '<|im_end|>'" in repr(tokens)


def test_the_reply_is_opened_when_it_is_due(model):
    assert said(model.encode_chat(ASKED, reply=False))[-1] == (T, "<|im_end|>\n")
    ended = model.encode_chat(ASKED[:3])
    assert said(ended)[-2:] == [(A, "a bird is a user"), (T, "<|im_end|>\n")]
    assert said(model.encode_chat(ASKED[:3], reply=True))[-1] == (T, "<|im_end|>\n<|im_start|>assistant\n")


def test_trimmed_messages_and_templates_with_a_bos():
    model = talking(TRIMMED)
    tokens = model.encode_chat([{"role": "user", "content": "  a bird "}, {"role": "assistant", "content": "is\n"}])
    assert [(role, text.strip()) for role, text in said(tokens)] == [
        (T, "<bos><|im_start|>user"), (U, "a bird"), (T, "<|im_end|><|im_start|>model"), (A, "is"), (T, "<|im_end|>")
    ]  # fmt: skip
    assert tokens.ids[0].tolist().count(1) == 1
    assert tokens.special.sum() == 1
    with pytest.raises(PromptError, match=r"cannot write this chat: roles must alternate. Give other roles"):
        model.encode_chat([{"role": "assistant", "content": "a bird"}])


def test_chats_of_different_lengths_are_padded(model):
    for padding in ("left", "right"):
        tokens = model.encode_chat([ASKED, ASKED[:2]], padding=padding)
        for row, chat in enumerate((ASKED, ASKED[:2])):
            alone = model.encode_chat(chat)
            assert tokens.ids[row][tokens.mask[row]].tolist() == alone.ids[0].tolist()
            assert tokens.of(U)[row][tokens.mask[row]].tolist() == alone.of(U)[0].tolist()
            assert not tokens.of(U)[row][~tokens.mask[row]].any()


@pytest.mark.parametrize("role", [T, S, U, A])
def test_an_edit_keeps_to_a_roles_turns(model, role):
    tokens = model.encode_chat([ASKED, ASKED[:3]])
    _, plain = model.run_with_cache(tokens, sites="resid_post.1", stop=True)
    with model.edit(Add("resid_post.1", torch.ones(16), at=role)):
        _, edited = model.run_with_cache(tokens, sites="resid_post.1", stop=True)
    changed = (edited["resid_post.1"] != plain["resid_post.1"]).any(-1)
    assert torch.equal(changed, tokens.of(role))
    assert changed.any()


@pytest.mark.parametrize("at", [T, U, A, "generated"])
def test_roles_in_generation_with_and_without_the_cache(model, at):
    tokens = model.encode_chat([ASKED, ASKED[:2]], padding="left")
    with model.edit(Add("resid_post.0", 3 * torch.ones(16), at=at)):
        fast, slow = (
            model.generate(tokens, max_new_tokens=6, stop_ids=(), sites="resid_post.1", cache=c) for c in (True, False)
        )
    assert fast.ids.tolist() == slow.ids.tolist()
    torch.testing.assert_close(fast.cache["resid_post.1"], slow.cache["resid_post.1"], rtol=1e-3, atol=1e-3)


def test_what_is_generated_is_the_assistants(model):
    seen = []

    class Look(Apply):
        def apply(self, h, at):
            from lensing.model.edit import where

            seen.append(where(at, "assistant").tolist())
            return h

    tokens = model.encode_chat(ASKED[:2])
    with model.edit(Look("resid_post.0", lambda h: h)):
        made = model.generate(tokens, max_new_tokens=3, stop_ids=(), sites="embed")
    assert not any(seen[0][0])  # the assistant has not said anything in the prompt
    assert seen[1:] == [[[True]], [[True]]]
    assert made.cache.roles[0] == [*tokens.roles[0], A, A]
    assert made.cache.tokens[0][-2:] == model.tok_str(made.ids[0, :2])


def test_roles_that_are_not_there(model):
    tokens = model.encode_chat(ASKED[1:])
    with (
        model.edit(Add("resid_post.1", torch.ones(16), at="system")),
        pytest.raises(UnknownNameError, match=r"no role in this chat named 'system'. There are: assistant, template"),
    ):
        model.logits(tokens)
    with (
        model.edit(Add("resid_post.1", torch.ones(16), at="user")),
        pytest.raises(UsageError, match=r"no positions 'user' in a text that is no chat.*model.encode_chat"),
    ):
        model.logits("a bird")
    with pytest.raises(UsageError, match="These tokens have no roles"):
        model.encode("a bird").of("user")


@pytest.mark.parametrize(
    "chat", ["a bird", [], [[]], [{}], [{"role": "user"}], [{"role": "user", "content": 5}], [5], 5]
)
def test_what_is_no_chat(model, chat):
    with pytest.raises(PromptError, match=r"is no message or chat\. Give a list of"):
        model.encode_chat(chat)


def test_a_role_named_template_is_refused(model):
    with pytest.raises(PromptError, match="No message can have the role 'template'"):
        model.encode_chat([{"role": "template", "content": "a"}])


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for m in messages %}{{ m['content'] | upper }}\n{% endfor %}", "changes message 0, of user"),
        ("{% for m in messages[1:] %}{{ m['content'] }}\n{% endfor %}", "leaves messages out"),
        ("{% for m in messages %}{{ m['content'] + m['content'] }}\n{% endfor %}", "leaves messages out"),
        ("{{ messages[0]['content'] }}{{ 'x' * (messages[0]['content'] | length) }}", "ends differently"),
        ("{{ messages | length }}{% for m in messages %}x{{ m['content'] }}{% endfor %}d", "joins words"),
    ],
)
def test_templates_that_change_what_is_said_are_refused(template, why):
    with pytest.raises(PromptError, match=why):
        talking(template).encode_chat([{"role": "user", "content": "is a bir"}])


def test_no_template_and_no_tokenizer(model, make_hf):
    with pytest.raises(PromptError, match=r"has no chat template\. Give plain text"):
        talking(None).encode_chat(ASKED)
    with pytest.raises(PromptError, match="without a tokenizer, so it has no chat template"):
        Model(make_hf("llama")).encode_chat(ASKED)
    with pytest.raises(PromptError, match="more than the model's context of 256"):
        model.encode_chat([{"role": "user", "content": "bird?" * 300}])
