"""Put a dictionary's output in the place of what it read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.base import Dictionary
from lensing.dictionary.codes import Codes
from lensing.dictionary.load import refuse_other_wiring
from lensing.errors import DictionaryError
from lensing.model.edit import At, Edit, EditContext, where


class Splice(Edit):
    """An edit that writes x_hat over x at the dictionary's site, at positions that are not special.

    `change` may alter the codes first. With `keep_error`, what is written is h + (x_hat' - x_hat), so that codes that
    stay as they were leave h exactly as it was.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        *,
        site: str | None = None,
        keep_error: bool = False,
        change: Callable[[Codes], Codes] | None = None,
        at: At = "all",
        include_special: bool = False,
    ) -> None:
        name = site or dictionary.site
        if name is None:
            raise DictionaryError(f"{dictionary} names no site. Give the site to splice at.")
        refuse_other_wiring(dictionary, "spliced")
        self.site, self.dictionary, self.keep_error, self.change = name, dictionary, keep_error, change
        self.at, self.include_special = at, include_special

    def apply(self, h: Float[Tensor, "batch pos ..."], at: EditContext) -> Float[Tensor, "batch pos ..."]:
        """The spliced value of the site."""
        chosen = where(at, self.at, self.include_special)
        x = h[chosen].flatten(1)
        d = self.dictionary
        codes = d.encode(x)
        changed = self.change(codes) if self.change is not None else codes
        if self.keep_error:
            written = x + (d.decode(changed) - d.decode(codes)).to(x.dtype) if changed is not codes else x
        else:
            written = d.decode(changed).to(x.dtype)
        out = h.clone()
        out[chosen] = written.view(-1, *h.shape[2:])
        return out


def splice(
    dictionary: Dictionary,
    *,
    site: str | None = None,
    keep_error: bool = False,
    change: Callable[[Codes], Codes] | None = None,
    at: At = "all",
) -> Splice:
    """The edit that runs the model on the dictionary's output: `with model.edit(ln.splice(sae)): ...`."""
    return Splice(dictionary, site=site, keep_error=keep_error, change=change, at=at)


def keep_only(latents: Tensor | list[int]) -> Callable[[Codes], Codes]:
    """A change of codes that silences every latent but these."""
    chosen = torch.as_tensor(latents, dtype=torch.int64)

    def change(codes: Codes) -> Codes:
        keep = torch.isin(codes.index.long(), chosen.to(codes.index.device))
        return codes.with_values(codes.value * keep)

    return change


def without(latents: Tensor | list[int]) -> Callable[[Codes], Codes]:
    """A change of codes that silences these latents."""
    chosen = torch.as_tensor(latents, dtype=torch.int64)

    def change(codes: Codes) -> Codes:
        keep = ~torch.isin(codes.index.long(), chosen.to(codes.index.device))
        return codes.with_values(codes.value * keep)

    return change
