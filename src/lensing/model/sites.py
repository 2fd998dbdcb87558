"""The names of places in a model: one table, patterns over it, and the names that peers use for the same places."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lensing.errors import UnknownNameError, nearest

# Kind of site: what its tensor holds. Order is the order along the forward pass.
GLOBAL_FIRST = {"embed": "what enters the first block: token embedding, scaled, with learned positions [d_model]"}
PER_LAYER = {
    "resid_pre": "residual stream before the block [d_model]",
    "norm_scale_attn": "what the norm before attention divides by [1]",
    "attn_q": "queries before their norm and the rotation [n_heads, d_head]",
    "attn_k": "keys before their norm and the rotation [n_kv_heads, d_head]",
    "attn_v": "values [n_kv_heads, d_head]",
    "attn_scores": "scores before the softmax, masked [batch, n_heads, query, key]",
    "attn_pattern": "attention patterns, after the softmax [batch, n_heads, query, key]",
    "attn_z": "heads' outputs before W_O [n_heads, d_head]",
    "attn_out_raw": "output of the attention module, before any post-norm [d_model]",
    "norm_scale_attn_post": "what the norm after attention divides by [1]",
    "attn_out": "what attention adds to the stream, after any post-norm [d_model]",
    "resid_mid": "residual stream between attention and MLP [d_model]",
    "norm_scale_mlp": "what the norm before the MLP divides by [1]",
    "mlp_in": "input of the MLP module, after its norm [d_model]",
    "mlp_pre": "neurons before the activation (the gate's, in a gated MLP) [d_mlp]",
    "mlp_up": "in a gated MLP, what the activated gate is multiplied by [d_mlp]",
    "mlp_post": "neurons as the down-projection reads them [d_mlp]",
    "mlp_out_raw": "output of the MLP module, before any post-norm [d_model]",
    "norm_scale_mlp_post": "what the norm after the MLP divides by [1]",
    "mlp_out": "what the MLP adds to the stream, after any post-norm [d_model]",
    "resid_post": "residual stream after the block [d_model]",
}
GLOBAL_LAST = {
    "norm_scale_final": "what the final norm divides by [1]",
    "final_norm": "output of the final norm [d_model]",
    "logits": "the model's logits, after any cap [vocab]",
}
KINDS = GLOBAL_FIRST | PER_LAYER | GLOBAL_LAST
# Of a dictionary spliced in at a site: `resid_post.2.sae.acts`.
PARTS = {
    "acts": "activations of the latents [d_sae]",
    "recons": "the dictionary's output [d_model]",
    "error": "what the dictionary leaves out [d_model]",
}

# TransformerLens name: ours. `hook_embed` and `hook_pos_embed` are resolved by the adapter, because TransformerLens
# means the token embedding alone where our `embed` includes learned positions.
ALIASES = {
    "attn.hook_attn_scores": "attn_scores", "attn.hook_pattern": "attn_pattern", "mlp.hook_pre_linear": "mlp_up",
    "ln1.hook_scale": "norm_scale_attn", "ln2.hook_scale": "norm_scale_mlp",
    "ln1_post.hook_scale": "norm_scale_attn_post", "ln2_post.hook_scale": "norm_scale_mlp_post",
    "hook_resid_pre": "resid_pre", "hook_resid_mid": "resid_mid", "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out", "hook_mlp_out": "mlp_out", "mlp.hook_pre": "mlp_pre", "mlp.hook_post": "mlp_post",
    "attn.hook_z": "attn_z", "attn.hook_q": "attn_q", "attn.hook_k": "attn_k", "attn.hook_v": "attn_v",
}  # fmt: skip
GLOBAL_ALIASES = {"ln_final.hook_scale": "norm_scale_final"}
# interp-engine's plain names, where ours differ; its attn_out and mlp_out are the modules' raw outputs.
PLAIN = {
    "value": "attn_v", "attn_probs": "attn_pattern", "z": "attn_z", "attn_out_post": "attn_out",
    "mlp_pre_linear": "mlp_up", "mlp_act": "mlp_post", "mlp_out_post": "mlp_out",
}  # fmt: skip
_ALIAS = re.compile(r"blocks\.([^.]+)\.(.+)")
_MODULE = "module:"


@dataclass(frozen=True)
class Site:
    """One place in one model: a kind and a layer, the dotted path of a module (its output), or a part of a dictionary.

    `part` is "acts", "recons" or "error" of the dictionary that is spliced in at the place.
    """

    kind: str
    layer: int | None = None
    path: str | None = None
    part: str | None = None

    @functools.cached_property
    def name(self) -> str:
        """The canonical name: `mlp_out.2`, `embed`, `module:model.layers.0.mlp`, `mlp_out.2.sae.acts`."""
        place = self.kind if self.layer is None else f"{self.kind}.{self.layer}"
        place = place if self.path is None else f"{_MODULE}{self.path}"
        return place if self.part is None else f"{place}.sae.{self.part}"

    @property
    def whole(self) -> Site:
        """The site without the part."""
        return Site(self.kind, self.layer, self.path)

    @property
    def by_query(self) -> bool:
        """Whether its tensor is `[batch, head, query, key]`."""
        return self.kind in ("attn_scores", "attn_pattern")

    def __str__(self) -> str:
        return self.name


SiteName = str | tuple[str, int] | Site


def all_sites(n_layers: int) -> list[Site]:
    """Return every site of a model of `n_layers` layers that the table knows, in forward order."""
    blocks = [Site(kind, layer) for layer in range(n_layers) for kind in PER_LAYER]
    return [*(Site(k) for k in GLOBAL_FIRST), *blocks, *(Site(k) for k in GLOBAL_LAST)]


def canonical(name: SiteName) -> str:
    """Return the canonical spelling of a site's name or pattern; tuples and TransformerLens names are understood."""
    if isinstance(name, Site):
        return name.name
    if isinstance(name, tuple):
        name = f"{name[0]}.{name[1]}"
    name, dot, part = name.partition(".sae.")
    part = {"hook_sae_acts_post": "acts", "hook_sae_recons": "recons", "hook_sae_error": "error"}.get(part, part)
    found, (kind, _, layer) = _ALIAS.fullmatch(name), name.partition(".")
    if found and found[2] in ALIASES:
        name = f"{ALIASES[found[2]]}.{found[1]}"
    elif kind in PLAIN and layer:
        name = f"{PLAIN[kind]}.{layer}"
    return GLOBAL_ALIASES.get(name, name) + (f".sae.{part}" if dot else "")


