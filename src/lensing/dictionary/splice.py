"""Put a dictionary's output in the place of what it read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.dictionary.base import Dictionary
from lensing.dictionary.codes import Codes
from lensing.dictionary.load import refuse_other_wiring
from lensing.errors import DictionaryError, UsageError
from lensing.model.edit import At, Edit, EditContext, where


class Splice(Edit):
    """An edit that writes x_hat over x at the dictionary's site, at positions that are not special.

    `change` may alter the codes first. With `keep_error`, what is written is h + (x_hat' - x_hat), so that codes that
    stay as they were leave h exactly as it was. Inside it lie the sites `<site>.sae.acts`, `.sae.recons` and
    `.sae.error`, to be captured and edited as any other; the error can be edited with `keep_error`.
    """

    has_parts = True

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
        if at.parts is None:
            changed = self.change(codes) if self.change is not None else codes
            if not self.keep_error:
                written = d.decode(changed).to(x.dtype)
            else:
                written = x + (d.decode(changed) - d.decode(codes)).to(x.dtype) if changed is not codes else x
        else:
            written = self._open(x, codes, chosen, at)
        out = h.clone()
        out[chosen] = written.view(-1, *h.shape[2:])
        return out

    def _open(self, x: Tensor, codes: Codes, chosen: Tensor, at: EditContext) -> Tensor:
        """What is written, with activations, output and error offered on the way to whoever captures or edits them.

        With `keep_error` each is a node of its own: gradients reach it through what is written, and what lies before
        the site through x alone, so that several dictionaries at once give every node its own effect.
        """
        d, asks = self.dictionary, torch.is_grad_enabled()

        def node(value: Tensor) -> Tensor:
            return value.detach().requires_grad_() if self.keep_error and asks else value

        def offered(part: str, value: Tensor) -> Tensor:
            whole = value.new_zeros(*chosen.shape, value.shape[-1]).index_put((chosen,), value)
            new = at.offer(part, lambda: whole)
            return value if new is None else new[chosen]

        changed = self.change(codes) if self.change is not None else codes
        before = d.decode(codes).detach() if self.keep_error else None
        changed = changed.with_values(node(changed.value))
        acts = at.parts("acts") if at.parts is not None else None
        if acts is not None:
            dense = changed.dense()
            whole = dense.new_zeros(*chosen.shape, d.d_sae).index_put((chosen,), dense)
            new = acts(whole)
            # unchanged, the sum over active latents keeps its order, and with it its last bit
            row = torch.repeat_interleave(torch.arange(changed.rows, device=dense.device), changed.counts())
            same = new is whole
            changed = (
                changed.with_values(new[chosen][row, changed.index.long()]) if same else Codes.from_dense(new[chosen])
            )
        recons = offered("recons", d.decode(changed).to(x.dtype))
        if before is None:
            with torch.no_grad():
                error = x - recons
            if (new := offered("error", error)) is not error and not torch.equal(new, error):
                raise UsageError(
                    "The error is not written here, so that editing it does nothing. Splice with keep_error=True."
                )
            return recons
        start = node(x - before.to(x.dtype))
        error = offered("error", start)
        return x + (recons - before.to(x.dtype)) + (error - start.detach())


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
