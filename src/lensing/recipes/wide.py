"""The shipped model beside one four times as wide, after the same tokens: what more room does to single units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lensing.data.live import live
from lensing.dictionary.configs import BatchTopK
from lensing.dictionary.load import load_dictionary
from lensing.evaluation.bars import MIDDLE
from lensing.evaluation.triviality import triviality
from lensing.evaluation.world_report import pairs, units_section
from lensing.files import atomic_folder
from lensing.model.create import new_gemma2, save_model
from lensing.model.load import load_model
from lensing.model.run import Model
from lensing.recipes.pretrain import Pretraining, pretrain
from lensing.training.job import Job
from lensing.training.loop import train_many
from lensing.world.almanac.grammar import almanac
from lensing.world.corpus import Corpus
from lensing.world.tokens import write_tokenizer
from lensing.world.truth import Labelled

TIMES, TOKENS = 4, 1_000_000  # a snapshot of the shipped model was taken after as many
DICTIONARY_TOKENS, WIDTH = 500_000, 1024


def make_wide(
    shape: Mapping[str, Any], ids: Mapping[str, Any], corpus: Corpus, settings: Pretraining, work: Path, *,
    times: int = TIMES, tokens: int = TOKENS,
) -> Path:  # fmt: skip
    """Train a model `times` as wide on the first `tokens` that the other one read, at the same rates; its folder."""
    folder = work / "model"
    if not (folder / "config.json").exists():
        wider = {**shape, **{name: times * shape[name] for name in ("d_model", "d_mlp")}}
        model = new_gemma2(**wider, **ids, seed=settings.seed)
        # the first part of the other's phase: its warm-up, and no fall at the end
        first = replace(settings, tokens=tokens, warmup=settings.warmup * settings.tokens / tokens, decay=1e-9)
        pretrain(model, corpus, first, work / "training", pad_id=ids["pad_id"])
        with atomic_folder(folder) as temporary:
            save_model(model, temporary)
            write_tokenizer(almanac(), temporary)
    return folder


def compare_widths(
    models: Sequence[Model], documents: Sequence[Sequence[int]], corpus: str, text: Labelled, work: Path, *,
    site: str = MIDDLE, width: int = WIDTH, tokens: int = DICTIONARY_TOKENS,
) -> list[dict[str, Any]]:  # fmt: skip
    """Measure the units of each model's middle layer, with a dictionary of equal budget for each."""
    found = []
    for model in models:
        home = work / f"d{model.d_model}"
        if not (home / "config.json").exists():
            source = live(model, documents, sites=[site], corpus=corpus)
            jobs = {"sae": Job(config=BatchTopK(width=width, k=16), site=site, lr=3e-3)}
            made = train_many(source, jobs, tokens=tokens, out=work / f"training{model.d_model}")
            made["sae"].save(home)
        dictionary = load_dictionary(home, model=model)
        report = triviality(model, dictionary, text, pairs=pairs(), quiet=False)
        found.append({"id": f"d_model {model.d_model}", "tokens": TOKENS, **units_section(report)})
    return found


def load_both(work: Path) -> list[Model]:
    """The shipped model as it was after `TOKENS`, and the wide one."""
    return [load_model("almanac", revision=f"{TOKENS:08d}"), load_model(str(work / "model"))]
