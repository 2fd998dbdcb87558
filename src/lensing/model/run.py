"""The model as a specimen: run it, capture any site, edit any site; the Hugging Face model stays untouched."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lensing.errors import ModelError, SiteError, UnknownNameError, UsageError
from lensing.model.adapter import Adapter, Place
from lensing.model.edit import Edit, EditContext
from lensing.model.sites import Site, canonical, expand, parse
from lensing.model.taps import Stop, Taps
from lensing.model.tokens import Coder, Prompt, Tokens

if TYPE_CHECKING:
    from lensing.model.generate import Generation

SiteName = str | tuple[str, int] | Site
Sites = SiteName | Iterable[SiteName]


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


@final
class Model:
    """A Hugging Face causal language model in evaluation mode, with names for the places inside it."""

    def __init__(self, hf: Any, tokenizer: Any = None, *, name: str = "") -> None:
        self.hf, self.tokenizer = hf.eval(), tokenizer
        self.name = name or str(getattr(hf.config, "_name_or_path", "")) or type(hf).__name__
        self.adapter = Adapter(hf)
        config = self.adapter.config
        self.n_layers, self.d_model = len(self.adapter.blocks), self.adapter.d_model
        self.n_heads, self.d_head, self.d_mlp = self.adapter.n_heads, self.adapter.d_head, self.adapter.d_mlp
        self.d_vocab = self.adapter.d_vocab
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        # A tokenizer without BOS (Qwen) overrules a config that names one.
        bos = tokenizer.bos_token_id if tokenizer is not None else getattr(config, "bos_token_id", None)
        self.bos_id: int | None = bos
        pads = (getattr(tokenizer, "pad_token_id", None), getattr(config, "pad_token_id", None), *self.eos_ids, 0)
        self.pad_id: int = next(int(p) for p in pads if isinstance(p, int) and 0 <= p < self.d_vocab)
        self._coder = Coder(
            tokenizer, bos_id=bos, pad_id=self.pad_id, d_vocab=self.d_vocab, context=self.context
        )  # fmt: skip
        self._available: list[Site] | None = None
        self._known: dict[Any, tuple[Site, Place]] = {}
        self._expanded: dict[Any, list[Site]] = {}
        logging.getLogger("transformers.modeling_utils").addFilter(_not_about_padding)
        # Hooks sit on modules, which threads share: one forward at a time. Edits belong to the thread that made them.
        self._lock = threading.RLock()
        self._local = threading.local()
        self._busy = False
        self.adapter.verdicts()

    def __repr__(self) -> str:
        return (
            f"Model({self.name!r}, {type(self.hf).__name__}, layers={self.n_layers}, d_model={self.d_model}, "
            f"vocab={self.d_vocab})"
        )

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.adapter.head.weight.device  # type: ignore[return-value, union-attr]

    @property
    def dtype(self) -> torch.dtype:
        """The weights' number format."""
        return self.adapter.head.weight.dtype  # type: ignore[return-value, union-attr]

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end a text."""
        generation = getattr(self.hf, "generation_config", None)
        eos = getattr(generation, "eos_token_id", None)
        eos = getattr(self.adapter.config, "eos_token_id", None) if eos is None else eos
        return () if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)

    @property
    def W_U(self) -> Float[Tensor, "d_model vocab"]:
        """The unembedding, one column a token, as it stands after the final norm."""
        return self.adapter.head.weight.T  # type: ignore[union-attr, return-value]

    # tokens ---------------------------------------------------------------------------------------------------------

    def encode(self, prompt: Prompt | Sequence[Prompt] | Tokens, *, bos: bool | None = None) -> Tokens:
        """Return text, ids, or a list of either, as Tokens on the model's device; PromptError says what is wrong.

        BOS is put in front where the model has one and it is not there yet; `bos=False` leaves the prompt as given.
        """
        tokens = self._coder.encode(prompt, bos=bos)
        if tokens.ids.device == self.device:
            return tokens
        ids, mask, special = (t.to(self.device) for t in (tokens.ids, tokens.mask, tokens.special))
        return Tokens(ids, mask, special, tokens.strings)

    def tok_str(self, ids: int | Sequence[int] | Tensor) -> list[str]:
        """Return each token's own string, with the space that belongs to it."""
        return self._coder.strings([ids] if isinstance(ids, int) else ids)

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """Return ids as running text, without special tokens."""
        return self._coder.decode(ids.tolist() if isinstance(ids, Tensor) else list(ids))

    # sites ----------------------------------------------------------------------------------------------------------

    def sites(self) -> list[str]:
        """Return the names of every site that this model gives, in forward order."""
        return [s.name for s in self._sites()]

    def resolve(self, site: SiteName) -> Site:
        """Return the one site that a name means; UnknownNameError offers the nearest names."""
        return parse(self.adapter.resolve_alias(site), self.n_layers)

    def resolve_all(self, sites: Sites) -> list[Site]:
        """Return the sites that names and patterns mean, each once, in the order given."""
        found: dict[str, Site] = {}
        for site in _as_sites(sites):
            if site not in self._expanded:
                text = canonical(self.adapter.resolve_alias(site))
                known = self._sites() if any(c in text for c in "*?[{") else []
                self._expanded[site] = expand(text, known, self.n_layers)
            found.update({s.name: s for s in self._expanded[site]})
        return list(found.values())

    def width(self, site: SiteName) -> int:
        """Return the size of the last axis at a site; UsageError for a module, whose output can be anything."""
        kind = self._place(site)[0].kind
        if kind == "module":
            raise UsageError(f"The width of {site} is not known before a run. Capture it and look at its shape.")
        if kind.startswith("attn_") and kind[5:] in ("q", "k", "v", "z"):
            return self.d_head
        return {"mlp_pre": self.d_mlp, "mlp_post": self.d_mlp, "logits": self.d_vocab}.get(kind, self.d_model)

    def _sites(self) -> list[Site]:
        if self._available is None:
            self._available = list(self.adapter.available())
        return self._available

    def _place(self, site: SiteName) -> tuple[Site, Place]:
        if site not in self._known:
            resolved = self.resolve(site)
            self._known[site] = (resolved, self.adapter.place(resolved))
        return self._known[site]

    @property
    def edited(self) -> bool:
        """Whether edits of this thread are in force."""
        return bool(self._placed_edits())

    # runs -----------------------------------------------------------------------------------------------------------

    def run_with_cache(
        self,
        prompt: Prompt | Sequence[Prompt] | Tokens,
        *,
        sites: Sites = (),
        stop: bool | int | str = "auto",
        grad: bool | Literal["edits"] = False,
    ) -> tuple[Float[Tensor, "batch pos vocab"] | None, Cache]:
        """Run the model and return its logits and what was captured at `sites` (names, patterns), after any edit there.

        `stop=True` ends the pass after the deepest captured site and `stop=2` after block 2: the logits are then None.
        `grad=True` keeps the graph from the embedding on; weights loaded by `load_model` take no gradient. With
        `grad="edits"` it begins where an edit brings in what asks for gradients, which spares what lies before.
        """
        tokens = self.encode(prompt)
        wanted = [self._place(s) for s in self.resolve_all(sites)]
        last = None
        if stop is True and not wanted:
            raise UsageError("stop=True needs sites to stop after. Give sites=, or leave stop out.")
        if not isinstance(stop, bool) and isinstance(stop, int):
            last = self._place(("resid_post", stop))[1]
        elif stop not in ("auto", True, False):
            raise UsageError(f"There is no stop={stop!r}. Give 'auto', True or a layer number.")
        taps = Taps(
            wanted, self._placed_edits(), stop_early=stop is True, stop_after=last, detach=not grad,
            grad_root=self.adapter.embedding if grad is True else None,
        )  # fmt: skip
        positions = torch.arange(tokens.ids.shape[1], device=tokens.ids.device)
        taps.at = EditContext(positions, tokens.ids.shape[1], tokens.lengths, tokens.special)
        logits = None
        with self._alone(), torch.set_grad_enabled(bool(grad)), taps, contextlib.suppress(Stop):
            # No attention mask: padding stands on the right, where no real token looks.
            logits = self.hf(input_ids=tokens.ids, use_cache=False).logits
        missing = [site.name for site, _ in wanted if site.name not in taps.values]
        if missing and last is None:
            raise SiteError(f"{missing[0]} was not reached in this forward pass. Choose another site.")
        if missing:
            raise UsageError(f"{missing[0]} lies after the stop at layer {stop}. Stop later, or leave it out.")
        return logits, Cache({s.name: taps.values[s.name] for s, _ in wanted}, tokens, self)

    def logits(
        self, prompt: Prompt | Sequence[Prompt] | Tokens, *, grad: bool | Literal["edits"] = False
    ) -> Float[Tensor, "batch pos vocab"]:
        """Return the logits at every position, under the edits in force."""
        logits, _ = self.run_with_cache(prompt, grad=grad)
        assert logits is not None
        return logits

    def unembed(self, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """Return the logits of a residual stream: final norm, unembedding and cap, as the model does it at its end."""
        if not self.adapter.head_exact():
            raise ModelError(
                f"{type(self.hf).__name__} does something between its last block and its logits that is not known "
                "here. Read the site 'logits' instead."
            )
        with torch.set_grad_enabled(resid.requires_grad and torch.is_grad_enabled()):
            return self.adapter.unembed(resid)

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt] | Tokens,
        *,
        max_new_tokens: int = 32,
        temperature: float = 0.0,
        seed: int | Sequence[int] = 0,
        sites: Sites = (),
        stop_ids: Iterable[int] | None = None,
        cache: bool = True,
    ) -> Generation:
        """Continue a prompt, or a batch of prompts of one length, under the edits in force.

        Temperature 0 takes the likeliest token. A row's draws depend only on its seed: row i of an integer seed has a
        stream of its own, and a list gives each row its seed. `stop_ids=()` never stops; `cache=False` recomputes all.
        """
        from lensing.model.generate import generate

        return generate(
            self, prompt, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, sites=sites,
            stop_ids=stop_ids, cache=cache,
        )  # fmt: skip

    # edits ----------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def edit(self, *edits: Edit) -> Iterator[Model]:
        """Put edits in force, in the order given and after those already there; they come off whatever happens."""
        for edit in edits:
            if not isinstance(edit, Edit):
                raise UsageError(f"A {type(edit).__name__} is not an edit. Give what ln.steer or ln.Edit makes.")
        placed = [(*self._place(s), edit) for edit in edits for s in self.resolve_all([edit.site])]
        before = self._placed_edits()
        self._local.edits = [*before, *placed]
        try:
            yield self
        finally:
            self._local.edits = before

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the model for one forward pass, or one generation."""
        with self._lock:
            if self._busy:
                raise UsageError("The model cannot be run from inside one of its own edits. Run it before.")
            self._busy = True
            try:
                yield
            finally:
                self._busy = False

    def _placed_edits(self) -> list[tuple[Site, Place, Edit]]:
        return getattr(self._local, "edits", [])


def _not_about_padding(record: logging.LogRecord) -> bool:
    """Drop the warning that padding needs a mask: ours stands on the right, where no real token looks."""
    return "your input_ids may be padded" not in str(record.msg)


def _as_sites(sites: Sites) -> list[SiteName]:
    """One name, one (kind, layer) pair, or many of either."""
    if isinstance(sites, (str, Site)):
        return [sites]
    if isinstance(sites, tuple) and len(sites) == 2 and isinstance(sites[0], str) and isinstance(sites[1], int):
        return [sites]  # type: ignore[list-item]
    return list(sites)  # type: ignore[arg-type]
