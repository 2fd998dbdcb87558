"""`lensing evaluate`: every number of one dictionary, with its mask and its splice policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lensing.cli.show import show
from lensing.errors import UsageError


def evaluate(
    dictionary: str,
    /,
    *,
    model: str | None = None,
    text: Path | None = None,
    store: Path | None = None,
    tokens: int | None = None,
    peers: bool = False,
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """Measure how much a dictionary rebuilds, and what its splice costs.

    Parameters
    ----------
    dictionary
        A shipped dictionary's id, a folder or file of any known format, or a hub id.
    model
        A shipped model, a folder, or a hub id; the one that the dictionary names, if not given.
    text
        A file of documents that the dictionary was not trained on, as in lensing train; the dictionary's own held-out
        sample, if not given.
    store
        Instead of a model and text: the folder that lensing harvest made, whose held-out rows are measured.
    tokens
        At most so many tokens, up to the end of a document; all if not given.
    peers
        Print as well what other tools would, each number under its own name.
    allow_pickle
        Read weights from a pickle file, which can run code.
    json
        Print the result as JSON.
    """
    import lensing as ln
    from lensing.data.text import read_documents

    if store is not None and not (model is text is None):
        raise UsageError("There must be one source of activations. Give either --store, or --model with --text.")
    if tokens is not None and tokens < 1:
        raise UsageError(f"{tokens} tokens cannot be measured. Ask for at least 1.")
    documents: Any = read_documents(text) if text is not None else None
    sae = ln.load_dictionary(dictionary, allow_pickle=allow_pickle)
    if store is not None:
        result = ln.evaluate(sae, ln.open_store(store), max_rows=tokens, peers=peers)
    else:
        name = model or sae.model_name
        if name is None:
            raise UsageError(f"{dictionary} names no model. Give --model.")
        if documents is None:
            if sae.sample is None:
                raise UsageError(f"{dictionary} brings no text. Give --text FILE, which it was not trained on.")
            documents = sae.sample.documents()
        loaded = ln.load_model(name, allow_pickle=allow_pickle)
        result = ln.evaluate(sae, documents, model=loaded, max_rows=tokens, peers=peers)
    show(result, lambda console: _draw(result, console), as_json=json)


def _draw(result: Any, console: Any) -> None:
    mask = result.mask
    left = f"{mask.left_out:,} special positions left out" if mask.special else "none left out"
    console.print(f"{result.dictionary} on {mask.rows:,} rows of {mask.source} ({left})", soft_wrap=True)
    for name, shown in {
        "FVU": f"{result.fvu:.4f}", "explained": f"{result.explained_variance:.4f}",
        "MSE": f"{result.mse:.4g}, summed over dimensions", "cosine": f"{result.cosine:.4f}",
        "|x_hat|/|x|": f"{result.norm_ratio:.4f}", "L0": f"{result.l0:.2f}", "L1": f"{result.l1:.4g}",
        "dead": f"{result.dead_share:.2%} of {result.d_sae:,} latents silent in these rows",
    }.items():  # fmt: skip
        console.print(f"{name:12}{shown}")
    edges = [f"{edge:g}" for edge in result.density_edges]
    bars = ", ".join(
        f"{a} to {b}: {n:,}" for a, b, n in zip(edges, edges[1:], result.density_histogram[1:], strict=False) if n
    )
    console.print(f"{'density':12}{bars or 'all silent'}", soft_wrap=True)
    if result.splice is None:
        console.print(f"{'splice':12}not measured: {result.not_spliced}")
    else:
        _draw_splice(result.splice, console)
    for name, value in result.peers.items():
        console.print(f"{name:52}{value:.6g}")


def _draw_splice(cost: Any, console: Any) -> None:
    console.print(
        f"{'loss':12}clean {cost.clean:.4f}, spliced {cost.spliced:.4f}, mean-ablated {cost.mean_ablated:.4f}, "
        f"zero-ablated {cost.zero_ablated:.4f} nats a token"
    )
    console.print(
        f"{'recovered':12}{cost.loss_recovered:.2%} against zeros, {cost.loss_recovered_mean:.2%} against the mean"
    )
    console.print(f"{'KL':12}{cost.kl:.4f} nats a token, over {cost.n:,} predictions")
    policy = cost.policy
    what = [name for name in ("spliced", "ablated", "counted") if getattr(policy, _POLICY[name])]
    console.print(f"{'specials':12}{', '.join(what) if what else 'not spliced, not ablated, not counted'}")


_POLICY = {"spliced": "splice_special", "ablated": "ablate_special", "counted": "count_special"}
