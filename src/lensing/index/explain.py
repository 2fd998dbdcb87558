"""What a latent is about in a few words, made without a language model from what the index counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from lensing.index.index import Index

CLEAR, LEAST, MOST = 0.5, 0.05, 3  # recall from which a word names the latent, is named at all; words that are named
METHOD = "automatic"


def explain(index: Index, latents: Iterable[int] | None = None) -> Iterator[str]:
    """Yield a label of each latent (all of them) from its firing words, their contexts, and the words it speaks for.

    Words that each hold half of its firing name it; else its commonest ones do, with the word before them where half of
    the strongest contexts share it. It says what was counted: no claim about what the model uses the latent for.
    """
    names = ("count", "word", "word_recall", "example_ptr", "example_row", "example_group", "tokens", "starts")
    count, word, recall, ptr, rows, group, tokens, starts = (np.asarray(index.array(name)) for name in names)
    promoted = index.array("promoted") if index.has("promoted") else None
    values = index.array("promoted_value") if promoted is not None else None
    for i in range(index.d_sae) if latents is None else latents:
        if not count[i]:
            yield "never fires on this text"
            continue
        clear = word[i][recall[i] >= CLEAR]
        some = clear if len(clear) else word[i][:MOST][recall[i][:MOST] >= LEAST]
        text = f"fires on {_join(index, some)}" if len(some) else "fires on many words"
        if not len(clear):
            span = slice(int(ptr[i]), int(ptr[i + 1]))
            peaks = rows[span][group[span] == 0]
            before = peaks[~np.isin(peaks, starts)] - 1
            ids, n = np.unique(tokens[before], return_counts=True)
            if len(peaks) > 1 and len(ids) and n.max() * 2 >= len(peaks):
                text += f" after {_join(index, ids[n.argmax()][None])}"
        if promoted is not None and values is not None:
            spoken = [s for s in index.words(promoted[i][:MOST][values[i][:MOST] > 0]) if s.strip()]
            if spoken:
                text += f"; speaks for {', '.join(_quoted(s) for s in spoken)}"
        yield text


def _join(index: Index, ids: np.ndarray) -> str:
    return ", ".join(_quoted(s) for s in index.words(ids))


def _quoted(word: str) -> str:
    return f"“{word.strip() or word}”"
