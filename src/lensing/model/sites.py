"""The names of places in a model: one table, patterns over it, and the names that peers use for the same places."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lensing.errors import SiteError, UnknownNameError, nearest

# Kind of site: what its tensor holds. Order is the order along the forward pass.
GLOBAL_FIRST = {"embed": "what enters the first block: token embedding, scaled, with learned positions [d_model]"}
PER_LAYER = {
    "resid_pre": "residual stream before the block [d_model]",
    "attn_q": "queries before their norm and the rotation [n_heads, d_head]",
    "attn_k": "keys before their norm and the rotation [n_kv_heads, d_head]",
    "attn_v": "values [n_kv_heads, d_head]",
    "attn_z": "heads' outputs before W_O [n_heads, d_head]",
    "attn_out_raw": "output of the attention module, before any post-norm [d_model]",
    "attn_out": "what attention adds to the stream, after any post-norm [d_model]",
    "resid_mid": "residual stream between attention and MLP [d_model]",
    "mlp_in": "input of the MLP module, after its norm [d_model]",
    "mlp_pre": "neurons before the activation (the gate's, in a gated MLP) [d_mlp]",
    "mlp_post": "neurons as the down-projection reads them [d_mlp]",
    "mlp_out_raw": "output of the MLP module, before any post-norm [d_model]",
    "mlp_out": "what the MLP adds to the stream, after any post-norm [d_model]",
    "resid_post": "residual stream after the block [d_model]",
}
GLOBAL_LAST = {
    "final_norm": "output of the final norm [d_model]",
    "logits": "the model's logits, after any cap [vocab]",
}
KINDS = GLOBAL_FIRST | PER_LAYER | GLOBAL_LAST
# Names of the design that plain module hooks cannot give.
NOT_YET = {"attn_scores", "attn_pattern", "norm_scale"}

# TransformerLens name: ours. `hook_embed` and `hook_pos_embed` are resolved by the adapter, because TransformerLens
# means the token embedding alone where our `embed` includes learned positions.
ALIASES = {
    "hook_resid_pre": "resid_pre", "hook_resid_mid": "resid_mid", "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out", "hook_mlp_out": "mlp_out", "mlp.hook_pre": "mlp_pre", "mlp.hook_post": "mlp_post",
    "attn.hook_z": "attn_z", "attn.hook_q": "attn_q", "attn.hook_k": "attn_k", "attn.hook_v": "attn_v",
}  # fmt: skip
_ALIAS = re.compile(r"blocks\.([^.]+)\.(.+)")
_MODULE = "module:"


@dataclass(frozen=True)
class Site:
    """One place in one model: a kind and a layer, or the dotted path of a module (its output)."""

    kind: str
    layer: int | None = None
    path: str | None = None

    @property
    def name(self) -> str:
        """The canonical name: `mlp_out.2`, `embed`, `module:model.layers.0.mlp`."""
        if self.path is not None:
            return f"{_MODULE}{self.path}"
        return self.kind if self.layer is None else f"{self.kind}.{self.layer}"

    def __str__(self) -> str:
        return self.name


def all_sites(n_layers: int) -> list[Site]:
    """Return every site of a model of `n_layers` layers that the table knows, in forward order."""
    blocks = [Site(kind, layer) for layer in range(n_layers) for kind in PER_LAYER]
    return [*(Site(k) for k in GLOBAL_FIRST), *blocks, *(Site(k) for k in GLOBAL_LAST)]


def canonical(name: str | tuple[str, int] | Site) -> str:
    """Return the canonical spelling of a site's name or pattern; tuples and TransformerLens names are understood."""
    if isinstance(name, Site):
        return name.name
    if isinstance(name, tuple):
        name = f"{name[0]}.{name[1]}"
    found = _ALIAS.fullmatch(name)
    if found and found[2] in ALIASES:
        return f"{ALIASES[found[2]]}.{found[1]}"
    return name


def parse(name: str | tuple[str, int] | Site, n_layers: int) -> Site:
    """Return the one site named; unknown kinds and layers raise UnknownNameError with the nearest names."""
    if isinstance(name, Site):
        return name
    text = canonical(name)
    if text.startswith(_MODULE):
        return Site("module", path=text[len(_MODULE) :])
    kind, _, layer = text.partition(".")
    if kind in NOT_YET:
        raise SiteError(f"The site {text!r} is not given by module hooks. Choose one of {', '.join(KINDS)}.")
    if kind in PER_LAYER and re.fullmatch(r"-?\d+", layer):
        index = int(layer) + (n_layers if layer.startswith("-") else 0)
        if 0 <= index < n_layers:
            return Site(kind, index)
        hint = f"This model's layers are 0 to {n_layers - 1}."
        raise UnknownNameError("site", text, [f"{kind}.{i}" for i in range(n_layers)], hint)
    if kind in KINDS and kind not in PER_LAYER and not layer:
        return Site(kind)
    raise _unknown(text, n_layers)


def expand(pattern: str | tuple[str, int] | Site, available: Iterable[Site], n_layers: int) -> list[Site]:
    """Return the sites that a name or a pattern (`resid_post.*`, `mlp_out.{2,5}`) stands for, in forward order."""
    text = canonical(pattern)
    if text.startswith(_MODULE) or not re.search(r"[*?{\[]", text):
        return [parse(pattern, n_layers)]
    globs = _braces(text)
    found = [s for s in available if any(fnmatch.fnmatchcase(s.name, g) for g in globs)]
    for glob in globs:
        # `mlp_out.{2,99}` must not quietly become `mlp_out.2`.
        if not re.search(r"[*?\[]", glob) and not any(s.name == glob for s in found):
            found.append(parse(glob, n_layers))
    if found:
        return found
    known = [s for s in all_sites(n_layers) if any(fnmatch.fnmatchcase(s.name, g) for g in globs)]
    if known:
        return known[:1]  # the name is good but this model lacks it: placing it says why
    raise _unknown(text, n_layers)


def _braces(pattern: str) -> list[str]:
    """Expand `a.{2,5}` into `a.2` and `a.5`."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [done for part in found[1].split(",") for done in _braces(head + part.strip() + tail)]


def _unknown(text: str, n_layers: int) -> UnknownNameError:
    kind, dot, layer = text.partition(".")
    if kind in PER_LAYER:
        hint = f"Give it one of the layers 0 to {n_layers - 1}, as in '{kind}.0', or '{kind}.*'."
        return UnknownNameError("site", text, KINDS, hint)
    if kind in KINDS:
        return UnknownNameError("site", text, KINDS, f"'{kind}' has no layer: write just '{kind}'.")
    near = nearest(kind, KINDS)
    names = [f"{k}{dot}{layer}" if k in PER_LAYER and dot else (f"{k}.0" if k in PER_LAYER else k) for k in near]
    hint = f"Did you mean {' or '.join(map(repr, names))}?" if names else f"There are: {', '.join(KINDS)}."
    return UnknownNameError("site", text, KINDS, hint)
