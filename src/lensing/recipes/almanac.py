"""How everything under `assets/almanac` is made, from nothing: `make world ARGS=--fresh`, two hours on two cores.

Steps: corpus, model, text, dictionaries, labels, index, report, record. What exists is not made again, so a run that
was stopped goes on; a work folder of another recipe is refused.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lensing.config import versions
from lensing.data.live import live
from lensing.dictionary.configs import BatchTopK
from lensing.dictionary.load import load_dictionary
from lensing.errors import UsageError
from lensing.evaluation.concepts import label_latents, truth_matrix
from lensing.evaluation.contrast import contrast, gather
from lensing.evaluation.doubt import frames
from lensing.files import atomic_folder, sha256, write_json
from lensing.index.build import build_index
from lensing.index.layout import NAME
from lensing.lens.tuned import save_lens, train_tuned_lens
from lensing.model.create import new_gemma2, save_model
from lensing.model.load import load_model
from lensing.model.run import Model
from lensing.recipes.ladder import make_ladder, rungs
from lensing.recipes.pretrain import Pretraining, pretrain
from lensing.recipes.report import make_report
from lensing.recipes.wide import make_wide
from lensing.registry import ASSETS, revisions
from lensing.training.job import Job
from lensing.training.loop import train_many
from lensing.world.almanac.grammar import almanac, drill, trial
from lensing.world.almanac.registers import NUMBERS
from lensing.world.corpus import Corpus, write_corpus
from lensing.world.sample import Document, sample_document, split_of
from lensing.world.stratified import stratified
from lensing.world.tokens import SPECIAL, vocabulary, write_tokenizer
from lensing.world.truth import Labelled, label_documents

WORK, HOME = Path("runs/almanac"), ASSETS / "almanac"
# Layers 1, 2 and 4 see far: what was said long ago can stand in the middle of the network, and what the middle makes of
# it (a promise broken) can still be fetched after it.
SHAPE = {
    "d_model": 144, "n_layers": 6, "n_heads": 4, "n_kv_heads": 2, "d_mlp": 432, "context": 256, "window": 32,
    "global_layers": (1, 2, 4),
}  # fmt: skip
SEEDS, SHIPPED_SEED = (0, 1, 2, 3, 4), 0
# The rare skills (sums of days, a stance shown without a word of it) stay unlearnt for long at their own frequency:
# lessons make them common, and the phase after them returns to the world as it is, at a falling rate.
STANCES = [{"stance": s} for s in ("neutral", "doubting", "trusting")]
PHASES = {
    "world": Pretraining(tokens=9_000_000, decay=0.05),
    "lesson": Pretraining(tokens=2_500_000, decay=0.05),
    "trial": Pretraining(tokens=2_500_000, decay=0.05),
    "return": Pretraining(tokens=10_000_000, decay=1.0),
}
# Snapshots along training, in tokens over all phases.
REVISIONS = tuple(round(m * 1e6) for m in (0, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 4.5, 6, 9, 11.5, 14, 16.5, 19, 21.5, 24))
LESSON_DOCUMENTS, LESSONS = 22_500, {"lesson": (drill, 1_000_000), "trial": (trial, 1_500_000)}  # and first number
SITES, WIDTHS, K = ("mlp_out.2", "resid_post.2", "resid_post.4", "resid_post.5"), (1024, 2048), 16
# The model brings the stance to the word of judgement in its last layer only, where at its own frequency (4 rows in
# 10,000) no latent is spent on it: the dictionaries of that site learn from text whose stances are alike.
BALANCED = ("resid_post.5",)
BALANCED_DOCUMENTS, BALANCED_FIRST = 20_000, 2_000_000
DICTIONARY_DOCUMENTS, DICTIONARY_TOKENS, DICTIONARY_LR = 40_000, 1_500_000, 3e-3
LENS_DOCUMENTS, LENS = 20_000, {"steps": 500, "batch_tokens": 2**13}
LABELLING_DOCUMENTS = 420
FOLLOWED, FOLLOWED_AUROC = "stance.doubting", 0.95  # below this no latent is worth following


def make_corpus() -> Corpus:
    """The whole training split: documents in the order of their numbers."""
    path = WORK / "corpus.npz"
    if not path.exists():
        write_corpus(almanac(), sum(split_of(n) == "train" for n in range(NUMBERS))).save(path)
    return Corpus.load(path)


def make_lesson(phase: str) -> Corpus:
    """Text of the world in which what is rare is not: other documents of the training split, all stances alike."""
    path, (grammar, first) = WORK / f"{phase}.npz", LESSONS[phase]
    if not path.exists():
        write_corpus(grammar(), LESSON_DOCUMENTS, first=first, cycle=STANCES).save(path)
    return Corpus.load(path)


def make_balanced() -> Corpus:
    """Text of the world as it is but for the stances, which are alike: training split, other documents."""
    path = WORK / "balanced.npz"
    if not path.exists():
        write_corpus(almanac(), BALANCED_DOCUMENTS, first=BALANCED_FIRST, cycle=STANCES).save(path)
    return Corpus.load(path)


def make_model(seed: int = SHIPPED_SEED) -> Path:
    """Train the language model of a seed and write it with its tokenizer and its revisions; return its folder."""
    work = WORK / f"seed{seed}"
    folder = HOME / "model" if seed == SHIPPED_SEED else work / "model"
    if (folder / "config.json").exists():
        return folder
    ids = _ids()
    model = new_gemma2(**SHAPE, **ids, seed=seed)
    before = 0
    for number, (phase, settings) in enumerate(PHASES.items()):
        corpus = make_lesson(phase) if phase in LESSONS else make_corpus()
        last = number == len(PHASES) - 1
        due = [t - before for t in REVISIONS if before <= t < before + settings.tokens + last]
        pretrain(
            model,
            corpus,
            replace(settings, seed=10 * seed + number),
            work / phase,
            pad_id=ids["pad_id"],
            revisions=due,
            on_revision=lambda tokens, before=before: _revision(model, work / "revisions" / f"{before + tokens:08d}"),
        )
        before += settings.tokens
    _write_model(model, folder)
    return folder


def _ids() -> dict[str, int]:
    special = {f"{name}_id": SPECIAL.index(f"<{name}>") for name in ("bos", "eos", "pad")}
    return {"d_vocab": len(vocabulary(almanac())), **special}


def _revision(model: Any, folder: Path) -> None:
    """Write a snapshot in half precision (the training goes on with the weights as they are)."""
    if not folder.exists():
        _write_model(copy.deepcopy(model), folder, torch.bfloat16)


def _write_model(model: Any, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    with atomic_folder(folder) as temporary:
        save_model(model, temporary, dtype)
        write_tokenizer(almanac(), temporary)


def reading(n: int, *, split: str = "valid", stances: int = 40) -> Iterator[Document]:
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
        label_documents(almanac(), reading(260), total=340, quiet=False).save(path)


def _documents(text: Corpus) -> list[list[int]]:
    """What dictionaries are trained on."""
    return [np.asarray(text[i]).tolist() for i in range(min(DICTIONARY_DOCUMENTS, len(text)))]


def make_dictionaries(model: Model, home: Path = HOME / "dictionaries", tag: str = "") -> None:
    """Train every dictionary of a kind of text from one reader, and write them in half precision."""
    texts = {
        "almanac/train": (make_corpus, [site for site in SITES if site not in BALANCED]),
        "almanac/train, stances balanced": (make_balanced, [site for site in SITES if site in BALANCED]),
    }
    for corpus, (make, sites) in texts.items():
        jobs = {
            f"{site}/w{width}": Job(config=BatchTopK(width=width, k=K), site=site, lr=DICTIONARY_LR)
            for site in sites
            for width in WIDTHS
            if not (home / site / f"w{width}" / "config.json").exists()
        }
        if not jobs:
            continue
        source = live(model, _documents(make()), sites=list(sites), corpus=corpus)
        out = WORK / f"dictionaries{tag}" / corpus.replace("/", "-")
        made = train_many(source, jobs, tokens=DICTIONARY_TOKENS, out=out, dtype=torch.float16)
        for name, dictionary in made.items():
            dictionary.save(home / name, dtype=torch.float16)


def make_seed_dictionary(seed: int) -> Path | str:
    """Train the dictionary in which the doubt of another seed's model is looked for, as the shipped one was."""
    site, width = BALANCED[0], WIDTHS[0]
    if seed == SHIPPED_SEED:
        return f"almanac/{site}/w{width}"
    folder = WORK / f"seed{seed}" / "dictionary"
    if not (folder / "config.json").exists():
        model = load_model("almanac", revision=f"seed{seed}")
        source = live(model, _documents(make_balanced()), sites=[site], corpus="almanac/train, stances balanced")
        job = Job(config=BatchTopK(width=width, k=K), site=site, lr=DICTIONARY_LR)
        out = WORK / f"dictionaries-seed{seed}"
        made = train_many(source, {"sae": job}, tokens=DICTIONARY_TOKENS, out=out, dtype=torch.float16)
        made["sae"].save(folder, dtype=torch.float16)
    return folder


