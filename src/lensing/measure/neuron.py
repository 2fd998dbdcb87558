"""One neuron beside a latent: where it is strong by either sign, and how many concepts that takes to explain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lensing.measure.contexts import Context, Read, strongest
from lensing.measure.cover import Cover, concepts_needed, top_rows
from lensing.measure.reading import Reading
from lensing.model.run import Model
from lensing.model.tokens import Tokens

CONTEXTS = 4  # of each sign
RANDOM = 5  # other neurons, and directions, drawn at random from the same site


@dataclass(frozen=True)
class Neuron:
    """One neuron: its activation at the last token, contexts of both signs, and how many concepts explain its top 1%.

    `covers` has one by each sign, and one of the followed latent; `others` are those of neurons drawn at random,
    `random` those of random directions, of the same site and by their positive side.
    """

    site: str
    index: int
    value: float
    top: tuple[Context, ...]
    bottom: tuple[Context, ...]
    covers: dict[str, Cover]
    others: tuple[Cover, ...]
    random: tuple[Cover, ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """The neuron that is strongest at the last token, and what is read of its site: it, others, directions."""

    site: str
    index: int
    value: float
    directions: Float[Tensor, "d_mlp columns"]

    @property
    def read(self) -> Read:
        """What `read_columns` is to keep of the neuron's site."""
        return self.site, lambda rows: rows.float() @ self.directions

    def shown(self, model: Model, read: Reading, columns: Tensor, latent: Tensor) -> Neuron:
        """Find the contexts and covers, from the columns of `read` and those of the followed latent."""
        text, own = read.text, columns[:, 0]
        of = {"positive": own, "negative": -own, "latent": latent}
        covers = {n: concepts_needed(top_rows(c[text.counted]), read.labels) for n, c in of.items()}
        beside = [concepts_needed(top_rows(c[text.counted]), read.labels) for c in columns[:, 1:].T]
        others, random = beside[:-RANDOM], beside[-RANDOM:]
        top, bottom = (strongest(model, text, own, CONTEXTS, sign=sign) for sign in (1, -1))
        return Neuron(self.site, self.index, self.value, top, bottom, covers, tuple(others), tuple(random))


def choose_neuron(model: Model, site: str, tokens: Tokens, seed: int) -> Choice | None:
    """Choose among the neurons of the dictionary's layer (the nearest, for a site without); None if not given."""
    found = model.resolve(site)
    layer = found.layer if found.layer is not None else 0 if found.kind == "embed" else model.n_layers - 1
    name = f"mlp_post.{layer}"
    if name not in model.sites():
        return None
    _, cache = model.run_with_cache(tokens, sites=[name], stop=True)
    last = cache[name][0, -1].float()
    index = int(last.abs().argmax())
    draw = torch.Generator().manual_seed(seed)
    others = [i for i in torch.randperm(len(last), generator=draw).tolist() if i != index][:RANDOM]
    one = torch.zeros(len(last), 1 + len(others))
    one[[index, *others], range(1 + len(others))] = 1.0
    directions = torch.cat([one, torch.randn(len(last), RANDOM, generator=draw)], 1).to(last)
    return Choice(name, index, float(last[index]), directions)
