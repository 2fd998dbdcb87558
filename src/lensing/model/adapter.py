"""Where the sites lie in a Hugging Face causal language model: found from its module tree, checked by numbers.

Whatever the numbers contradict is refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lensing.errors import ModelError, SiteError, UnknownNameError
from lensing.model.blocks import Block, find_block, find_final_norm, find_layers, width
from lensing.model.matrices import device_of
from lensing.model.norms import Norm, describe
from lensing.model.places import Layout, Place
from lensing.model.probe import LENGTH, Findings, Verdict, close, probe
from lensing.model.sites import Site, all_sites

NORMS = {
    "norm_scale_attn": ("attn_norm", "norm before attention"),
    "norm_scale_attn_post": ("attn_post", "norm after attention"),
    "norm_scale_mlp": ("mlp_norm", "norm before the MLP"),
    "norm_scale_mlp_post": ("mlp_post", "norm after the MLP"),
}


class Adapter:
    """Knows one model's structure: its sizes, and the place of every site."""

    def __init__(self, hf: Any) -> None:
        self.hf = hf
        self.config = hf.config.get_text_config()
        n_layers = getattr(self.config, "num_hidden_layers", None)
        found = find_layers(hf, n_layers)
        if found is None:
            raise ModelError(
                f"{type(hf).__name__} holds no list of {n_layers} decoder blocks with attention. Give a causal "
                "language model that is a transformer."
            )
        self.layers_path, self.layers = found
        self.trunk = hf.get_submodule(self.layers_path.rpartition(".")[0])
        self.blocks = [find_block(layer) for layer in self.layers]
        self.embedding: nn.Module = hf.get_input_embeddings()
        self.head: nn.Module = hf.get_output_embeddings()
        if self.head is None:
            raise ModelError(f"{type(hf).__name__} has no output embedding. Give a causal language model.")
        self.final_norm = find_final_norm(self.trunk)
        self.project_out = getattr(self.trunk, "project_out", None)
        # OPT-350m projects between the embedding's width and the stream's; the stream's is d_model.
        self.d_model = int(self.config.hidden_size)
        self.d_vocab = int(self.head.weight.shape[0])  # type: ignore[union-attr]
        self.n_heads = int(self.config.num_attention_heads)
        self.d_head = int(getattr(self.config, "head_dim", None) or self.d_model // self.n_heads)
        down = self.blocks[0].linears.get("down")
        self.d_mlp = width(down)[0] if down is not None else int(getattr(self.config, "intermediate_size", 0) or 0)
        self._findings: Findings | None = None
        self._head_exact = False
        self._norms: dict[int, Norm | None] = {}

    @property
    def n_kv_heads(self) -> int:
        """Heads of keys and values; as many as queries where they are not grouped."""
        linear = self.blocks[0].linears.get("k")
        if linear is not None:
            return width(linear)[1] // self.d_head
        layout = self.verdict(0).layouts.get("k")
        return layout.index.shape[0] if layout is not None else self.n_heads

    # places ---------------------------------------------------------------------------------------------------------

    def resolve_alias(self, name: Any) -> Any:
        """Turn peers' names of embedding, positions and unembedding (before any cap) into what they mean here."""
        if name not in ("hook_embed", "hook_pos_embed", "embeddings", "lm_head"):
            return name
        paths = {id(m): n for n, m in self.hf.named_modules()}
        if name == "lm_head":
            return f"module:{paths[id(self.head)]}"
        learned = [m for m in self.trunk.children() if isinstance(m, nn.Embedding) and m is not self.embedding]
        if name != "hook_pos_embed":
            return f"module:{paths[id(self.embedding)]}" if learned else "embed"
        if not learned:
            raise SiteError("This model has no learned positions, so 'hook_pos_embed' is not there. Leave it out.")
        return f"module:{paths[id(learned[0])]}"

    def available(self) -> Iterator[Site]:
        """Yield every site of the table that this model can give, in forward order."""
        for site in all_sites(len(self.blocks)):
            try:
                self.place(site)
            except SiteError:
                continue
            yield site

    def place(self, site: Site) -> Place:
        """Return where a site lies; SiteError says why this model cannot give it."""
        if site.path is not None:
            try:
                return Place(self.hf.get_submodule(site.path), "out", shaped=False)
            except AttributeError as error:
                names = [n for n, _ in self.hf.named_modules() if n]
                raise UnknownNameError("module", site.path, names) from error
        place = self._place(site)
        if self._findings is None:
            return place
        if place.side == "scale":
            return replace(place, late=(id(place.module), "in") in self._findings.left_alone)
        return replace(place, copy=True) if (id(place.module), place.side) in self._findings.written_over else place

    def _place(self, site: Site) -> Place:
        if site.kind == "embed":
            return Place(self.blocks[0].module, "in")
        if site.kind == "logits":
            return Place(self.hf, "out")
        if site.kind == "final_norm":
            return Place(self._part(self.final_norm, site, "final norm"), "out")
        if site.kind == "norm_scale_final":
            return self._scale(site, self.final_norm, "final norm")
        assert site.layer is not None
        block = self.blocks[site.layer]
        if site.kind == "resid_pre":
            return Place(block.module, "in")
        if site.kind == "resid_post":
            return Place(block.module, "out")
        if site.kind in NORMS:
            name, what = NORMS[site.kind]
            self._needs_sum(site)
            return self._scale(site, getattr(block, name), what)
        if site.kind in ("attn_scores", "attn_pattern"):
            return self._softmax(site, block)
        if site.kind in ("attn_q", "attn_k", "attn_v"):
            return self._heads(site, block, site.kind[-1])
        if site.kind == "attn_z":
            return Place(self._part(block.linears.get("o"), site, "output projection of attention"), "in", self.d_head)
        if site.kind == "attn_out_raw":
            return Place(self._part(block.attn, site, "attention module"), "out")
        if site.kind == "mlp_in":
            return Place(self._part(block.mlp or next(iter(block.ups.values()), None), site, "MLP module"), "in")
        if site.kind == "mlp_pre":
            return Place(self._part(block.act, site, "activation module of its own (as with experts)"), "in")
        if site.kind == "mlp_up":
            up = self.verdict(site.layer).up
            module = self._part(up[0] if up else None, site, "neurons that a gate multiplies")
            columns = torch.arange(width(module)[1], device=self._like.device)[up[1] if up else slice(None)]
            return Place(module, "out", layout=None if len(columns) == width(module)[1] else Layout(columns))
        if site.kind == "mlp_post":
            return Place(self._part(block.linears.get("down"), site, "down-projection (as with experts)"), "in")
        if site.kind == "mlp_out_raw":
            return Place(self._part(block.mlp or block.linears.get("down"), site, "MLP module"), "out")
        return self._stream(site, block)

    def _stream(self, site: Site, block: Block) -> Place:
        """Place what is only right if contributions add up to the stream: attn_out, resid_mid, mlp_out."""
        verdict = self._needs_sum(site)
        added = verdict.attn if site.kind == "attn_out" else verdict.mlp
        if site.kind in ("attn_out", "mlp_out"):
            assert added is not None
            return Place(added.module, "out", factor=added.factor)
        if not verdict.sequential:
            raise SiteError(
                f"{site} is not there: {type(self.hf).__name__} runs attention and MLP in parallel, so the stream "
                "has no middle. Use resid_pre or resid_post."
            )
        return Place(self._part(block.middle, site, "norm before the MLP"), "in", carry=block.module)

    def _needs_sum(self, site: Site) -> Verdict:
        assert site.layer is not None
        verdict = self.verdict(site.layer)
        if not verdict.adds_up:
            raise SiteError(
                f"{site} is not given: in {type(self.hf).__name__} the outputs of attention and MLP do not add up to "
                "the residual stream. Use attn_out_raw, mlp_out_raw, resid_pre or resid_post."
            )
        return verdict

    def _softmax(self, site: Site, block: Block) -> Place:
        assert site.layer is not None
        sinks = self.verdict(site.layer).sinks
        if sinks is None:
            raise SiteError(
                f"{site} is not given: layer {site.layer} of {type(self.hf).__name__} does not turn scores into a "
                "pattern by one softmax over keys for each head. Use attn_z or attn_out."
            )
        return Place(self._part(block.attn, site, "attention module"), site.kind[5:], sinks=sinks)  # type: ignore[arg-type]

    def _heads(self, site: Site, block: Block, name: str) -> Place:
        assert site.layer is not None
        if name in block.linears:
            return Place(block.linears[name], "out", self.d_head)
        layout = self.verdict(site.layer).layouts.get(name)
        what = "projection in which queries, keys and values could be told apart"
        return Place(self._part(block.linears.get("qkv") if layout else None, site, what), "out", layout=layout)

    def _scale(self, site: Site, module: nn.Module | None, what: str) -> Place:
        norm = self.norm(self._part(module, site, what))
        if norm is None:
            raise SiteError(
                f"{site} is not given: {type(module).__name__} of {type(self.hf).__name__} is no division by a length. "
                "Read what goes in and what comes out instead."
            )
        return Place(norm.module, "scale", norm=norm)

    def _part(self, module: nn.Module | None, site: Site, what: str) -> nn.Module:
        if module is None:
            raise SiteError(f"{site} is not given: {type(self.hf).__name__} has no {what}. Choose another site.")
        return module

    # numbers --------------------------------------------------------------------------------------------------------

    def norm(self, module: nn.Module | None) -> Norm | None:
        """What a norm module does, in numbers; None where it is none."""
        if module is None:
            return None
        if id(module) not in self._norms:
            self._norms[id(module)] = describe(module, self.d_model, self._like)
        return self._norms[id(module)]

    def verdict(self, layer: int) -> Verdict:
        """What one tiny forward pass, run once, showed of a block."""
        return self.findings.verdicts[layer]

    @property
    def findings(self) -> Findings:
        """What one tiny forward pass, run once, showed of the model."""
        if self._findings is None:
            ids = torch.arange(min(LENGTH, self.d_vocab), device=self._like.device)[None]
            found = probe(self.hf, self.config, self.blocks, ids, self.n_heads, self.d_head)
            if bool(found.logits.isnan().any()):
                raise ModelError(
                    f"{self.config.name_or_path or type(self.hf).__name__} gives numbers that are not finite; its "
                    "weights are damaged. Copy or download it again."
                )
            with torch.no_grad():
                self._head_exact = close(self.unembed(found.last), found.logits)
            self._findings = found
        return self._findings

    @property
    def head_exact(self) -> bool:
        """Whether `unembed` of the last residual stream gave the model's own logits."""
        return bool(self.findings) and self._head_exact

    @property
    def _like(self) -> Tensor:
        """Any tensor that lies where the embedding does and has its dtype."""
        weight: Tensor = self.embedding.weight  # type: ignore[assignment]
        return weight if weight.device.type != "meta" else weight.new_empty(0, device=device_of(self.embedding))

    def unembed(self, resid: Tensor, *, cap: bool = True) -> Tensor:
        """Return the logits of a residual stream, `[..., d_model]` to `[..., vocab]`: final norm, head, and the cap."""
        h = resid if self.final_norm is None else self.final_norm(resid)
        logits = self.head(h if self.project_out is None else self.project_out(h))
        if getattr(self.config, "logits_scaling", None):  # Granite divides
            logits = logits / self.config.logits_scaling
        if getattr(self.config, "logit_scale", None):  # Cohere multiplies
            logits = logits * self.config.logit_scale
        limit = self.logit_cap
        return torch.tanh(logits / limit) * limit if cap and limit is not None else logits

    @property
    def logit_cap(self) -> float | None:
        """The soft cap c of c * tanh(logits / c) that logits go through at the end (Gemma 2), if any."""
        return getattr(self.config, "final_logit_softcapping", None)

    @property
    def logit_factor(self) -> float:
        """What the head's output is multiplied by, before any cap."""
        divided, multiplied = getattr(self.config, "logits_scaling", None), getattr(self.config, "logit_scale", None)
        return (multiplied or 1.0) / (divided or 1.0)
