"""`lensing finetune`: a finished dictionary, trained on with what its splice does to the model's output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lensing.cli.show import show
from lensing.errors import UsageError
from lensing.files import check_writable


def finetune(
    dictionary: str,
    /,
    *,
    out: Path,
    model: str,
    text: Path | None = None,
    sample: int | None = None,
    tokens: int | None = None,
    batch: int = 2048,
    beta: float = 1.0,
    lr: float | None = None,
    sparsity: float | None = None,
    seed: int = 0,
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """Fine-tune a dictionary end to end: spliced into its model, it also lowers the splice's cost.

    Parameters
    ----------
    dictionary
        A shipped dictionary's id, a folder or a hub id; an autoencoder of one site.
    out
        The folder of the new dictionary; a run that was stopped goes on from its checkpoint there.
    model
        A shipped model, a folder, or a hub id.
    text
        A file of documents, best those of the training: with the same seed the same ones are held out.
    sample
        Instead of a file: this many tokens of text sampled from the model itself.
    tokens
        How many tokens to train on; one pass over the text if not given.
    batch
        About how many tokens a step, in whole documents.
    beta
        Weight of the KL against that of the reconstruction; 1 alike.
    lr
        Learning rate at the start, falling evenly to zero; the architecture's own if not given.
    sparsity
        Coefficient of the penalty of relu, gated and jumprelu; the config's if not given.
    seed
        Seed of the order of the text, of what is held out and of sampling.
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the report as JSON.
    """
    if (text is None) == (sample is None):
        raise UsageError("There must be one source of text. Give either --text FILE or --sample TOKENS.")
    import lensing as ln
    from lensing.data.text import read_documents, sample_documents

    documents: Any = read_documents(text) if text is not None else []
    sae = ln.load_dictionary(dictionary, allow_pickle=allow_pickle)
    loaded = ln.load_model(model, allow_pickle=allow_pickle)
    check_writable(out)
    corpus = text.name if text is not None else f"{sample} tokens sampled from {loaded.name}, seed {seed}"
    if sample is not None:
        documents = sample_documents(loaded, sample, seed=seed)
    done = ln.finetune(
        sae, loaded, documents, tokens=tokens, batch=batch, beta=beta, lr=lr, sparsity=sparsity, seed=seed,
        corpus=corpus, out=out,
    )  # fmt: skip
    show(done.report, lambda console: _draw(done.report, out, console), as_json=json)


def _draw(report: Any, out: Path, console: Any) -> None:
    console.print(f"{report.tokens:,} tokens in {report.steps:,} steps, {report.seconds:.0f} s")
    console.print(f"{'':22}{'before':>10}{'after':>10}")
    before, after = report.before, report.after
    lines = {
        "FVU": (report.fvu_before, report.fvu), "L0": (report.l0_before, report.l0),
        "KL of the splice": (before.kl, after.kl), "delta loss": (before.delta_loss, after.delta_loss),
        "loss recovered": (before.loss_recovered, after.loss_recovered),
    }  # fmt: skip
    for name, (a, b) in lines.items():
        console.print(f"{name:22}{a:10.4f}{b:10.4f}")
    console.print(f"The dictionary is in {out}.")
