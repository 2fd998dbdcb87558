"""lensing: read, steer and account for what a language model represents.

The table of contents. Every public name is loaded when it is first used, so that `import lensing` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensing.dictionary.base import Dictionary as Dictionary

__version__ = "0.1.0"

# public name: the module that defines it
_CONTENTS = {
    "load_model": "lensing.model.load",
    "Model": "lensing.model.run",
    "Cache": "lensing.model.cache",
    "Edit": "lensing.model.edit",
    "Replace": "lensing.model.edit",
    "Add": "lensing.model.edit",
    "Apply": "lensing.model.edit",
    "logit_lens": "lensing.lens.lens",
    "lens_grid": "lensing.lens.lens",
    "Lens": "lensing.lens.lens",
    "direct_logit_attribution": "lensing.lens.prism",
    "logit_prism": "lensing.lens.prism",
    "train_tuned_lens": "lensing.lens.tuned",
    "load_lens": "lensing.lens.tuned",
    "save_lens": "lensing.lens.tuned",
    "Codes": "lensing.dictionary.codes",
    "Dictionary": "lensing.dictionary.base",
    "TopK": "lensing.dictionary.configs",
    "BatchTopK": "lensing.dictionary.configs",
    "Matryoshka": "lensing.dictionary.configs",
    "ReLU": "lensing.dictionary.configs",
    "Gated": "lensing.dictionary.configs",
    "JumpReLU": "lensing.dictionary.configs",
    "load_dictionary": "lensing.dictionary.load",
    "CrossLayer": "lensing.dictionary.crosslayer",
    "load_cross_layer": "lensing.dictionary.crossload",
    "splice": "lensing.dictionary.splice",
    "captures": "lensing.data.captures",
    "live": "lensing.data.live",
    "harvest": "lensing.data.harvest",
    "open_store": "lensing.data.store",
    "verify_store": "lensing.data.verify",
    "train": "lensing.training.loop",
    "sweep": "lensing.training.sweep",
    "train_cross_layer": "lensing.training.crosslayers",
    "finetune": "lensing.training.finetune",
    "evaluate": "lensing.evaluation.quality",
    "contrast": "lensing.evaluation.contrast",
    "steer": "lensing.causal.steer",
    "patch": "lensing.causal.patch",
    "ablation": "lensing.causal.patch",
    "path_patch": "lensing.causal.path",
    "Swap": "lensing.causal.interchange",
    "interchange": "lensing.causal.interchange",
    "interchange_accuracy": "lensing.causal.interchange",
    "attribute": "lensing.causal.attribute",
    "latent_effects": "lensing.causal.effects",
    "logit_difference": "lensing.causal.metrics",
    "head_scores": "lensing.causal.heads",
    "build_index": "lensing.index.build",
    "open_index": "lensing.index.index",
    "audit": "lensing.ledger.audit",
    "infer": "lensing.index.inference",
    "serve": "lensing.server.embed",
    "walk": "lensing.walkthrough",
    "LensingError": "lensing.errors",
}

__all__ = ["__version__", *_CONTENTS]


def __getattr__(name: str) -> Any:
    if name not in _CONTENTS:
        raise AttributeError(f"module 'lensing' has no attribute {name!r}")
    value = getattr(importlib.import_module(_CONTENTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
