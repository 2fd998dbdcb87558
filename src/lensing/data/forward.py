"""Forward passes over many pieces of text: pieces of like length together, special positions left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from lensing.errors import SiteError
from lensing.model.run import Model
from lensing.model.tokens import Tokens
from lensing.shards import round_rows


def group_by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Groups of documents of like length, each of at most `batch_tokens` tokens when padded (or one document)."""
    groups: list[list[int]] = []
    longest = 0
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        longest = max(longest, lengths[i])
        if not groups or longest * (len(groups[-1]) + 1) > batch_tokens:
            groups.append([])
            longest = lengths[i]
        groups[-1].append(i)
    return groups


def activations(
    model: Model,
    pieces: Sequence[np.ndarray],
    sites: Sequence[str],
    *,
    batch_tokens: int,
    dtype: torch.dtype = torch.float32,
    keep_special: bool = False,
) -> dict[str, Shaped[Tensor, "rows d_in"]]:
    """Rows of some pieces of token ids at each site, in the order of the pieces, then of positions, on the CPU.

    BOS is left out unless `keep_special`. One pass of about `batch_tokens` tokens at a time ends after the deepest
    site. What stands in a row depends on the pieces that are given together, in its last bits: how they are padded and
    grouped does.
    """
    ends = np.cumsum([_count(piece, model.bos_id, keep_special) for piece in pieces])
    out: dict[str, Tensor] = {}
    with torch.no_grad():
        for group in group_by_length([len(piece) for piece in pieces], batch_tokens):
            tokens = _padded(model, [pieces[i] for i in group])
            _, cache = model.run_with_cache(tokens, sites=sites, stop=True)
            keep = tokens.mask if keep_special else ~tokens.special
            # rows go to their piece's own place: their order does not depend on the grouping
            target = torch.from_numpy(np.concatenate([np.arange(ends[i - 1] if i else 0, ends[i]) for i in group]))
            for site in sites:
                rows = round_rows(cache[site][keep].flatten(1), dtype).cpu()
                if site not in out:
                    out[site] = torch.empty(int(ends[-1]), rows.shape[1], dtype=dtype)
                out[site][target] = rows
    return out


def row_widths(model: Model, sites: Sequence[str]) -> dict[str, int]:
    """Length of a row at each site, found by running tokens; SiteError where there is no row at each position."""
    token = model.bos_id if model.bos_id is not None else 0
    found: dict[str, int] = {}
    for length in (1, 2):
        _, cache = model.run_with_cache([[token] * length] * 3, sites=sites, stop=True)
        for site in sites:
            here = cache[site]
            width = here[0, 0].numel() if here.shape[:2] == (3, length) else -length
            if found.setdefault(site, width) != width or width < 0:
                raise SiteError(f"{site} has no row of one length for each position. Choose another site.")
    return found


def _count(piece: np.ndarray, bos: int | None, keep_special: bool) -> int:
    return len(piece) if bos is None or keep_special else int((piece != bos).sum())


def _padded(model: Model, pieces: list[np.ndarray]) -> Tokens:
    # what Model.encode gives, without the strings, which take longer than the pass of a small model
    ids = torch.full((len(pieces), max(map(len, pieces))), model.pad_id, dtype=torch.long)
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for row, piece in enumerate(pieces):
        ids[row, : len(piece)] = torch.from_numpy(piece.astype(np.int64))
        mask[row, : len(piece)] = True
    special = ~mask if model.bos_id is None else ~mask | (ids == model.bos_id)
    return Tokens(ids.to(model.device), mask.to(model.device), special.to(model.device), [])