def parse(name: SiteName, n_layers: int) -> Site:
    """Return the one site named; unknown kinds and layers raise UnknownNameError with the nearest names."""
    if isinstance(name, Site):
        return name
    text = canonical(name)
    text, dot, part = text.partition(".sae.")
    if dot:
        if part not in PARTS:
            raise UnknownNameError("part of a dictionary", part, PARTS)
        return replace(parse(text, n_layers), part=part)
    if text.startswith(_MODULE):
        return Site("module", path=text[len(_MODULE) :])
    kind, _, layer = text.partition(".")
    if kind in PER_LAYER and re.fullmatch(r"-?\d+", layer):
        index = int(layer) + (n_layers if layer.startswith("-") else 0)
        if 0 <= index < n_layers:
            return Site(kind, index)
        hint = f"This model's layers are 0 to {n_layers - 1}."
        raise UnknownNameError("site", text, [f"{kind}.{i}" for i in range(n_layers)], hint)
    if kind in KINDS and kind not in PER_LAYER and not layer:
        return Site(kind)
    raise _unknown(text, n_layers)


def expand(pattern: SiteName, available: Iterable[Site], n_layers: int) -> list[Site]:
    """Return the sites that a name or a pattern (`resid_post.*`, `mlp_out.{2,5}`) stands for, in forward order."""
    text = canonical(pattern)
    if text.startswith(_MODULE) or not re.search(r"[*?{\[]", text):
        return [parse(pattern, n_layers)]
    place, dot, part = text.partition(".sae.")
    if dot:
        return [parse(f"{site}.sae.{part}", n_layers) for site in expand(place, available, n_layers)]
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
