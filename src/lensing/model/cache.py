"""What one run captured, by the names of sites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, final

from jaxtyping import Bool, Float, Int
from torch import Tensor

from lensing.errors import UnknownNameError, UsageError
from lensing.model.sites import SiteName
from lensing.model.tokens import Tokens

if TYPE_CHECKING:
    from lensing.model.run import Model


@final
class Cache(Mapping[str, Tensor]):
    """What was captured, by site: `cache["mlp_out.2"]`, `cache["resid_post", 2]`, or a TransformerLens name.

    Tensors are `[batch, pos, ...]`; `special` is True on BOS and padding, which belong in no metric.
    """

    def __init__(self, values: dict[str, Tensor], tokens: Tokens, model: Model) -> None:
        self._values, self._tokens, self._model = values, tokens, model

    def __getitem__(self, site: SiteName) -> Float[Tensor, "batch pos ..."]:
        name = self._model.resolve(site).name
        if name not in self._values:
            hint = f"Captured were: {', '.join(self._values) or 'none'}; add it to sites=."
            raise UnknownNameError("captured site", name, self._values, hint)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, site: object) -> bool:
        try:
            return self._model.resolve(site).name in self._values  # type: ignore[arg-type]
        except (UsageError, TypeError):
            return False

    def get(self, site: Any, default: Any = None) -> Any:
        """Return the tensor, or `default` where the site was not captured."""
        try:
            return self[site]
        except UsageError:
            return default

    def __repr__(self) -> str:
        return f"Cache({', '.join(f'{n}{list(v.shape)}' for n, v in self._values.items())})"

    @property
    def sites(self) -> list[str]:
        """Names of the captured sites."""
        return list(self._values)

    @property
    def ids(self) -> Int[Tensor, "batch pos"]:
        """Token ids that went through the model."""
        return self._tokens.ids

    @property
    def mask(self) -> Bool[Tensor, "batch pos"]:
        """True on real tokens, False on padding."""
        return self._tokens.mask

    @property
    def special(self) -> Bool[Tensor, "batch pos"]:
        """True on BOS and padding."""
        return self._tokens.special

    @property
    def tokens(self) -> list[list[str]]:
        """Each row's tokens as strings to show, padding left out."""
        return self._tokens.strings

    @property
    def roles(self) -> list[list[str]] | None:
        """Of a chat, each token's role, as `tokens`; what was generated is the assistant's. None of other texts."""
        return self._tokens.roles
