"""Logit prisms: a direction that reads the residual stream, split over what wrote there and pulled back through it.

Everything is exact with attention patterns, norm scales and gates held as they were in one run: a prism at the end of
the stream reads a logit; pulled back through a head it reads the stream at the token that the head looked at; and so
on. What each step leaves behind (biases) is kept, so that sums close. Arithmetic is in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lensing.dictionary.base import Dictionary
from lensing.errors import SiteError, UsageError
from lensing.lens.attribution import Attribution, By, Part
from lensing.model.matrices import matrix, weight_of
from lensing.model.norms import Norm
from lensing.model.run import Model
from lensing.model.tokens import Prompt, Tokens

NEEDED = ("resid_post", "attn_out", "mlp_out")
FINE = ("attn_z", "attn_v", "attn_pattern", "mlp_pre", "mlp_post", "norm_scale_attn", "norm_scale_attn_post",
        "norm_scale_mlp", "norm_scale_mlp_post")  # fmt: skip


@final
class Trace:
    """One run of one text with everything captured that its prisms need."""

    def __init__(self, model: Model, prompt: Prompt | Tokens, *, row: int = 0) -> None:
        tokens = model.encode(prompt)
        here = {site.split(".")[0] for site in model.sites()}
        if missing := [s for s in ("attn_out", "mlp_out") if s not in here]:
            model.adapter.place(model.resolve((missing[0], 0)))  # raises, and says why
        sites = [f"{kind}.*" for kind in (*NEEDED, *FINE) if kind in here]
        final = ["norm_scale_final"] if "norm_scale_final" in here else []
        logits, cache = model.run_with_cache(tokens, sites=["embed", *sites, *final])
        assert logits is not None
        self.model, self.cache, self.row, self.tokens = model, cache, row, tokens
        self.logits = logits[row]
        self.length = len(cache.tokens[row])
        self.offset = int(tokens.offsets[row])

    def stream(self, layer: int, position: int) -> Float[Tensor, " d_model"]:
        """What enters a block at a token (the number of blocks: what leaves the last), in float64."""
        site = "embed" if layer == 0 else f"resid_post.{layer - 1}"
        return self.at(site, position)

    def at(self, site: str, position: int) -> Tensor:
        """A captured value at one token, in float64."""
        return self.cache[site][self.row, self.offset + position].double()

    def position(self, position: int) -> int:
        """A position counted from 0; UsageError where there is none."""
        if not -self.length <= position < self.length:
            raise UsageError(f"There is no position {position} in {self.length} tokens. Give 0 to {self.length - 1}.")
        return position % self.length

    def scale(self, kind: str, layer: int | None, position: int) -> float:
        """What a norm divided by at one token."""
        site = kind if layer is None else f"{kind}.{layer}"
        return float(self.at(site, position)[0])


@final
@dataclass(frozen=True, eq=False)
class Prism:
    """A direction that reads the stream entering block `layer` at one token; `constant` is what biases add on the way.

    <stream, vector> + constant is `whole` as the model computed it, up to rounding.
    """

    trace: Trace
    vector: Float[Tensor, " d_model"]
    layer: int
    position: int
    constant: float
    whole: float
    what: str
    capped: float | None = None
    middle: bool = False
    """Whether it reads the stream after the attention of block `layer`, as a neuron does."""

    @property
    def value(self) -> float:
        """What the prism reads, in float64."""
        stream = self.trace.stream(self.layer, self.position)
        if self.middle:
            stream = stream + self.trace.at(f"attn_out.{self.layer}", self.position)
        return float(stream @ self.vector) + self.constant

    def split(self, by: By = "component", dictionaries: Sequence[Dictionary] = ()) -> Attribution:
        """Split what is read over what wrote it: components, heads, heads by source token, neurons, or latents.

        Latents need dictionaries of contributions (`attn_out.L`, `mlp_out.L`), or one of a stream (`resid_post.L`),
        which then stands for everything up to there.
        """
        parts = [Part("bias", self.constant)] if self.constant else []
        first = 0
        at = {str(d.site): d for d in dictionaries} if by == "latent" else {}
        if by == "latent":
            first = self._check(at)
            if first:
                site = f"resid_post.{first - 1}"
                parts += self._latents(at[site], site, first - 1)
        if not first:
            parts.append(Part("embed", float(self.trace.stream(0, self.position) @ self.vector)))
        for layer in range(first, self.layer + self.middle):
            for part in ("attn", "mlp") if layer < self.layer else ("attn",):
                site = f"{part}_out.{layer}"
                if site in at:
                    parts += self._latents(at[site], site, layer)
                elif part == "attn" and by in ("head", "source"):
                    parts += self._heads(layer, by == "source")
                elif part == "mlp" and by == "neuron":
                    parts += self._neurons(layer)
                else:
                    value = float(self.trace.at(site, self.position) @ self.vector)
                    parts.append(Part(part, value, layer))
        scale = 1.0
        if "norm_scale_final" in self.trace.cache:
            scale = self.trace.scale("norm_scale_final", None, self.position)
        return Attribution(self.what, tuple(parts), self.whole, self.capped, by, scale)

    def through_head(self, layer: int, head: int, source: int) -> Prism:
        """Pull the direction back through one head to the stream that it read at one token.

        The new prism reads pattern[position, source] * (W_V W_O of the head) of the normed stream entering the block.
        """
        trace, model = self.trace, self.trace.model
        if not 0 <= layer < self.layer or not 0 <= head < model.n_heads:
            raise UsageError(
                f"There is no head {head} of layer {layer} before this prism. Give heads 0 to {model.n_heads - 1} of "
                f"layers 0 to {self.layer - 1}."
            )
        source = trace.position(source)
        vector, _ = self._behind("attn", layer)
        block, verdict = model.adapter.blocks[layer], model.adapter.verdict(layer)
        if not verdict.z_exact:
            raise SiteError(f"Layer {layer} of {model.name} does not sum patterns times values. Stop at its heads.")
        w_o = self._w_o(layer)[head]
        weight = float(trace.cache["attn_pattern", layer][trace.row, head, trace.offset + self.position,
                                                          trace.offset + source])  # fmt: skip
        w_v, b_v = self._w_v(layer, head)
        pulled = weight * (w_v @ (w_o @ vector))
        constant = weight * float(b_v @ (w_o @ vector))
        norm = model.adapter.norm(block.attn_norm)
        if norm is not None:
            constant += float(norm.bias.double() @ pulled)
            pulled = norm.pull(pulled) / trace.scale("norm_scale_attn", layer, source)
        v = trace.cache["attn_v", layer][trace.row, trace.offset + source]
        whole = weight * float(v[head // (model.n_heads // v.shape[0])].double() @ (w_o @ vector))
        token = trace.cache.tokens[trace.row][source]
        return replace(
            self, vector=pulled, layer=layer, position=source, constant=constant, whole=whole, capped=None,
            middle=False, what=f"{self.what}, through L{layer}H{head} <- {token} ({source})",
        )  # fmt: skip

    def through_neuron(self, layer: int, neuron: int) -> Prism:
        """Pull the direction back through one neuron's input, its gate held: act(u)/u, or the activated gate.

        Of a gated MLP the neuron is the gate's activation, held, times its linear half. An ungated one is taken as
        g u with g = act(u) / u of this run (act'(0) at u = 0): exact for its value, and a secant for its slope.
        """
        trace, model = self.trace, self.trace.model
        block, verdict = model.adapter.blocks[layer], model.adapter.verdict(layer)
        if f"mlp_pre.{layer}" not in trace.cache or "down" not in block.linears:
            raise SiteError(f"Layer {layer} of {model.name} has no neurons that can be read (as with experts).")
        if not 0 <= layer < self.layer or not 0 <= neuron < model.d_mlp:
            raise UsageError(
                f"There is no neuron {neuron} of layer {layer} before this prism. Give 0 to {model.d_mlp - 1} of "
                f"layers 0 to {self.layer - 1}."
            )
        vector, _ = self._behind("mlp", layer)
        write = float(matrix(block.linears["down"], vector.device)[neuron].double() @ vector)
        before, after = (float(trace.at(f"mlp_{part}.{layer}", self.position)[neuron]) for part in ("pre", "post"))
        if verdict.up is not None:
            assert block.act is not None
            with torch.no_grad():
                gate = block.act(trace.cache["mlp_pre", layer][trace.row, trace.offset + self.position])
            linear, columns, held = *verdict.up, float(gate[neuron].double())
        else:
            linear, columns = next(iter(block.ups.values())), slice(None)
            held = after / before if before else _slope_at_zero(block.act)
        read = matrix(linear, vector.device)[:, columns][:, neuron].double() * write * held
        bias = getattr(linear, "bias", None)
        constant = 0.0 if bias is None else float(bias[columns][neuron].double()) * write * held
        module = block.mlp_norm or (block.attn_norm if not verdict.sequential else None)
        if module is not None and module is not block.mlp_post:
            norm = model.adapter.norm(module)
            assert norm is not None
            constant += float(norm.bias.double() @ read)
            kind = "norm_scale_mlp" if module is block.mlp_norm else "norm_scale_attn"
            read = norm.pull(read) / trace.scale(kind, layer, self.position)
        return replace(
            self, vector=read, layer=layer, middle=verdict.sequential, constant=constant, whole=write * after,
            capped=None, what=f"{self.what}, through neuron {layer}.{neuron}",
        )  # fmt: skip

    # pieces ---------------------------------------------------------------------------------------------------------

    def _behind(self, part: str, layer: int) -> tuple[Float[Tensor, " d_model"], float]:
        """The direction as it reads what W_O or W_down writes, and what biases add: through factor and post-norm."""
        trace, model = self.trace, self.trace.model
        verdict, block = model.adapter.verdict(layer), model.adapter.blocks[layer]
        added = verdict.attn if part == "attn" else verdict.mlp
        assert added is not None
        vector = self.vector if added.factor is None else self.vector * added.factor
        constant = 0.0
        post = block.attn_post if part == "attn" else block.mlp_post
        if post is not None and added.module is post:
            norm = model.adapter.norm(post)
            if norm is None:
                raise SiteError(f"{type(post).__name__} of {model.name} is no norm that is known. Stop at components.")
            constant = float(norm.bias.double() @ vector)
            vector = norm.pull(vector) / trace.scale(f"norm_scale_{part}_post", layer, self.position)
        linear = block.linears["o" if part == "attn" else "down"]
        bias = getattr(linear, "bias", None)
        return vector, constant + (0.0 if bias is None else float(bias.double() @ vector))

    def _w_o(self, layer: int) -> Float[Tensor, "n_heads d_head d_model"]:
        model = self.trace.model
        weight = matrix(model.adapter.blocks[layer].linears["o"], self.vector.device)
        return weight.double().reshape(model.n_heads, model.d_head, -1)

    def _w_v(self, layer: int, head: int) -> tuple[Float[Tensor, "d_model d_head"], Float[Tensor, " d_head"]]:
        model = self.trace.model
        block, verdict = model.adapter.blocks[layer], model.adapter.verdict(layer)
        linear = block.linears.get("v") or block.linears["qkv"]
        weight, bias = matrix(linear, self.vector.device).double(), getattr(linear, "bias", None)
        group = model.n_heads // model.adapter.n_kv_heads
        if "v" in block.linears:
            index = torch.arange(model.d_head, device=weight.device) + (head // group) * model.d_head
        else:
            index = verdict.layouts["v"].index[head // group]
        b = torch.zeros(model.d_head, dtype=torch.float64, device=weight.device)
        return weight[:, index], b if bias is None else bias.double()[index]

    def _heads(self, layer: int, by_source: bool) -> list[Part]:
        trace, model = self.trace, self.trace.model
        vector, constant = self._behind("attn", layer)
        reads = self._w_o(layer) @ vector  # [n_heads, d_head]
        if not by_source:
            values = (trace.at(f"attn_z.{layer}", self.position) * reads).sum(-1)
            parts = [Part("head", float(v), layer, h) for h, v in enumerate(values)]
            return [*parts, Part("bias", constant, layer)] if constant else parts
        if not model.adapter.verdict(layer).z_exact:
            raise SiteError(f"Layer {layer} of {model.name} does not sum patterns times values. Split by 'head'.")
        span = slice(trace.offset, trace.offset + trace.length)
        v = trace.cache["attn_v", layer][trace.row, span].double()  # [source, kv heads, d_head]
        v = v.repeat_interleave(model.n_heads // v.shape[1], 1)
        pattern = trace.cache["attn_pattern", layer][trace.row, :, trace.offset + self.position, span].double()
        values = pattern * (v * reads).sum(-1).T
        tokens = trace.cache.tokens[trace.row]
        parts = [
            Part("source", float(values[h, p]), layer, h, p, tokens[p])
            for h in range(model.n_heads)
            for p in range(self.position + 1)
        ]
        return [*parts, Part("bias", constant, layer)] if constant else parts

    def _neurons(self, layer: int) -> list[Part]:
        trace, model = self.trace, self.trace.model
        down = model.adapter.blocks[layer].linears.get("down")
        if down is None or f"mlp_post.{layer}" not in trace.cache:
            raise SiteError(f"Layer {layer} of {model.name} has no neurons that can be split (as with experts).")
        vector, constant = self._behind("mlp", layer)
        values = trace.at(f"mlp_post.{layer}", self.position) * (matrix(down, vector.device).double() @ vector)
        parts = [Part("neuron", v, layer, i) for i, v in enumerate(values.tolist())]
        return [*parts, Part("bias", constant, layer)] if constant else parts

    def _latents(self, dictionary: Dictionary, site: str, layer: int) -> list[Part]:
        x = self.trace.at(site, self.position)
        codes = dictionary.encode(x.to(dictionary.W_dec.dtype)[None])
        index, value = codes.index.long(), codes.value.double()
        decoder, bias = dictionary.W_dec.double(), dictionary.b_dec.double()
        values = value * (decoder[index] @ self.vector)
        rest = x - value @ decoder[index] - bias
        parts = [Part("latent", v, layer, i) for i, v in zip(index.tolist(), values.tolist(), strict=True)]
        return [*parts, Part("bias", float(bias @ self.vector), layer), Part("error", float(rest @ self.vector), layer)]

    def _check(self, at: dict[str, Dictionary]) -> int:
        """The first layer that stays split into components, after a dictionary of the stream."""
        if not at:
            raise UsageError("Latents need dictionaries. Give dictionaries= one of resid_post.L, or some of mlp_out.L.")
        first = 0
        for site, dictionary in at.items():
            kind, _, layer = site.partition(".")
            if kind not in ("resid_post", "attn_out", "mlp_out") or not layer.isdigit() or dictionary.is_transcoder:
                raise UsageError(
                    f"A dictionary of {site} is no part of the stream. Give resid_post, attn_out or mlp_out."
                )
            if int(layer) >= self.layer:
                raise UsageError(f"{site} is written after this prism reads. Leave it out.")
            if kind == "resid_post":
                if first:
                    raise UsageError("Two dictionaries of the stream cannot stand for it at once. Give one.")
                first = int(layer) + 1
        return first


def logit_prism(
    model: Model,
    source: Prompt | Tokens | Trace,
    target: int | str,
    *,
    minus: int | str | None = None,
    position: int = -1,
) -> Prism:
    """Return the prism that reads a logit, or the difference of two, at the end of the stream at one position.

    The final norm's scale is held; with a soft cap this is the logit before it, and `capped` the one after. Text is
    read as its first token. Elhage et al. 2021; nnterp's and TransformerLens' direct logit attribution.
    """
    trace = source if isinstance(source, Trace) else Trace(model, source)
    position = trace.position(position)
    ids = [_token(model, t) for t in (target, minus) if t is not None]
    norm: Norm | None = model.adapter.norm(model.adapter.final_norm)
    if not model.adapter.head_exact or (norm is None and model.adapter.final_norm is not None):
        raise SiteError(f"The end of {model.name} is not one norm and one matrix, so that logits do not split.")
    head: nn.Module = model.adapter.head
    factor = model.adapter.logit_factor
    columns = weight_of(head, model.device)[ids].double() * factor
    signs = torch.tensor([1.0, -1.0][: len(ids)], dtype=torch.float64, device=columns.device)
    vector = signs @ columns
    bias = getattr(head, "bias", None)
    constant = 0.0 if bias is None else float(signs @ bias.double()[ids]) * factor
    project = model.adapter.project_out
    if project is not None:
        vector = vector @ weight_of(project, model.device).double()
    if norm is not None:
        constant += float(norm.bias.double() @ vector)
        vector = norm.pull(vector) / trace.scale("norm_scale_final", None, position)
    with torch.no_grad():
        last = trace.cache["resid_post", model.n_layers - 1][trace.row, trace.offset + position]
        raw = model.adapter.unembed(last[None, None], cap=False)[0, 0].double()
    words = [w.strip() or repr(w) for w in model.tok_str(ids)]
    what = f"logit of '{words[0]}'" + (f" less that of '{words[1]}'" if len(ids) == 2 else "")
    capped = float(trace.logits[trace.offset + position, ids[0]]) if model.adapter.logit_cap and len(ids) == 1 else None
    return Prism(trace, vector, model.n_layers, position, constant, float(signs @ raw[ids]), what, capped)


def direct_logit_attribution(
    model: Model, prompt: Prompt | Tokens, target: int | str, *, minus: int | str | None = None, position: int = -1,
    by: By = "component", dictionaries: Sequence[Dictionary] = (),
) -> Attribution:  # fmt: skip
    """Split a logit, or the difference of two, over the parts that wrote the last residual stream, exactly.

    `by` is "component", "head", "source" (a head and the token it reads), "neuron" or "latent".
    """
    return logit_prism(model, prompt, target, minus=minus, position=position).split(by, dictionaries)


def accumulated(prism: Prism) -> Float[Tensor, " n_layers1"]:
    """What a prism reads of the stream after the embedding and after each block before it, at its own frozen scale.

    Unlike the logit lens, which norms each stream by its own length, these differ by the parts between them.
    """
    streams = torch.stack([prism.trace.stream(layer, prism.position) for layer in range(prism.layer + 1)])
    return streams @ prism.vector + prism.constant


def _slope_at_zero(act: nn.Module | None) -> float:
    x = torch.zeros(1, requires_grad=True)
    assert act is not None
    with torch.enable_grad():
        return float(torch.autograd.grad(act(x).sum(), x)[0])


def _token(model: Model, word: int | str) -> int:
    if isinstance(word, str):
        return int(model.encode(word, bos=False).ids[0, 0])
    if not 0 <= word < model.d_vocab:
        raise UsageError(f"There is no token {word}. Give 0 to {model.d_vocab - 1}, or a word.")
    return word
