"""Where the sites lie in a Hugging Face causal language model: found from its module tree, checked by numbers.

A small table holds what structure cannot tell. Whatever the numbers contradict is refused with a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lensing.errors import ModelError, SiteError, UnknownNameError
from lensing.model.sites import Site, all_sites

# Norms on a branch's output, by name. Llama calls its pre-MLP norm what Gemma 2 calls a post-norm: only the presence of
# the second name of a pair tells them apart.
POST_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)
PRE_MLP_NORMS = (
    "pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "final_layer_norm", "norm2", "ffn_norm",
    "post_layernorm", "pre_mlp_layernorm",
)  # fmt: skip
FINAL_NORMS = ("norm", "ln_f", "final_layernorm", "final_layer_norm", "final_norm", "norm_f")
ATTN_OUT_LINEARS = ("o_proj", "out_proj", "c_proj", "dense", "wo")
MLP_DOWN_LINEARS = ("down_proj", "fc2", "c_proj", "dense_4h_to_h", "fc_out", "w2", "wo")


@dataclass(frozen=True)
class Place:
    """A physical spot: the first input or the first output of a module, seen `[batch, pos, ...]`, perhaps by head.

    `carry` names the block whose output must receive the change too: the stream has two readers after `resid_mid`.
    """

    module: nn.Module
    side: str
    d_head: int | None = None
    carry: nn.Module | None = None
    shaped: bool = True


@dataclass
class Block:
    """The parts of one decoder block; what is None was not found."""

    module: nn.Module
    attn: nn.Module | None = None
    attn_post: nn.Module | None = None
    mlp: nn.Module | None = None
    mlp_post: nn.Module | None = None
    pre_mlp_norm: nn.Module | None = None
    linears: dict[str, nn.Module] = field(default_factory=dict)
    act: nn.Module | None = None


@dataclass(frozen=True)
class Verdict:
    """What the probe forward showed of one block."""

    sequential: bool
    adds_up: bool


class Adapter:
    """Knows one model's structure: its sizes, and the place of every site."""

    def __init__(self, hf: Any) -> None:
        self.hf = hf
        self.config = hf.config.get_text_config()
        layers_name, layers = self._find_layers()
        self.trunk = hf.get_submodule(layers_name.rpartition(".")[0])
        self.blocks = [_block(layer) for layer in layers]
        self.embedding: nn.Module = hf.get_input_embeddings()
        self.head: nn.Module = hf.get_output_embeddings()
        if self.head is None:
            raise ModelError(f"{type(hf).__name__} has no output embedding. Give a causal language model.")
        self.final_norm = self._find_final_norm()
        self.project_out = getattr(self.trunk, "project_out", None)
        # OPT-350m projects between the embedding's width and the stream's; the stream's is d_model.
        self.d_model = int(self.config.hidden_size)
        self.d_vocab = int(self.head.weight.shape[0])  # type: ignore[union-attr]
        self.n_heads = int(self.config.num_attention_heads)
        self.d_head = int(getattr(self.config, "head_dim", None) or self.d_model // self.n_heads)
        down = self.blocks[0].linears.get("down")
        self.d_mlp = _width(down)[0] if down is not None else int(getattr(self.config, "intermediate_size", 0) or 0)
        self._verdicts: list[Verdict] | None = None
        self._head_exact = False

    # structure ------------------------------------------------------------------------------------------------------

    def _find_layers(self) -> tuple[str, nn.ModuleList]:
        want = getattr(self.config, "num_hidden_layers", None)
        for name, module in self.hf.named_modules():
            if isinstance(module, nn.ModuleList) and len(module) == want and want and _find_part(module[0], "attn"):
                return name, module
        raise ModelError(
            f"{type(self.hf).__name__} holds no list of {want} decoder blocks. Give a causal language model."
        )

    def _find_final_norm(self) -> nn.Module | None:
        norms = {n: m for n, m in self.trunk.named_children() if _is_norm(n, m)}
        for name in FINAL_NORMS:
            if name in norms:
                return norms[name]
        return None

    # places ---------------------------------------------------------------------------------------------------------

    def resolve_alias(self, name: Any) -> Any:
        """Turn TransformerLens' `hook_embed` and `hook_pos_embed` into what they mean on this model."""
        if name not in ("hook_embed", "hook_pos_embed"):
            return name
        paths = {id(m): n for n, m in self.hf.named_modules()}
        learned = [m for m in self.trunk.children() if isinstance(m, nn.Embedding) and m is not self.embedding]
        if name == "hook_embed":
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
        if site.kind == "embed":
            return Place(self.blocks[0].module, "in")
        if site.kind == "logits":
            return Place(self.hf, "out")
        if site.kind == "final_norm":
            return Place(self._part(self.final_norm, site, "final norm"), "out")
        assert site.layer is not None
        block = self.blocks[site.layer]
        if site.kind == "resid_pre":
            return Place(block.module, "in")
        if site.kind == "resid_post":
            return Place(block.module, "out")
        if site.kind in ("attn_q", "attn_k", "attn_v"):
            what = "separate projection for queries, keys and values"
            return Place(self._part(block.linears.get(site.kind[-1]), site, what), "out", self.d_head)
        if site.kind == "attn_z":
            return Place(self._part(block.linears.get("o"), site, "output projection of attention"), "in", self.d_head)
        if site.kind == "attn_out_raw":
            return Place(self._part(block.attn, site, "attention module"), "out")
        if site.kind == "mlp_in":
            return Place(self._part(block.mlp or block.linears.get("up"), site, "MLP module"), "in")
        if site.kind == "mlp_pre":
            return Place(self._part(block.act, site, "activation module"), "in")
        if site.kind == "mlp_post":
            return Place(self._part(block.linears.get("down"), site, "down-projection"), "in")
        if site.kind == "mlp_out_raw":
            return Place(self._part(block.mlp or block.linears.get("down"), site, "MLP module"), "out")
        return self._stream_place(site, block)

    def _stream_place(self, site: Site, block: Block) -> Place:
        """Place what is only right if contributions add up to the stream: attn_out, resid_mid, mlp_out."""
        assert site.layer is not None
        verdict = self.verdicts()[site.layer]
        if not verdict.adds_up:
            raise SiteError(
                f"{site} is not given: in {type(self.hf).__name__} the outputs of attention and MLP do not add up to "
                "the residual stream. Use attn_out_raw, mlp_out_raw, resid_pre or resid_post."
            )
        if site.kind == "attn_out":
            return Place(self._part(_contribution(block, "attn"), site, "attention module"), "out")
        if site.kind == "mlp_out":
            return Place(self._part(_contribution(block, "mlp"), site, "MLP module"), "out")
        if not verdict.sequential:
            raise SiteError(
                f"{site} is not there: {type(self.hf).__name__} runs attention and MLP in parallel, so the stream "
                "has no middle. Use resid_pre or resid_post."
            )
        return Place(self._part(_middle(block), site, "norm before the MLP"), "in", carry=block.module)

    def _part(self, module: nn.Module | None, site: Site, what: str) -> nn.Module:
        if module is None:
            raise SiteError(f"{site} is not given: {type(self.hf).__name__} has no {what}. Choose another site.")
        return module

    # numbers --------------------------------------------------------------------------------------------------------

    def verdicts(self) -> list[Verdict]:
        """Run one tiny forward, once, and say of every block whether its parts add up, and in which order they run."""
        if self._verdicts is None:
            self._probe()
        assert self._verdicts is not None
        return self._verdicts

    def head_exact(self) -> bool:
        """Whether `unembed` of the last residual stream gave the model's own logits on the probe."""
        self.verdicts()
        return self._head_exact

    @torch.no_grad()
    def _probe(self) -> None:
        seen: dict[tuple[int, str], Tensor] = {}
        handles = []

        def keep(module: nn.Module | None, side: str) -> None:
            def on_in(m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                seen[id(m), "in"] = first_input(args, kwargs)

            def on_out(m: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                seen[id(m), "out"] = first_output(output)

            if module is not None and side == "in":
                handles.append(module.register_forward_pre_hook(on_in, with_kwargs=True))
            elif module is not None:
                handles.append(module.register_forward_hook(on_out))

        try:
            for block in self.blocks:
                for module, side in (
                    (block.module, "in"), (block.module, "out"), (_contribution(block, "attn"), "out"),
                    (_contribution(block, "mlp"), "out"), (_middle(block), "in"),
                ):  # fmt: skip
                    keep(module, side)
            ids = torch.arange(min(6, self.d_vocab), device=self.embedding.weight.device)[None]  # type: ignore[union-attr]
            logits = self.hf(input_ids=ids, use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        if bool(logits.isnan().any()):
            raise ModelError(
                f"{self.config.name_or_path or type(self.hf).__name__} gives numbers that are not finite; its weights "
                "are damaged. Copy or download it again."
            )
        self._verdicts = [_judge(block, seen) for block in self.blocks]
        last = seen[id(self.blocks[-1].module), "out"]
        self._head_exact = _close(self.unembed(last), logits)

    def unembed(self, resid: Tensor) -> Tensor:
        """Return the logits of a residual stream, `[..., d_model]` to `[..., vocab]`: final norm, head, cap."""
        h = resid if self.final_norm is None else self.final_norm(resid)
        if self.project_out is not None:
            h = self.project_out(h)
        logits = self.head(h)
        cap = getattr(self.config, "final_logit_softcapping", None)
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        if getattr(self.config, "logits_scaling", None):  # Granite divides
            logits = logits / self.config.logits_scaling
        if getattr(self.config, "logit_scale", None):  # Cohere multiplies
            logits = logits * self.config.logit_scale
        return logits


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the hidden states a module was called with, by position or by keyword."""
    if args and isinstance(args[0], Tensor):
        return args[0]
    if isinstance(kwargs.get("hidden_states"), Tensor):
        return kwargs["hidden_states"]
    return next(v for v in kwargs.values() if isinstance(v, Tensor))


def first_output(output: Any) -> Tensor:
    """Return the tensor of a module's output: itself, the first of a tuple, or the logits of a model."""
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "logits"):
        return output.logits
    return output[0]


def _judge(block: Block, seen: dict[tuple[int, str], Tensor]) -> Verdict:
    attn, mlp, middle = _contribution(block, "attn"), _contribution(block, "mlp"), _middle(block)
    keys = [(id(block.module), "in"), (id(block.module), "out"), (id(attn), "out"), (id(mlp), "out")]
    if any(k not in seen for k in keys):
        return Verdict(sequential=False, adds_up=False)
    pre, post, a, m = (seen[k] for k in keys)
    a, m = a.reshape(pre.shape), m.reshape(pre.shape)
    mid = seen.get((id(middle), "in"))
    sequential = mid is not None and _close(mid.reshape(pre.shape), pre + a)
    return Verdict(sequential=sequential, adds_up=_close(post, pre + a + m))


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal up to a few roundings of the larger of the two."""
    scale = max(float(a.abs().max()), float(b.abs().max()))
    return float((a - b).abs().max()) <= 8 * torch.finfo(a.dtype).eps * scale


def _block(module: nn.Module) -> Block:
    children = dict(module.named_children())
    attn, mlp = _find_part(module, "attn"), _find_part(module, "mlp")
    block = Block(module, attn=attn, mlp=mlp)
    for attn_name, mlp_name in POST_NORMS:
        if mlp_name in children:
            block.attn_post, block.mlp_post = children.get(attn_name), children[mlp_name]
    taken = {id(block.attn_post), id(block.mlp_post)}
    norms = [children[n] for n in PRE_MLP_NORMS if n in children and id(children[n]) not in taken]
    block.pre_mlp_norm = norms[0] if norms else None
    if attn is not None:
        inside = {n.rpartition(".")[2]: m for n, m in attn.named_modules() if _is_linear(m)}
        parts = {"q": inside.get("q_proj"), "k": inside.get("k_proj"), "v": inside.get("v_proj")}
        parts["o"] = next((inside[n] for n in ATTN_OUT_LINEARS if n in inside), None)
        block.linears.update({n: m for n, m in parts.items() if m is not None})
    # Some families (OPT) keep the MLP's matrices in the block itself.
    home = dict(mlp.named_children()) if mlp is not None else children
    linears = {n: m for n, m in home.items() if _is_linear(m)}
    down = next((linears[n] for n in MLP_DOWN_LINEARS if n in linears), None)
    if down is not None:
        block.linears["down"] = down
        block.linears["up"] = next(iter(linears.values()))
    block.act = next((m for n, m in home.items() if re.match(r"act", n)), None)
    return block


def _find_part(block: nn.Module, part: str) -> nn.Module | None:
    pattern = r"attn|attention" if part == "attn" else r"mlp|feed_forward|ffn|ff$"
    for name, child in block.named_children():
        if re.search(pattern, name) and not _is_norm(name, child) and any(_is_linear(m) for m in child.modules()):
            return child
    return None


def _contribution(block: Block, part: str) -> nn.Module | None:
    """The module whose output is added to the stream; dropout after it does nothing in evaluation."""
    if part == "attn":
        return block.attn_post or block.attn
    return block.mlp_post or block.mlp or block.linears.get("down")


def _middle(block: Block) -> nn.Module | None:
    """The module that reads the stream between attention and MLP."""
    return block.pre_mlp_norm or block.mlp or block.linears.get("up")


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D" or hasattr(module, "in_features")


def _is_norm(name: str, module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower() or bool(re.search(r"norm|^ln_", name))


def _width(linear: Any) -> tuple[int, int]:
    """(inputs, outputs) of a linear map; GPT-2's Conv1D stores its matrix the other way round."""
    if hasattr(linear, "in_features"):
        return linear.in_features, linear.out_features
    return linear.weight.shape[0], linear.weight.shape[1]