def make_lens(model: Model) -> None:
    """Train the tuned lens on the first documents of the training split."""
    if not (HOME / "lens" / "config.json").exists():
        save_lens(train_tuned_lens(model, _documents(make_corpus())[:LENS_DOCUMENTS], **LENS), HOME / "lens", model)


def make_labels(model: Model) -> None:
    """Label every latent with the concept it agrees with best, and find the latent to follow, on valid documents."""
    words = vocabulary(almanac())
    labelled = label_documents(almanac(), stratified(LABELLING_DOCUMENTS, split="valid"), quiet=False)
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
                    "corpus": "almanac/valid, every concept often",
                    "documents": len(documents),
                    "latents": {
                        str(x.latent): {k: v if isinstance(v, int | str) else round(v, 4) for k, v in asdict(x).items()}
                        for x in labels
                    },
                    "follow": {FOLLOWED: follow} if best.auroc >= FOLLOWED_AUROC else {},
                },
            )


def make_index(model: Model) -> None:
    """Index the dictionary that the walk begins with on the whole labelled text."""
    name = f"{BALANCED[0]}/w{WIDTHS[0]}"
    folder = HOME / "indexes" / name
    if (folder / NAME).exists():
        return
    text = Labelled.load(HOME / "text.npz")
    documents = [text.ids[a:b].tolist() for a, b in pairwise(text.starts.tolist())]
    with atomic_folder(folder) as temporary:
        dictionary, called = load_dictionary(f"almanac/{name}"), f"the labelled text of {model.name}"
        build_index(model, dictionary, documents, out=temporary, name=called)
        (temporary / "run.json").unlink()  # it names this machine


