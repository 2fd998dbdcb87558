"""Names of sites: canonical forms, patterns, peers' names, and the errors that offer the nearest ones."""

import pytest

from lensing.errors import UnknownNameError
from lensing.model.sites import KINDS, Site, all_sites, expand, parse


def names(sites):
    return [s.name for s in sites]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("embed", "embed"),
        ("mlp_out.2", "mlp_out.2"),
        (("resid_post", 1), "resid_post.1"),
        ("resid_post.-1", "resid_post.3"),
        (Site("logits"), "logits"),
        ("module:model.layers.0.mlp", "module:model.layers.0.mlp"),
        ("blocks.2.hook_mlp_out", "mlp_out.2"),
        ("blocks.0.hook_resid_pre", "resid_pre.0"),
        ("blocks.0.hook_resid_mid", "resid_mid.0"),
        ("blocks.2.hook_resid_post", "resid_post.2"),
        ("blocks.3.hook_attn_out", "attn_out.3"),
        ("blocks.1.attn.hook_z", "attn_z.1"),
        ("blocks.1.attn.hook_q", "attn_q.1"),
        ("blocks.1.mlp.hook_pre", "mlp_pre.1"),
        ("blocks.1.mlp.hook_post", "mlp_post.1"),
    ],
)
def test_one_name_means_one_site(given, meant):
    assert parse(given, 4).name == meant


def test_every_canonical_name_parses_to_itself():
    for site in all_sites(3):
        assert parse(site.name, 3) == site


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("resid_post.*", ["resid_post.0", "resid_post.1", "resid_post.2"]),
        ("mlp_out.{0,2}", ["mlp_out.0", "mlp_out.2"]),
        ("mlp_out.{2,0}", ["mlp_out.0", "mlp_out.2"]),
        ("blocks.*.hook_resid_post", ["resid_post.0", "resid_post.1", "resid_post.2"]),
        ("{embed,logits}", ["embed", "logits"]),
        ("mlp_out.[01]", ["mlp_out.0", "mlp_out.1"]),
        ("resid_post.1", ["resid_post.1"]),
    ],
)
def test_patterns(pattern, meant):
    assert names(expand(pattern, all_sites(3), 3)) == meant


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mlp_outt.2", "There is no site named 'mlp_outt.2'. Did you mean 'mlp_out.2'"),
        ("resid_poost.*", "Did you mean 'resid_post.*'"),
        ("embedd", "Did you mean 'embed'?"),
        ("mlp_out.9", "There is no site named 'mlp_out.9'. This model's layers are 0 to 3."),
        ("mlp_out.{1,9}", "There is no site named 'mlp_out.9'. This model's layers are 0 to 3."),
        ("resid_post.-5", "This model's layers are 0 to 3."),
        ("mlp_out", "Give it one of the layers 0 to 3, as in 'mlp_out.0', or 'mlp_out.*'."),
        ("mlp_out.two", "Give it one of the layers 0 to 3"),
        ("logits.3", "'logits' has no layer: write just 'logits'."),
        ("zzzzzzzz", "There are: embed, resid_pre, "),
        ("", "There are: embed, "),
    ],
)
def test_unknown_names_offer_the_nearest(given, message):
    with pytest.raises(UnknownNameError) as caught:
        expand(given, all_sites(4), 4)
    assert message in str(caught.value)
    assert caught.value.kind == "site"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("blocks.1.attn.hook_pattern", "attn_pattern.1"),
        ("attn_probs.1", "attn_pattern.1"),
        ("blocks.1.attn.hook_attn_scores", "attn_scores.1"),
        ("blocks.2.ln1.hook_scale", "norm_scale_attn.2"),
        ("blocks.2.ln2_post.hook_scale", "norm_scale_mlp_post.2"),
        ("ln_final.hook_scale", "norm_scale_final"),
        ("blocks.0.mlp.hook_pre_linear", "mlp_up.0"),
        ("mlp_act.3", "mlp_post.3"),
        ("value.0", "attn_v.0"),
        ("resid_post.2.sae.acts", "resid_post.2.sae.acts"),
        ("blocks.2.hook_resid_post.sae.hook_sae_acts_post", "resid_post.2.sae.acts"),
        ("blocks.2.hook_mlp_out.sae.hook_sae_error", "mlp_out.2.sae.error"),
    ],
)
def test_names_of_peers_for_what_lies_inside(given, meant):
    site = parse(given, 4)
    assert site.name == meant
    assert site == parse(site.name, 4)


def test_parts_of_a_dictionary():
    site = parse("resid_post.2.sae.acts", 4)
    assert (site.part, site.whole.name) == ("acts", "resid_post.2")
    assert names(expand("resid_post.{0,1}.sae.error", all_sites(3), 3)) == [
        "resid_post.0.sae.error",
        "resid_post.1.sae.error",
    ]
    with pytest.raises(UnknownNameError, match=r"There is no part of a dictionary named 'act'. Did you mean 'acts'"):
        parse("resid_post.2.sae.act", 4)


def test_the_table_describes_every_kind():
    assert all(KINDS.values())
