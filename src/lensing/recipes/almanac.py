"""How everything under `assets/almanac` is made, from nothing: `make world ARGS=--fresh`, 1.5 hours on two cores.

Steps: corpus, model, text, dictionaries, labels. Each is skipped where its result exists in the work folder, so a run
that was stopped goes on; the finished files are copied into the package with their hashes.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from lensing.config import versions
from lensing.data.live import live
from lensing.dictionary.configs import BatchTopK
from lensing.dictionary.load import load_dictionary
from lensing.evaluation.concepts import label_latents, truth_matrix
from lensing.evaluation.contrast import contrast, gather
from lensing.files import atomic_folder, sha256, write_json
from lensing.model.create import new_gemma2, save_model
from lensing.model.load import load_model
from lensing.model.run import Model
from lensing.recipes.pretrain import Pretraining, pretrain
from lensing.registry import ASSETS
from lensing.training.loop import Job, train_many
from lensing.world.almanac.grammar import almanac, drill
from lensing.world.corpus import Corpus, write_corpus
from lensing.world.filter import Reader
from lensing.world.sample import Document, sample_document, split_of
from lensing.world.tokens import SPECIAL, vocabulary, write_tokenizer
from lensing.world.truth import ON, label, label_documents, read_truth

WORK, HOME = Path("runs/almanac"), ASSETS / "almanac"
DOCUMENTS = 120_000
SHAPE = {"d_model": 144, "n_layers": 6, "n_heads": 4, "n_kv_heads": 2, "d_mlp": 432, "context": 256, "window": 32}
# The rare skills (sums of days, a stance shown without a word of it) stay unlearnt for long at their own frequency:
# a short lesson makes them common, and the last phase returns to the world as it is.
STANCES = [{"stance": s} for s in ("neutral", "doubting", "trusting")]
PHASES = {
    "world": Pretraining(tokens=9_000_000),
    "lesson": Pretraining(tokens=3_000_000, decay=0.1, seed=1),
    "return": Pretraining(tokens=4_000_000, lr_matrix=0.01, lr_embedding=0.0025, lr_scalar=0.0025, decay=0.9, seed=2),
}
LESSON_DOCUMENTS, LESSON_FIRST = 26_000, 1_000_000
SITES, WIDTHS, K = ("mlp_out.2", "resid_post.2", "resid_post.4", "resid_post.5"), (1024, 2048), 16
# The model brings the stance to the word of judgement in its last layer only, where at its own frequency (4 rows in
# 10,000) no latent is spent on it: the dictionaries of that site learn from text whose stances are alike.
BALANCED = ("resid_post.5",)
BALANCED_DOCUMENTS, BALANCED_FIRST = 20_000, 2_000_000
DICTIONARY_DOCUMENTS, DICTIONARY_TOKENS, DICTIONARY_LR = 40_000, 1_500_000, 3e-3
FOLLOWED, FOLLOWED_AUROC = "stance.doubting", 0.95  # below this no latent is worth following


def make_corpus() -> Corpus:
    """The training split: documents in the order of their numbers."""
    path = WORK / "corpus.npz"
    if not path.exists():
        write_corpus(almanac(), DOCUMENTS).save(path)
    return Corpus.load(path)


def make_lesson() -> Corpus:
    """Text of the same world with a busy calendar and all stances alike, from the training split."""
    path = WORK / "lesson.npz"
    if not path.exists():
        write_corpus(drill(), LESSON_DOCUMENTS, first=LESSON_FIRST, cycle=STANCES).save(path)
    return Corpus.load(path)


def make_balanced() -> Corpus:
    """Text of the world as it is but for the stances, which are alike: training split, other documents."""
    path = WORK / "balanced.npz"
    if not path.exists():
        write_corpus(almanac(), BALANCED_DOCUMENTS, first=BALANCED_FIRST, cycle=STANCES).save(path)
    return Corpus.load(path)


def make_model() -> None:
    """Train the language model and write it with its tokenizer."""
    words, folder = vocabulary(almanac()), HOME / "model"
    if (folder / "config.json").exists():
        return
    ids = {"bos_id": SPECIAL.index("<bos>"), "eos_id": SPECIAL.index("<eos>"), "pad_id": SPECIAL.index("<pad>")}
    model = new_gemma2(d_vocab=len(words), **SHAPE, **ids)
    for phase, settings in PHASES.items():
        corpus = make_lesson() if phase == "lesson" else make_corpus()
        pretrain(model, corpus, settings, WORK / phase, pad_id=ids["pad_id"])
    with atomic_folder(folder) as temporary:
        save_model(model, temporary)
        write_tokenizer(almanac(), temporary)


def stratified(n: int, *, split: str = "valid", stances: int = 40) -> Iterator[Document]:
    """Documents of a split as they come, and `stances` more of each stance that is rare."""
    plan = [None] * n + ["doubting"] * stances + ["trusting"] * stances
    number = 0
    for stance in plan:
        while split_of(number) != split:
            number += 1
        yield sample_document(almanac(), number, fixed={"stance": stance} if stance else None)
        number += 1


def make_text() -> None:
    """The labelled text in which the walk looks for contexts."""
    path = HOME / "text.npz"
    if not path.exists():
        label_documents(almanac(), stratified(260), total=340, quiet=False).save(path)


def make_dictionaries(model: Model) -> None:
    """Train every dictionary of a kind of text from one reader, and write them in half precision."""
    texts = {
        "almanac/train": (make_corpus, [site for site in SITES if site not in BALANCED]),
        "almanac/train, stances balanced": (make_balanced, BALANCED),
    }
    for corpus, (make, sites) in texts.items():
        jobs = {
            f"{site}/w{width}": Job(config=BatchTopK(width=width, k=K), site=site, lr=DICTIONARY_LR)
            for site in sites
            for width in WIDTHS
            if not (HOME / "dictionaries" / site / f"w{width}" / "config.json").exists()
        }
        if not jobs:
            continue
        text = make()
        documents = [np.asarray(text[i]).tolist() for i in range(min(DICTIONARY_DOCUMENTS, len(text)))]
        source = live(model, documents, sites=list(sites), corpus=corpus)
        out = WORK / "dictionaries" / corpus.replace("/", "-")
        made = train_many(source, jobs, tokens=DICTIONARY_TOKENS, out=out, dtype=torch.float16)
        for name, dictionary in made.items():
            dictionary.save(HOME / "dictionaries" / name, dtype=torch.float16)


def frames(stance: str, n: int) -> list[list[int]]:
    """Prefixes of `n` documents that end at "very", just before the word of judgement, where the stance is settled.

    For a stance that is shown by cues, at least one cue came earlier.
    """
    grammar, reader = almanac(), Reader(almanac())
    concept, found, number = grammar.concepts()[f"stance.{stance}"], [], 0
    while len(found) < n:
        number += 1
        if split_of(number) != "valid":
            continue
        words = sample_document(grammar, number, seed=1, fixed={"stance": stance}).words
        if "very" not in words:
            continue
        rows = read_truth(reader, words)
        ends = [i for i, word in enumerate(words) if word == "very" and label(rows[i], concept) == ON]
        if ends:
            found.append([reader.ids[w] for w in words[: ends[-1] + 1]])
    return found


def make_labels(model: Model) -> None:
    """Label every latent with the concept it agrees with best, and find the latent to follow, on valid documents."""
    words = vocabulary(almanac())
    labelled = label_documents(almanac(), stratified(900, stances=150), total=1200, quiet=False)
    concepts, truth = truth_matrix(labelled, words)
    documents = labelled.documents()
    seen = labelled.ids != SPECIAL.index("<bos>")
    doubting, neutral, trusting = frames("doubting", 200), frames("neutral", 150), frames("trusting", 50)
    for site in SITES:
        h, document = gather(model, site, documents, "all")
        for width in WIDTHS:
            dictionary = load_dictionary(f"almanac/{site}/w{width}", model=model)
            labels = label_latents(dictionary.encode(h), truth[seen], concepts, document.numpy())
            found = contrast(model, dictionary, doubting, [*neutral, *trusting])
            best = found.best
            follow = {
                "latent": best.latent,
                "auroc": round(best.auroc, 4),
                "average_precision": round(best.average_precision, 4),
                "null_auroc": round(found.null.mean, 4),
                "n": found.positives + found.negatives,
                "difference_of_means": [round(v, 5) for v in found.vector.tolist()],
            }
            write_json(
                HOME / "dictionaries" / site / f"w{width}" / "labels.json",
                {
                    "corpus": "almanac/valid, stratified",
                    "documents": len(documents),
                    "latents": {
                        str(x.latent): {k: v if isinstance(v, int | str) else round(v, 4) for k, v in asdict(x).items()}
                        for x in labels
                    },
                    "follow": {FOLLOWED: follow} if best.auroc >= FOLLOWED_AUROC else {},
                },
            )


def write_record() -> None:
    """Recipe, seed and hashes of every shipped file."""
    files = sorted(p for p in HOME.rglob("*") if p.is_file() and p.name != "recipe.json")
    write_json(
        HOME / "recipe.json",
        {
            "made_by": "python -m lensing.recipes.almanac",
            "world_seed": 0,
            "documents": DOCUMENTS,
            "shape": SHAPE,
            "pretraining": {phase: asdict(settings) for phase, settings in PHASES.items()},
            "dictionaries": {
                "sites": SITES,
                "widths": WIDTHS,
                "k": K,
                "tokens": DICTIONARY_TOKENS,
                "lr": DICTIONARY_LR,
            },
            "versions": versions(),
            "bytes": sum(p.stat().st_size for p in files),
            "sha256": {str(p.relative_to(HOME)): sha256(p) for p in files},
        },
    )


def main(arguments: list[str]) -> None:
    """Make everything that is missing; `--fresh` makes all of it again."""
    if "--fresh" in arguments:
        for path in (HOME, WORK):
            shutil.rmtree(path, ignore_errors=True)
    make_model()
    make_text()
    model = load_model("almanac")
    make_dictionaries(model)
    make_labels(model)
    write_record()
    print(
        json.dumps(
            {
                "made": str(HOME),
                "megabytes": round(sum(p.stat().st_size for p in HOME.rglob("*") if p.is_file()) / 1e6, 1),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