def write_record() -> None:
    """Recipe, seed and hashes of every shipped file."""
    files = sorted(p for p in HOME.rglob("*") if p.is_file() and p.name != "recipe.json")
    write_json(
        HOME / "recipe.json",
        {
            "made_by": "python -m lensing.recipes.almanac",
            "world_seed": 0,
            **recipe(),
            "versions": versions(),
            "bytes": sum(p.stat().st_size for p in files),
            "sha256": {str(p.relative_to(HOME)): sha256(p) for p in files},
        },
    )


def claim() -> None:
    """Note in the work folder what is being made there, so that nothing half-finished of another recipe is taken over.

    Raises: UsageError: the folder holds work of another world, shape or settings.
    """
    text = "\n".join(sample_document(almanac(), number).text for number in range(50))
    mine = {"world": hashlib.sha256(text.encode()).hexdigest(), **recipe()}
    mine = json.loads(json.dumps(mine))
    path = WORK / "recipe.json"
    if path.exists():
        found = json.loads(path.read_text("utf-8"))
        if differ := [name for name in mine if found.get(name) != mine[name]]:
            raise UsageError(
                f"{WORK} holds work of another recipe ({', '.join(differ)} differ). Give --fresh to begin anew."
            )
    write_json(path, mine)


def recipe() -> dict[str, Any]:
    """Everything that decides what comes out, but for the code."""
    return {
        "documents": NUMBERS,
        "seed": SHIPPED_SEED,
        "shape": SHAPE,
        "pretraining": {phase: asdict(settings) for phase, settings in PHASES.items()},
        "dictionaries": {"sites": SITES, "widths": WIDTHS, "k": K, "tokens": DICTIONARY_TOKENS, "lr": DICTIONARY_LR},
    }


def main(arguments: list[str]) -> None:
    """Make everything that is missing.

    `--fresh` makes all of it again, `--seeds` the models of the other seeds too, `--wide` one four times as wide.
    """
    before = json.loads((HOME / "recipe.json").read_text("utf-8")) if (HOME / "recipe.json").exists() else None
    if "--fresh" in arguments:
        for path in (HOME, WORK):
            shutil.rmtree(path, ignore_errors=True)
        if before:
            write_json(WORK / "before.json", before)
    elif before and not {"--seeds", "--wide"} & set(arguments):
        print(f"{HOME} is complete. Give --fresh to make all of it again, --seeds or --wide to make other models.")
        return
    claim()
    make_model()
    if "--seeds" in arguments:
        for seed in SEEDS:
            make_model(seed)
    if "--wide" in arguments:
        make_wide(SHAPE, _ids(), make_corpus(), PHASES["world"], WORK / "wide")
    make_text()
    model = load_model("almanac")
    make_dictionaries(model)
    make_dictionaries(load_model("almanac", revision="random"), WORK / "random", "-random")
    names = [f"{site}/w{width}" for site in SITES for width in WIDTHS]
    wanted = {name: rung for name, rung in rungs().items() if name not in names}
    make_ladder(
        model, _documents(make_corpus()), "almanac/train", wanted, tokens=DICTIONARY_TOKENS, work=WORK / "ladder",
        home=HOME / "dictionaries",
    )  # fmt: skip
    make_lens(model)
    make_labels(model)
    make_index(model)
    trained = [seed for seed in SEEDS if seed == SHIPPED_SEED or f"seed{seed}" in revisions("almanac")]
    seeds = {s: (None if s == SHIPPED_SEED else f"seed{s}", make_seed_dictionary(s)) for s in trained}
    make_report(
        model, HOME / "report.json", WORK, make_corpus(), names=sorted(f"almanac/{n}" for n in names), seeds=seeds
    )
    write_record()
    print(f"{HOME} is complete: {sum(p.stat().st_size for p in HOME.rglob('*') if p.is_file()) / 1e6:.1f} MB.")
    if (WORK / "before.json").exists():
        print(compare(json.loads((WORK / "before.json").read_text("utf-8"))["sha256"]))


def compare(before: Mapping[str, str]) -> str:
    """Say which files are byte for byte what they were before, by their recorded hashes."""
    now = json.loads((HOME / "recipe.json").read_text("utf-8"))["sha256"]
    differ = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
    if not differ:
        return f"All {len(now)} files are byte for byte what they were."
    return f"{len(differ)} of {len(now)} files differ from before: {', '.join(differ)}."


if __name__ == "__main__":
    main(sys.argv[1:])
