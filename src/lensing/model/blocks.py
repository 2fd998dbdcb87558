"""The parts of a decoder block, found by structure and by the names that families give them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from torch import nn

# Norms on a branch's output, by name. Llama calls its pre-MLP norm what Gemma 2 calls a post-norm: only the presence of
# the second name of a pair tells them apart.
POST_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)
PRE_MLP_NORMS = (
    "pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "final_layer_norm", "norm2", "norm_2", "ffn_norm",
    "post_layernorm", "pre_mlp_layernorm", "ln_mlp",
)  # fmt: skip
PRE_ATTN_NORMS = (
    "input_layernorm", "ln_1", "self_attn_layer_norm", "norm_1", "norm1", "ln_attn", "attention_norm", "attn_norm",
)  # fmt: skip
FINAL_NORMS = ("norm", "ln_f", "final_layernorm", "final_layer_norm", "final_norm", "norm_f")
FUSED_QKV = ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "W_pack", "qkv")
ATTN_OUT_LINEARS = ("o_proj", "out_proj", "c_proj", "dense", "wo")
MLP_DOWN_LINEARS = ("down_proj", "fc2", "c_proj", "dense_4h_to_h", "fc_out", "w2", "wo")


@dataclass
class Block:
    """The parts of one decoder block; what is None was not found."""

    module: nn.Module
    attn: nn.Module | None = None
    attn_norm: nn.Module | None = None
    attn_post: nn.Module | None = None
    mlp: nn.Module | None = None
    mlp_norm: nn.Module | None = None
    mlp_post: nn.Module | None = None
    linears: dict[str, nn.Module] = field(default_factory=dict)
    """q, k, v or qkv, and o of attention; down and the others of the MLP (`mlp:<name>`)."""
    act: nn.Module | None = None

    @property
    def middle(self) -> nn.Module | None:
        """The module that reads the stream between attention and MLP."""
        return self.mlp_norm or self.mlp or next(iter(self.ups.values()), None)

    @property
    def ups(self) -> dict[str, nn.Module]:
        """The linear maps of the MLP but the last: up, gate, or both in one."""
        return {n[4:]: m for n, m in self.linears.items() if n.startswith("mlp:")}

    def contributions(self, part: str) -> list[nn.Module]:
        """Modules whose output might be what attention or MLP adds to the stream, likeliest first."""
        if part == "attn":
            found = [self.attn_post, self.attn, self.linears.get("o")]
        else:
            found = [self.mlp_post, self.mlp, self.linears.get("down")]
        return [m for m in found if m is not None]


def find_layers(hf: Any, n_layers: int | None) -> tuple[str, nn.ModuleList] | None:
    """Return the path and the list of the decoder blocks, or None."""
    for name, module in hf.named_modules():
        is_list = isinstance(module, nn.ModuleList) and len(module) == n_layers and n_layers
        if is_list and any(find_part(block, "attn") for block in module):
            return name, module
    return None


def find_block(module: nn.Module) -> Block:
    """Return the parts of one block; a norm that was taken out and left an identity is none."""
    children = {name: child for name, child in module.named_children() if not isinstance(child, nn.Identity)}
    attn, mlp = find_part(module, "attn"), find_part(module, "mlp")
    block = Block(module, attn=attn, mlp=mlp)
    for attn_name, mlp_name in POST_NORMS:
        if mlp_name in children:
            block.attn_post, block.mlp_post = children.get(attn_name), children[mlp_name]
    taken = {id(block.attn_post), id(block.mlp_post)}
    block.mlp_norm = next((children[n] for n in PRE_MLP_NORMS if n in children and id(children[n]) not in taken), None)
    block.attn_norm = next((children[n] for n in PRE_ATTN_NORMS if n in children), None)
    if attn is not None:
        inside = {n.rpartition(".")[2]: m for n, m in attn.named_modules() if is_linear(m)}
        parts = {"q": inside.get("q_proj"), "k": inside.get("k_proj"), "v": inside.get("v_proj")}
        parts["qkv"] = next((inside[n] for n in FUSED_QKV if n in inside), None)
        parts["o"] = next((inside[n] for n in ATTN_OUT_LINEARS if n in inside), None)
        block.linears.update({n: m for n, m in parts.items() if m is not None})
    # Some families (OPT) keep the MLP's matrices in the block itself.
    home = dict(mlp.named_children()) if mlp is not None else children
    linears = {n: m for n, m in home.items() if is_linear(m)}
    down = next((n for n in MLP_DOWN_LINEARS if n in linears), None)
    if down is not None:
        block.linears["down"] = linears.pop(down)
        block.linears.update({f"mlp:{n}": m for n, m in linears.items()})
        block.act = next((m for n, m in home.items() if re.match(r"act|gelu", n)), None)
    return block


def find_part(block: nn.Module, part: str) -> nn.Module | None:
    """Return a block's attention (`attn`) or MLP (`mlp`), by the names of its children."""
    pattern = r"attn|attention" if part == "attn" else r"mlp|feed_forward|ffn|ff$|block_sparse_moe"
    for name, child in block.named_children():
        if re.search(pattern, name) and not is_norm(name, child) and any(map(_holds_weights, child.modules())):
            return child
    return None


def find_final_norm(trunk: nn.Module) -> nn.Module | None:
    """Return the norm after the last block."""
    norms = {n: m for n, m in trunk.named_children() if is_norm(n, m) and not isinstance(m, nn.Identity)}
    return next((norms[n] for n in FINAL_NORMS if n in norms), None)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map; GPT-2's is called Conv1D, and quantised ones have their own classes."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D" or hasattr(module, "in_features")


def is_norm(name: str, module: nn.Module) -> bool:
    """Whether a module is a norm, by its class or its name."""
    return "norm" in type(module).__name__.lower() or bool(re.search(r"norm|^ln_", name))


def width(linear: Any) -> tuple[int, int]:
    """(inputs, outputs) of a linear map; GPT-2's Conv1D stores its matrix the other way round."""
    if hasattr(linear, "in_features"):
        return linear.in_features, linear.out_features
    return linear.weight.shape[0], linear.weight.shape[1]


def _holds_weights(module: nn.Module) -> bool:
    """A linear map, or the stacked matrices of experts."""
    return is_linear(module) or any(p.dim() >= 2 for p in module.parameters(recurse=False))
