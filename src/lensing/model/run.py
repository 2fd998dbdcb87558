"""The model as a specimen: run it, capture any site, edit any site; the Hugging Face model stays untouched."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lensing.errors import ModelError, SiteError, UsageError
from lensing.memory import refuse_too_large
from lensing.model.adapter import Adapter
from lensing.model.attention import eager
from lensing.model.cache import Cache
from lensing.model.chat import Chat, encode_chat
from lensing.model.edit import Edit, EditContext, Replace
from lensing.model.matrices import device_of, matrix
from lensing.model.parts import Keep, Positions, keeping, masking, without_blocks
from lensing.model.places import Place
from lensing.model.sites import Site, SiteName, canonical, expand, parse
from lensing.model.taps import Stop, Taps
from lensing.model.tokens import Coder, Prompt, Tokens

if TYPE_CHECKING:
    from lensing.model.generate import Generation

Sites = SiteName | Iterable[SiteName]


@dataclass(frozen=True)
class _Plan:
    """Sites to capture, with their places and names, and how many numbers a token and a pair of tokens have there."""

    wanted: list[tuple[Site, Place]]
    names: list[str]
    each: int
    each_pair: int
    taps: Taps
    """What reads them all in a pass that changes nothing, made once."""


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
        self._plans: dict[Any, _Plan] = {}
        logging.getLogger("transformers.modeling_utils").addFilter(_not_about_padding)
        # Hooks sit on modules, which threads share: one forward at a time. Edits belong to the thread that made them.
        self._lock = threading.RLock()
        self._local = threading.local()
        self._busy = False
        self.adapter.findings  # noqa: B018  asked for now, so that damaged weights are refused here

    def __repr__(self) -> str:
        return (
            f"Model({self.name!r}, {type(self.hf).__name__}, layers={self.n_layers}, d_model={self.d_model}, "
            f"vocab={self.d_vocab})"
        )

    @property
    def device(self) -> torch.device:
        """Where prompts go in, and, of a model on several devices, where captures are brought."""
        return device_of(self.adapter.embedding)

    @property
    def dtype(self) -> torch.dtype:
        """The weights' number format."""
        return self.adapter.head.weight.dtype  # type: ignore[return-value, union-attr]

    @property
    def spread(self) -> bool:
        """Whether its blocks compute on several devices (`device_map`)."""
        return len({str(place) for place in (getattr(self.hf, "hf_device_map", None) or {}).values()}) > 1

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
        return matrix(self.adapter.head, self.device)

    # tokens ---------------------------------------------------------------------------------------------------------

    def encode(
        self, prompt: Prompt | Sequence[Prompt] | Tokens, *, bos: bool | None = None,
        padding: Literal["left", "right"] = "right",
    ) -> Tokens:  # fmt: skip
        """Return text, ids, or a list of either, as Tokens on the model's device; PromptError says what is wrong.

        BOS is put in front where the model has one and it is not there yet; `bos=False` leaves the prompt as given.
        """
        return self._coder.encode(prompt, bos=bos, padding=padding).to(self.device)

    def encode_chat(
        self, messages: Chat | Sequence[Chat], *, reply: bool | None = None,
        padding: Literal["left", "right"] = "right", **settings: Any,
    ) -> Tokens:  # fmt: skip
        """Return a chat, or several, as Tokens with roles, in the words of the tokenizer's own template.

        A chat is a list of `{"role": "user", "content": "..."}`. `reply` opens the assistant's turn at the end (None:
        unless the last message is the assistant's). `settings` go to the template (`enable_thinking=False`). To
        generate for chats of different lengths, give `padding="left"`. PromptError says what cannot be read.
        """
        return encode_chat(self._coder, messages, reply=reply, padding=padding, settings=settings).to(self.device)

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
        """Return the size of the last axis at a site; UsageError where that is not known before a run."""
        kind = self._place(site)[0].kind
        if kind in ("module", "attn_scores", "attn_pattern") or self.resolve(site).part == "acts":
            raise UsageError(f"The width of {site} is not known before a run. Capture it and look at its shape.")
        if kind.startswith("norm_scale"):
            return 1
        if kind in ("attn_q", "attn_k", "attn_v", "attn_z"):
            return self.d_head
        return {"mlp_pre": self.d_mlp, "mlp_up": self.d_mlp, "mlp_post": self.d_mlp, "logits": self.d_vocab}.get(
            kind, self.d_model
        )

    def shape(self, site: SiteName, batch: int, pos: int) -> tuple[int, ...]:
        """Return the shape of a capture at a site for `batch` rows of `pos` tokens; as `width` for what it refuses."""
        kind = self._place(site)[0].kind
        if kind in ("attn_scores", "attn_pattern"):
            return batch, self.n_heads, pos, pos
        heads = {"attn_q": self.n_heads, "attn_z": self.n_heads, "attn_k": 0, "attn_v": 0}.get(kind)
        if heads is not None:
            return batch, pos, heads or self.adapter.n_kv_heads, self.d_head
        return batch, pos, self.width(site)

    def _sites(self) -> list[Site]:
        if self._available is None:
            self._available = list(self.adapter.available())
        return self._available

    def _place(self, site: SiteName) -> tuple[Site, Place]:
        if site not in self._known:
            resolved = self.resolve(site)
            self._known[site] = (resolved, self.adapter.place(resolved.whole))
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
        start: tuple[SiteName, Float[Tensor, "batch pos d_model"]] | None = None,
        positions: Positions = None,
        device: torch.device | str | None = None,
        grad: bool | Literal["edits"] = False,
    ) -> tuple[Float[Tensor, "batch pos vocab"] | None, Cache]:
        """Run the model and return its logits and what was captured at `sites` (names, patterns), after any edit there.

        `stop=True` ends the pass after the deepest captured site and `stop=2` after block 2: the logits are then None.
        `start=("resid_pre.5", h)` begins at block 5 with `h`, and the blocks before it are not run. Of captures only
        `positions` (a number, some, or a slice; of padded columns) are kept, on `device` if given. `grad=True` keeps
        the graph from the embedding on, through every capture but norm scales; weights loaded by `load_model` take no
        gradient. With `grad="edits"` it begins where an edit or `start` brings in what asks for gradients, which spares
        what lies before.
        """
        tokens = self.encode(prompt)
        plan = self._plan(sites)
        wanted = plan.wanted
        last = None
        if stop is True and not wanted:
            raise UsageError("stop=True needs sites to stop after. Give sites=, or leave stop out.")
        if not isinstance(stop, bool) and isinstance(stop, int):
            last = self._place(("resid_post", stop))[1]
        elif stop not in ("auto", True, False):
            raise UsageError(f"There is no stop={stop!r}. Give 'auto', True or a layer number.")
        batch, length = tokens.ids.shape
        first, begin = self._beginning(start, batch, length)
        # of a model on several devices captures come together, but for gradients, which a copy has no part in
        keep = keeping(positions, length, self.device if device is None and self.spread and not grad else device)
        self._refuse_if_large(plan, batch, length, keep)
        edits = [*begin, *self._placed_edits()]
        if edits or grad or not keep.whole or stop is True or last is not None:
            taps = Taps(
                self.adapter, wanted, edits, stop_early=stop is True, stop_after=last, detach=not grad,
                from_embedding=grad is True, keep=keep,
            )  # fmt: skip
        else:
            taps = plan.taps
        logits = None
        passed = without_blocks(self.adapter, first)
        with self.forward(taps), torch.set_grad_enabled(bool(grad)), passed:
            taps.at = EditContext.whole(tokens)
            with taps, contextlib.suppress(Stop):
                logits = self.hf(input_ids=tokens.ids, use_cache=False, **masking(self.hf, tokens)).logits
            values, taps.values = taps.values, {}
        if len(values) < len(wanted):
            missing = next(site for site, _ in wanted if site.name not in values)
            raise self._missing(missing, first, stop if last is not None else None)
        return logits, Cache({name: values[name] for name in plan.names}, tokens, self)

    def _beginning(
        self, start: tuple[SiteName, Tensor] | None, batch: int, length: int
    ) -> tuple[int, list[tuple[Site, Place, Edit]]]:
        """The first block that runs, and the edit that brings in what it reads."""
        if start is None:
            return 0, []
        site, place = self._place(start[0])
        if site.kind == "resid_post" and site.layer is not None and site.layer + 1 < self.n_layers:
            site, place = self._place(("resid_pre", site.layer + 1))
        if site.kind != "resid_pre" or site.layer is None or site.part is not None:
            raise UsageError(f"A run cannot start at {start[0]}. Give resid_pre of the first block that is to run.")
        if list(start[1].shape) != [batch, length, self.d_model]:
            raise UsageError(
                f"A tensor of shape {list(start[1].shape)} cannot start this run. Give "
                f"{[batch, length, self.d_model]}, a row for each token."
            )
        return site.layer, [(site, place, Replace(site, start[1]))]

    def _plan(self, sites: Sites) -> _Plan:
        """What names and patterns mean: found once for each list of them."""
        key = tuple(_as_sites(sites))
        if key not in self._plans:
            wanted = [self._place(s) for s in self.resolve_all(key)]
            sized = [s for s, _ in wanted if s.kind != "module" and s.part != "acts"]
            self._plans[key] = _Plan(
                wanted, [site.name for site, _ in wanted],
                sum(math.prod(self.shape(site, 1, 1)) for site in sized if not site.by_query),
                sum(math.prod(self.shape(site, 1, 1)) for site in sized if site.by_query),
                Taps(self.adapter, wanted, late=True),
            )  # fmt: skip
        return self._plans[key]

    def _refuse_if_large(self, plan: _Plan, batch: int, length: int, keep: Keep) -> None:
        """Refuse captures that would not fit beside the model, before anything runs."""
        index = slice(None) if keep.index is None else keep.index
        kept = len(range(length)[index]) if isinstance(index, slice) else len(index)
        numbers = batch * kept * (plan.each + plan.each_pair * length)
        device = keep.device or self.device
        room = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
        refuse_too_large(
            f"What is captured at {len(plan.wanted)} sites of {batch} x {length} tokens",
            numbers * torch.finfo(self.dtype).bits // 8,
            "Capture fewer sites or positions=, or run fewer rows at a time.", room=room,
        )  # fmt: skip

    def _missing(self, site: Site, first: int, stop: Any) -> UsageError:
        if site.part is not None:
            return SiteError(
                f"{site} was not reached: no dictionary is spliced in at {site.whole}. Run inside "
                "model.edit(ln.splice(dictionary))."
            )
        if first and site.layer is not None and site.layer < first:
            return UsageError(f"{site} lies before the start at block {first}. Start earlier, or leave it out.")
        if stop is not None:
            return UsageError(f"{site} lies after the stop at layer {stop}. Stop later, or leave it out.")
        return SiteError(f"{site} was not reached in this forward pass. Choose another site.")

    def logits(
        self, prompt: Prompt | Sequence[Prompt] | Tokens, *, grad: bool | Literal["edits"] = False
    ) -> Float[Tensor, "batch pos vocab"]:
        """Return the logits at every position, under the edits in force."""
        logits, _ = self.run_with_cache(prompt, grad=grad)
        assert logits is not None
        return logits

    def unembed(self, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """Return the logits of a residual stream: final norm, unembedding and cap, as the model does it at its end."""
        if not self.adapter.head_exact:
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
        each: Callable[[Int[Tensor, "batch so_far"]], bool | None] | None = None,
    ) -> Generation:
        """Continue a prompt, or a batch of prompts (shorter ones are padded on the left), under the edits in force.

        Temperature 0 takes the likeliest token. A row's draws depend only on its seed: row i of an integer seed has a
        stream of its own, and a list gives each row its seed. `stop_ids=()` never stops; `cache=False` recomputes all.
        `each` is called with the new ids so far after every token, and ends the generation where it returns True.
        """
        from lensing.model.generate import generate

        return generate(
            self, prompt, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, sites=sites,
            stop_ids=stop_ids, cache=cache, each=each,
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
    def forward(self, taps: Taps) -> Iterator[None]:
        """Hold the model for one forward pass or one generation, its attention written out where patterns are asked."""
        with self._alone(), eager(self.adapter.config) if taps.watch_softmax else contextlib.nullcontext():
            yield

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
