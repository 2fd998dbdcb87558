"""Prompts in, ids out: BOS once, padding on the right, and a sentence for everything that cannot be read."""

import pytest
import torch
from conftest import CONTEXT, VOCAB, WORDS

from lensing.errors import PromptError
from lensing.model.run import Model
from lensing.model.tokens import Coder


@pytest.fixture
def no_bos(make_hf):
    hf = make_hf("qwen2")
    hf.config.bos_token_id = None
    return Model(hf)


def byte_level():
    """A small byte-level tokenizer in the manner of GPT-2's, trained on the spot."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(["a bird sang by the river"] * 9, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|end|>", eos_token="<|end|>", unk_token="<|end|>"
    )


def coder(tokenizer, **changes):
    settings = {"bos_id": 0, "pad_id": 0, "d_vocab": len(tokenizer), "context": 99} | changes
    return Coder(tokenizer, **settings)


def test_bos_is_put_in_front_once(model):
    assert model.encode("the bird").ids.tolist() == [[1, 4, WORDS.index("bird")]]
    assert model.encode([4, 5]).ids.tolist() == [[1, 4, 5]]
    assert model.encode([1, 4, 5]).ids.tolist() == [[1, 4, 5]]
    assert model.encode([1]).ids.tolist() == [[1]]
    assert model.encode([4, 5], bos=False).ids.tolist() == [[4, 5]]


def test_without_a_bos_nothing_is_put_in_front(no_bos):
    tokens = no_bos.encode([[4, 5], [6]])
    assert tokens.ids.tolist() == [[4, 5], [6, 0]]
    assert tokens.special.tolist() == [[False, False], [False, True]]
    assert tokens.strings == [["4", "5"], ["6"]]


def test_a_tokenizer_without_bos_overrules_the_config(make_hf, tokenizer):
    import copy

    other = copy.deepcopy(tokenizer)
    other.bos_token = None
    assert Model(make_hf("qwen2"), other).encode("the bird").ids.shape == (1, 2)


def test_batches_are_padded_on_the_right(model):
    tokens = model.encode(["a bird", [4], torch.tensor([1, 5, 6, 7])])
    assert tokens.ids.tolist() == [[1, WORDS.index("a"), WORDS.index("bird"), 0], [1, 4, 0, 0], [1, 5, 6, 7]]
    assert tokens.mask.tolist() == [[True] * 3 + [False], [True] * 2 + [False] * 2, [True] * 4]
    assert torch.equal(tokens.special, ~tokens.mask | (tokens.ids == 1))
    assert tokens.lengths.tolist() == [3, 2, 4]
    assert tokens.strings[1] == ["<bos>", "the"]
    assert tokens.to_json()["strings"] == tokens.strings


@pytest.mark.parametrize("prompt", ["", "   ", "\n", [], [""], [[]], torch.zeros(0, dtype=torch.long), ["a bird", ""]])
def test_empty_prompts(model, prompt):
    with pytest.raises(PromptError, match=r"The prompt is empty. Give at least one word.") as caught:
        model.encode(prompt)
    assert caught.value.exit_code == 2


def test_unknown_words_are_named(model):
    with pytest.raises(PromptError) as caught:
        model.encode("the heron was not seen in Wikipedia , heron")
    message = "'heron', 'Wikipedia' are not words that this model's tokenizer knows. Use other words."
    assert str(caught.value) == message
    with pytest.raises(PromptError, match="'heron' is not a word that"):
        model.encode(["a bird", "a heron"])


def test_too_long(model):
    assert model.encode([4] * (CONTEXT - 1)).ids.shape == (1, CONTEXT)
    with pytest.raises(PromptError, match=rf"has {CONTEXT + 1} tokens, more than the model's context of {CONTEXT}"):
        model.encode([4] * CONTEXT)
    with pytest.raises(PromptError, match="more than the model's context"):
        model.encode("the " * 100)


@pytest.mark.parametrize(
    "ids", [[4, VOCAB], [-1], [1.5], [True], torch.tensor([0.5]), torch.zeros(1, 1, 1, dtype=torch.long)]
)
def test_what_is_no_token_id(model, ids):
    with pytest.raises(PromptError, match=r"is not a token id|is no prompt"):
        model.encode(ids)
    with pytest.raises(PromptError, match="A float is no prompt"):
        model.encode(1.5)


def test_text_needs_a_tokenizer(no_bos):
    with pytest.raises(PromptError, match=r"came without a tokenizer. Give token ids"):
        no_bos.encode("the bird")


def test_strings_of_a_byte_level_tokenizer():
    tokenizer = byte_level()
    read = coder(tokenizer)
    tokens = read.encode("a bird\n sangé")
    assert "".join(tokens.strings[0][1:-2]) == "a bird\n sang"
    assert tokens.strings[0][0] == "<|end|>"
    assert any(s.startswith(" ") for s in tokens.strings[0])
    assert read.decode(tokens.ids[0].tolist()) == "a bird\n sangé"


def test_a_bos_that_doubles_as_unknown_is_no_unknown_word():
    assert coder(byte_level()).encode("a<|end|>bird").ids.tolist()[0].count(0) == 2


def test_strings_of_a_sentencepiece_tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocab = {"<s>": 0, "▁the": 1, "re": 2, "<0x0A>": 3, "<0xE2>": 4, "▁▁": 5}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocab)), bos_token="<s>")
    assert coder(tokenizer).strings([1, 2, 3, 4, 5]) == [" the", "re", "\n", "<0xE2>", "  "]


def test_ids_beyond_the_tokenizer_have_a_string(model):
    """Embeddings are often padded beyond the vocabulary."""
    assert model.tok_str([4, VOCAB + 3]) == ["the", f"<{VOCAB + 3}>"]
    assert model.tok_str(4) == ["the"]
    assert model.decode(torch.tensor([1, 4, 12])) == "the and"
