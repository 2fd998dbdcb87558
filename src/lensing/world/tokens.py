"""The world's tokenizer: one token a word, written as an ordinary `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lensing.files import write_json
from lensing.world.grammar import Grammar
from lensing.world.sample import BOS, EOS, PAD, UNK, detokenize

SPECIAL = (PAD, BOS, EOS, UNK)
_PUNCTUATION = {".", ",", "?", ":"}


def vocabulary(grammar: Grammar) -> tuple[str, ...]:
    """Every token of the world in the order of its ids: the special ones, then words."""
    return (*SPECIAL, *(w for w in grammar.words if w not in SPECIAL))


def build_tokenizer(grammar: Grammar) -> Any:
    """Return the `tokenizers.Tokenizer` of a grammar: words lead with ▁, punctuation stands alone, BOS first."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    table = {w if w in _PUNCTUATION or w in SPECIAL else f"▁{w}": i for i, w in enumerate(vocabulary(grammar))}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
            pre_tokenizers.Split(Regex(r"[.,?:]"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, SPECIAL.index(BOS))]
    )
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tokenizer


def write_tokenizer(grammar: Grammar, folder: str | Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` into a folder, for `AutoTokenizer.from_pretrained`."""
    folder = Path(folder)
    build_tokenizer(grammar).save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": PAD,
            "unk_token": UNK,
            "model_max_length": grammar.max_tokens,
            "clean_up_tokenization_spaces": False,
        },
    )


__all__ = ["SPECIAL", "build_tokenizer", "detokenize", "vocabulary", "write_tokenizer"]
