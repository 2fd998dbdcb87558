"""To other tools and back: nothing that both sides hold is lost, and what one lacks is said to be missing."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

import lensing as ln
from lensing.db import Notes
from lensing.errors import FileFormatError, UsageError
from lensing.index.exchange import read_explanations, records, write_neuronpedia, write_parquet, write_upload
from lensing.index.imports import import_index
from lensing.registry import shipped_indexes

NAME = "almanac/resid_post.5/w1024"
# The fields of Neuronpedia's public export, v1.
FEATURE = """modelId layer index creatorId sourceSetName maxActApprox frac_nonzero freq_hist_data_bar_heights
    freq_hist_data_bar_values logits_hist_data_bar_heights logits_hist_data_bar_values pos_str pos_values neg_str
    neg_values neuron_alignment_indices neuron_alignment_values neuron_alignment_l1 correlated_neurons_indices
    correlated_neurons_pearson correlated_neurons_l1 correlated_features_indices correlated_features_pearson
    correlated_features_l1 decoder_weights_dist topkCosSimIndices topkCosSimValues hasVector vector vectorLabel hookName
    vectorDefaultSteerStrength""".split()
ACTIVATION = """id modelId layer index creatorId dataSource dataIndex tokens values maxValue maxValueTokenIndex minValue
    binMin binMax binContains qualifyingTokenIndex dfaValues dfaMaxValue dfaTargetIndex""".split()
EXPLANATION = """id modelId layer index authorId description embedding typeName explanationModelName umap_x umap_y
    umap_cluster umap_log_feature_sparsity""".split()


@pytest.fixture(scope="module")
def model():
    return ln.load_model("almanac")


@pytest.fixture(scope="module")
def sae(model):
    return ln.load_dictionary(NAME, model=model)


@pytest.fixture(scope="module")
def index():
    return ln.open_index(shipped_indexes()[NAME])


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    notes = Notes(tmp_path_factory.mktemp("notes") / "n.sqlite")
    notes.fill("s", [(3, "about rivers"), (1000, "about stones")], method="np_acts-logits-general", by="a model")
    return notes


@pytest.fixture(scope="module")
def export(index, sae, notes, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "v1"
    return write_neuronpedia(index, sae, out, model_id="almanac", source="5-ours-res-1k", notes=notes, subject="s")


@pytest.fixture(scope="module")
def back(model, sae, export, tmp_path_factory):
    return import_index(model, sae, export, out=tmp_path_factory.mktemp("back") / "index")


def test_no_field_is_missing(export, index):
    for kind, fields in (("features", FEATURE), ("activations", ACTIVATION), ("explanations", EXPLANATION)):
        found = list(records(export, kind))
        assert found
        for record in found:
            assert set(fields) == set(record), kind
    features = list(records(export, "features"))
    assert [r["index"] for r in features] == [str(i) for i in range(index.d_sae)]
    for r in features:
        assert len(r["freq_hist_data_bar_heights"]) == len(r["freq_hist_data_bar_values"]) == 50
        assert len(r["pos_str"]) == len(r["pos_values"]) == 10


def test_activations_are_the_contexts(export, index):
    found = [r for r in records(export, "activations") if r["index"] == "192"]
    want = [(g, e) for g in index.latent(192).groups for e in g.examples]
    assert len(found) == len(want)
    for r, (group, e) in zip(found, want, strict=True):
        assert tuple(r["tokens"]) == e.tokens
        assert r["values"] == pytest.approx(e.values)
        assert r["values"][r["qualifyingTokenIndex"]] == pytest.approx(e.value)
        assert r["binMin"] == -1 or r["binMin"] == pytest.approx(group.low)


def test_there_and_back_again(index, back):
    for i in (0, 3, 192, 500, 1023):
        a, b = index.latent(i), back.latent(i)
        assert b.density == pytest.approx(a.density)
        assert b.max == pytest.approx(a.max)
        assert b.histogram == a.histogram
        assert b.histogram_edges == pytest.approx(a.histogram_edges, rel=1e-5)
        assert [w for w, _ in b.promoted] == [w for w, _ in a.promoted]
        assert [v for _, v in b.suppressed] == pytest.approx([v for _, v in a.suppressed])
        assert len(b.groups) == len(a.groups)
        for g, h in zip(a.groups, b.groups, strict=True):
            assert [e.tokens for e in h.examples] == [e.tokens for e in g.examples]
            for e, f in zip(g.examples, h.examples, strict=True):
                assert (f.peak, f.values) == (e.peak, pytest.approx(e.values))
        assert b.near["decoder"] == a.near["decoder"][: len(b.near["decoder"])]
        assert b.fires_on == (), "an export does not hold the words it fires on"


def test_a_second_export_says_the_same(back, sae, export, tmp_path):
    again = write_neuronpedia(back, sae, tmp_path / "again", model_id="almanac", source="5-ours-res-1k")
    for a, b in zip(records(export, "features"), records(again, "features"), strict=True):
        for key in FEATURE:
            if isinstance(a[key], list) and a[key] and isinstance(a[key][0], float):
                assert b[key] == pytest.approx(a[key], rel=1e-4, abs=1e-5), key
            elif isinstance(a[key], float):
                assert b[key] == pytest.approx(a[key], rel=1e-5), key
            else:
                assert b[key] == a[key], key


def test_explanations_come_along(export, tmp_path):
    other = Notes(tmp_path / "n.sqlite")
    assert read_explanations(export, other, "t") == 2
    assert other.labels("t", 3)[0].text == "about rivers"
    assert other.labels("t", 3)[0].by == "a model"
    assert other.search("t", "stones")[0].latent == 1000


def test_the_upload_form(index, tmp_path, notes):
    write_upload(index, tmp_path / "up", model_id="m", source="s", notes=notes, subject="s")
    files = sorted((tmp_path / "up").iterdir())
    assert len(files) == 8
    body = json.loads((tmp_path / "up" / "upload-0.json").read_text())
    assert len(body["features"]) == 128
    assert body["features"][3]["explanations"][0]["text"] == "about rivers"
    assert all(len(a["tokens"]) == len(a["values"]) <= 1024 for f in body["features"] for a in f["activations"])


def test_parquet(index, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_parquet(index, tmp_path / "p")
    table = parquet.read_table(tmp_path / "p" / "latents.parquet").to_pylist()
    assert [row["latent"] for row in table] == list(range(index.d_sae))
    assert table[192]["density"] == pytest.approx(index.latent(192).density)
    examples = parquet.read_table(tmp_path / "p" / "examples.parquet")
    assert examples.num_rows == len(index.array("example_row"))


def dashboard(folder):
    """Two latents as SAEDashboard 0.8.0 writes them."""
    stats = {
        "neuron_alignment_indices": [1], "neuron_alignment_values": [0.5], "neuron_alignment_l1": [0.1],
        "correlated_neurons_indices": [2], "correlated_neurons_l1": [0.2], "correlated_neurons_pearson": [0.2],
        "correlated_features_indices": [3], "correlated_features_l1": [0.1], "correlated_features_pearson": [0.7],
        "neg_str": [" no"], "neg_values": [-0.5], "pos_str": [" yes"], "pos_values": [0.5], "frac_nonzero": 0.25,
        "freq_hist_data_bar_values": [0.5, 1.5], "freq_hist_data_bar_heights": [3, 1],
        "logits_hist_data_bar_heights": [1, 2], "logits_hist_data_bar_values": [-1.0, 1.0], "n_prompts_total": 2,
        "n_tokens_in_prompt": 8, "dataset": "d", "decoder_weights_dist": [], "vector": [],
    }  # fmt: skip
    top = {"bin_min": -1, "bin_max": -1, "bin_contains": -1}
    low = {"bin_min": 0.0, "bin_max": 1.0, "bin_contains": 0.6}
    acts = [
        {**low, "tokens": [" c", " d"], "values": [0.4, 0.0], "qualifying_token_index": -1},
        {**top, "tokens": [" a", " b"], "values": [0.0, 2.0], "qualifying_token_index": 1},
    ]
    features = [{"feature_index": i, **stats, "activations": acts} for i in (0, 5)]
    whole = {"model_id": "m", "layer": 5, "sae_set": "s", "sae_id_suffix": None, "features": features}
    folder.mkdir()
    (folder / "batch-0.json").write_text(json.dumps(whole))
    return folder


def test_a_batch_of_saedashboard_becomes_an_index(model, sae, tmp_path):
    found = import_index(model, sae, dashboard(tmp_path / "d"), out=tmp_path / "i")
    one = found.latent(5)
    assert (one.count, one.density, one.max) == (4, 0.25, 2.0)
    assert [e.tokens for g in one.groups for e in g.examples] == [(" a", " b"), (" c", " d")]
    assert one.groups[0].examples[0].values == (0.0, 2.0)
    assert one.histogram[:2] == (3, 1)
    assert one.promoted == ((" yes", 0.5),)
    assert one.near["correlation"] == ((3, pytest.approx(0.7)),)
    assert np.isnan(one.mean), "a dashboard does not hold it"
    assert found.latent(1).count == 0


def test_broken_and_foreign_files_are_refused(model, sae, tmp_path):
    with pytest.raises(UsageError, match="features"):
        import_index(model, sae, tmp_path, out=tmp_path / "i")
    folder = dashboard(tmp_path / "d")
    (folder / "batch-1.json").write_text('{"features": [{}]}')
    with pytest.raises(FileFormatError, match="batch-1"):
        import_index(model, sae, folder, out=tmp_path / "i")
    (tmp_path / "v" / "features").mkdir(parents=True)
    (tmp_path / "v" / "features" / "batch-0.jsonl.gz").write_bytes(gzip.compress(b'{"index": "0"}\n')[:-6])
    with pytest.raises(FileFormatError):
        import_index(model, sae, tmp_path / "v", out=tmp_path / "i")
    assert not (tmp_path / "i").exists(), "nothing half-written stays"
