"""Hub ids without a hub: where a release lies, which files are fetched, and what is said when it fails."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from dictionary.formats.making import weights
from huggingface_hub import constants, errors

from lensing.dictionary.formats import hub
from lensing.dictionary.formats.hub import Place, choose_files, find_place, releases
from lensing.dictionary.load import load_dictionary
from lensing.errors import LensingError, UnknownNameError
from lensing.model import load


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (
            "gemma-scope-2b-pt-mlp-canonical/layer_20/width_16k/canonical",
            Place("google/gemma-scope-2b-pt-mlp", "layer_20/width_16k/canonical", 100),
        ),
        (
            "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71",
            Place("google/gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71"),
        ),
        ("llama_scope_lxr_8x/l15r_8x", Place("fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L15R-8x")),
        ("sae-pythia-70m-32k/layers.3", Place("EleutherAI/sae-pythia-70m-32k", "layers.3")),
        ("EleutherAI/sae-pythia-70m-32k/layers.3", Place("EleutherAI/sae-pythia-70m-32k", "layers.3")),
        ("somebody/one-sae", Place("somebody/one-sae", "")),
    ],
)
def test_ids_are_places(name: str, place: Place) -> None:
    assert find_place(name) == place


@pytest.mark.parametrize("release", releases())
def test_every_release_reads_its_own_example(release: str) -> None:
    entry = releases()[release]
    place = find_place(f"{release}/{entry['id']}")
    assert place.repo == entry["repo"]
    assert "{" not in place.path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gemma-scope-2b-pt-mpl-canonical/layer_20", "Did you mean 'gemma-scope-2b-pt-mlp"),
        ("almanac/mlp_out.2/w1025", "Did you mean 'almanac/mlp_out.2/w1024'"),
        ("./nowhere", "There is no dictionary named './nowhere'"),
        ("llama_scope_lxr_8x/layer_15", "look like llama_scope_lxr_8x/l15r_8x"),
        ("what?", "Give a folder"),
    ],
)
def test_unknown_names_offer_others(name: str, words: str) -> None:
    with pytest.raises(UnknownNameError, match=words.replace("?", r"\?")):
        find_place(name, ["almanac/mlp_out.2/w1024"])


def test_the_canonical_one_is_nearest_to_its_number() -> None:
    files = [f"layer_2/width_16k/average_l0_{n}/params.npz" for n in (30, 134, 66, 300)] + ["README.md"]
    place = Place("google/x", "layer_2/width_16k/canonical", 100)
    path, chosen = choose_files(place, files)
    assert (path, chosen) == ("layer_2/width_16k/average_l0_66", ["layer_2/width_16k/average_l0_66/params.npz"])
    with pytest.raises(UnknownNameError, match="layer_2/width_16k/average_l0"):
        choose_files(Place("google/x", "layer_2/width_16k/average_l0_65"), files)


def test_only_a_dictionarys_own_files_are_chosen() -> None:
    files = [
        "config.json",
        "layers.3/cfg.json",
        "layers.3/sae.safetensors",
        "layers.3/optimizer_0.pt",
        "layers.4/cfg.json",
    ]
    path, chosen = choose_files(Place("a/b", "layers.3"), files)
    assert (path, set(chosen)) == ("layers.3", {"config.json", "layers.3/cfg.json", "layers.3/sae.safetensors"})
    files = ["config.yaml", "layer_0.safetensors", "layer_1.safetensors"]
    assert choose_files(Place("a/b", "layer_1.safetensors"), files)[1] == ["layer_1.safetensors", "config.yaml"]
    llama = ["L1/hyperparams.json", "L1/checkpoints/final.safetensors", "L1/lm_config.json"]
    assert len(choose_files(Place("a/b", "L1"), llama)[1]) == 2


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one Gemma Scope dictionary, where a hub would keep it."""
    root = tmp_path / "models--google--gemma-scope-2b-pt-mlp" / "snapshots" / "abc"
    folder = root / "layer_20" / "width_16k" / "average_l0_71"
    folder.mkdir(parents=True)
    names = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    np.savez(folder / "params.npz", **{name: weights()[name].numpy() for name in names})
    return root


def test_a_release_is_fetched_and_read(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hub's three functions played: the list, a file, and what was fetched before."""
    fetched = tmp_path / "models--google--gemma-scope-2b-pt-mlp" / "snapshots" / "def"
    asked = []

    def download(repo: str, name: str) -> str:
        asked.append((repo, name))
        (fetched / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / name, fetched / name)
        return str(fetched / name)

    files = sorted(p.relative_to(repository).as_posix() for p in repository.rglob("*.npz"))
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repo: [*files, "README.md"])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(load, "_reachable", lambda endpoint: True)
    name = "gemma-scope-2b-pt-mlp-canonical/layer_20/width_16k/canonical"
    sae = load_dictionary(name)
    assert (sae.id, sae.site, sae.model_name) == (name, "mlp_out.20", "google/gemma-2-2b")
    assert asked == [("google/gemma-scope-2b-pt-mlp", "layer_20/width_16k/average_l0_71/params.npz")]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, local_files_only: str(fetched))
    assert load_dictionary(name).site == "mlp_out.20"


def test_failures_are_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    name = "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"
    with pytest.raises(LensingError, match="was not fetched before, and the hub cannot be reached"):
        load_dictionary(name)

    def fail(repo: str) -> None:
        raise errors.HfHubHTTPError.__bases__[0]("500 of the server\nand more")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(load, "_reachable", lambda endpoint: True)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", fail)
    with pytest.raises(
        LensingError, match="The hub does not give google/gemma-scope-2b-pt-res: 500 of the server"
    ) as e:
        hub.fetch_dictionary(name)
    assert "\n" not in str(e.value)
