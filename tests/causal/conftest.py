"""A small dictionary with statistics on the tiny model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lensing.dictionary.base import Dictionary, new_dictionary
from lensing.dictionary.configs import TopK
from lensing.dictionary.statistics import Statistics

PROMPT = "the reliability of the almanac is very"


@pytest.fixture
def dictionary(model: Any) -> Dictionary:
    """TopK of 64 latents at resid_post.1, statistics from the prompt itself; latent 63 is silent on them."""
    sae = new_dictionary(TopK(width=64, k=6), model.d_model, seed=3)
    sae.site, sae.model_name, sae.id = "resid_post.1", model.name, "tiny/resid_post.1/w64"
    _, cache = model.run_with_cache(PROMPT, sites=[sae.site])
    h = cache[sae.site][~cache.special]
    with torch.no_grad():
        sae.b_dec.copy_(h.mean(0))
        sae.b_enc[63] = -1e9
    sae.requires_grad_(False)
    codes = sae.encode(h)
    largest = codes.maximum + 0.5
    largest[63] = 0
    sae.statistics = Statistics(
        corpus="prompt", n=len(h), documents=1, mean=h.mean(0), total_variance=1.0,
        mean_norm=float(h.norm(dim=1).mean()),
        max_activation=largest, p999=largest, density=(largest > 0).float() * 0.1, fvu=0.5, l0=6.0, dead_share=0.0,
    )  # fmt: skip
    return sae


@pytest.fixture
def latent(model: Any, dictionary: Dictionary) -> int:
    """The strongest latent at the prompt's last token."""
    _, cache = model.run_with_cache(PROMPT, sites=[dictionary.site])
    index, value = dictionary.encode(cache[dictionary.site][0, -1:]).row(0)
    return int(index[value.argmax()])
