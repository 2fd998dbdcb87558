"""Names of places: TransformerLens hooks, module paths and other tools' words to sites of ours, and back."""

from __future__ import annotations

import re

from lensing.model.sites import ALIASES, KINDS, PER_LAYER, canonical

# Further hooks whose tensors are those of a site of ours. `ln2.hook_normalized` is not one: of a norm with a gain it is
# the vector before the gain.
_HOOKS = {"mlp.hook_in": "mlp_in", "mlp.hook_out": "mlp_out_raw"}
# Of a module: what its input and its output are, where a table of site kinds knows them.
_MODULES = {
    "": ("resid_pre", "resid_post"),
    "mlp": ("mlp_in", "mlp_out_raw"),
    "self_attn": (None, "attn_out_raw"),
    "attention": (None, "attn_out_raw"),
    "attn": (None, "attn_out_raw"),
    "self_attn.o_proj": ("attn_z", "attn_out_raw"),
    "pre_feedforward_layernorm": (None, "mlp_in"),
    "post_feedforward_layernorm": ("mlp_out_raw", "mlp_out"),
    "post_attention_layernorm": (None, None),
}
_LAYER = re.compile(r"(?:.*\.)?(?:layers|h|blocks)[._](\d+)(?:\.(.+))?")


def site_of_hook(hook: str | None, layer: int | None = None) -> str | None:
    """Our name of a TransformerLens hook; with `layer` the hook's name has none. A hook that no site stands for, and a
    site's own name, stay as they are: using the former then says that there is no such site."""
    if not hook:
        return None
    full = hook if layer is None or hook.startswith("blocks.") else f"blocks.{layer}.{hook}"
    full = full.replace("{layer}", str(layer))
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", full)
    if found and found[2] in _HOOKS:
        return f"{_HOOKS[found[2]]}.{found[1]}"
    return canonical(full)


def hook_of_site(site: str | None) -> str | None:
    """The TransformerLens hook of a site of ours; the site's own name where there is none."""
    kind, _, layer = (site or "").partition(".")
    hooks = {name: hook for hook, name in (_HOOKS | ALIASES).items()}
    return f"blocks.{layer}.{hooks[kind]}" if kind in hooks and layer.isdigit() else site


def site_of_module(path: str, side: str = "output") -> str:
    """Our name of the input or output of a module given by its path, `module:<path>` where no site stands for it."""
    kind = path.partition(".")[0]
    if kind in KINDS and (kind not in PER_LAYER or re.fullmatch(r"\w+\.\d+", path)):
        return path  # a site's own name
    found = _LAYER.fullmatch(path)
    known = _MODULES.get(found[2] or "") if found else None
    name = known[side == "output"] if known else None
    return f"{name}.{found[1]}" if found and name else f"module:{path}"
