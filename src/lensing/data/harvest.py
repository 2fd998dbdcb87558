"""Harvest: run a model over text once and keep the activations of many sites on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from lensing.config import write_run
from lensing.data.check import Checked, agree, check_shard, first_not_finite, stats_record
from lensing.data.claims import Claims
from lensing.data.forward import activations
from lensing.data.manifest import NAME, STATS, TOKENS, Manifest, differences, read_manifest, read_stats
from lensing.data.moments import Moments
from lensing.data.plan import Plan, plan_harvest
from lensing.data.store import Store
from lensing.data.text import Text
from lensing.dist import join_world
from lensing.errors import Interrupted, LensingError, TrainingError, UsageError
from lensing.files import PART, check_writable, sweep, write_json
from lensing.model.run import Model
from lensing.progress import Meter
from lensing.shards import ROW_DTYPES, write_shard

Found = dict[tuple[str, int], Checked]  # by site (or `tokens`) and number


def harvest(
    model: Model,
    text: str | Path | Text | Iterable[str | Sequence[int]],
    *,
    sites: str | Sequence[str],
    out: str | Path,
    tokens: int | None = None,
    dtype: str = "bfloat16",
    seed: int = 0,
    held_out: float = 0.05,
    context: int | None = None,
    batch_tokens: int = 4096,
    shuffle_rows: int | None = None,
    shard_rows: int | None = None,
    include_special: bool = False,
    field: str = "text",
    skip_bad: bool = False,
    quiet: bool = False,
) -> Store:
    """Write the activations of a model reading text to the folder `out`, and return them as a source of shuffled rows.

    One forward pass of about `batch_tokens` tokens serves all `sites` (names, patterns) and ends after the deepest.
    `text` is a file, a folder of files, a dataset (see `Text`; `field` and `skip_bad` are for these), or documents:
    texts or token ids. The first whole documents with at least `tokens` rows are read (None: all), cut to `context`
    tokens (None: the model's own) and permuted by `seed`; the last `held_out` share is never trained on. Special tokens
    get no rows unless `include_special`. Rows are rounded to `dtype` (bfloat16, float16, float32).

    Training mixes about `shuffle_rows` rows at a time (None: 131,072, or what fits in 512 MB as float32 at the widest
    site). A shard has about `shard_rows` rows, of whole pieces (None: as many as are mixed, at most 1 GB over all
    sites). `ln.live` with the same settings gives the same rows in the same order; its own default counts all sites.

    The same call again continues where it was stopped, keeps what is whole and makes the rest anew, byte for byte.
    Under torchrun the processes share the work, and those that live make what a killed one left.

    Raises: LensingError: the disk has too little room for it. UsageError: the folder holds another harvest, the text is
    too short or unusable. Interrupted: on Ctrl-C; nothing is lost but the shard at work.
    """
    out, everyone = Path(out), join_world().everyone
    everyone.share(lambda: check_writable(out))
    plan = plan_harvest(
        model, text, sites=sites, tokens=tokens, dtype=dtype, seed=seed, held_out=held_out, context=context,
        batch_tokens=batch_tokens, shuffle_rows=shuffle_rows, shard_rows=shard_rows, include_special=include_special,
        field=field, skip_bad=skip_bad,
    )  # fmt: skip
    kept, missing = everyone.share(lambda: _prepare(out, plan.manifest, quiet))
    if everyone.size == 1:
        _finish(out, plan.manifest, kept | _make(model, plan, out, missing, quiet))
    else:
        _make_together(model, plan, out, kept, missing, quiet or everyone.rank > 0)
    return Store(out)


def _prepare(out: Path, manifest: Manifest, quiet: bool) -> tuple[Found, dict[int, list[str]]]:
    """Look at the folder, begin it if it is new, and return what is there and what is missing."""
    begun = _begun(out, manifest)
    kept = _kept(out, manifest, quiet) if begun else {}
    missing = missing_shards(manifest, kept)
    _refuse_without_room(out, manifest, missing)
    if not begun:
        manifest.write(out)
    if not (out / "run.json").exists():
        write_run(out, what="harvest", setting=manifest.to_json())
    _sweep(out, manifest)
    return kept, missing


def missing_shards(manifest: Manifest, kept: Iterable[tuple[str, int]]) -> dict[int, list[str]]:
    """Return the shards still to make: number to the sites (and `tokens`) that lack it. Any process can take any."""
    there = set(kept)
    lacking = {n: [what for what in manifest.folders if (what, n) not in there] for n in range(len(manifest.shards))}
    return {number: what for number, what in lacking.items() if what}


def make_shard(
    model: Model, plan: Plan, number: int, what: Sequence[str]
) -> dict[str, dict[str, Shaped[Tensor, "row ..."]]]:
    """Return the tensors of one shard of some sites (and of `tokens`): a pure function of the plan and the number."""
    manifest, sites = plan.manifest, [name for name in what if name != TOKENS]
    found = {TOKENS: plan.token_rows(number)} if TOKENS in what else {}
    if sites:
        rows = activations(
            model, [plan.pieces[member] for member in plan.members[number]], sites, batch_tokens=manifest.batch_tokens,
            dtype=ROW_DTYPES[manifest.sites[sites[0]]["dtype"]], keep_special=manifest.special["included"],
        )  # fmt: skip
        found |= {site: {"x": rows[site]} for site in sites}
    return found


def _make(model: Model, plan: Plan, out: Path, missing: Mapping[int, list[str]], quiet: bool) -> Found:
    """Make and write what is missing; the disk takes a shard while the model makes the next one."""
    shards = plan.manifest.shards
    written: Found = {}
    waiting: Future[Found] | None = None
    with ThreadPoolExecutor(1) as disk, Meter("harvesting", total=sum(shards), unit="tokens", quiet=quiet) as meter:
        meter.resume(sum(rows for number, rows in enumerate(shards) if number not in missing))
        try:
            for place, (number, what) in enumerate(missing.items(), start=len(shards) - len(missing) + 1):
                made = make_shard(model, plan, number, what)
                # the forward waits when the disk lags: no more than two shards are ever in memory, and none is dropped
                written |= waiting.result() if waiting is not None else {}
                waiting = disk.submit(_write, out, plan, number, made)
                del made
                meter.advance(shards[number], f"shard {place} of {len(shards)}")
            written |= waiting.result() if waiting is not None else {}
        except KeyboardInterrupt as error:
            raise Interrupted(f"Stopped; finished shards are in {out}. Run the same command to continue.") from error
    return written


def _make_together(
    model: Model, plan: Plan, out: Path, kept: Found, missing: Mapping[int, list[str]], quiet: bool
) -> None:
    """Make what is missing together with other processes; of those that live at the end the first one finishes.

    After the start nobody waits for a certain process: what a killed one claimed, another makes.
    """
    shards = plan.manifest.shards
    end = len(shards)  # the number under which finishing is claimed
    meter = Meter("harvesting (this process)", total=None, unit="tokens", quiet=quiet)
    with ThreadPoolExecutor(1) as disk, Claims(out) as claims, meter:
        try:
            waiting: Future[None] | None = None
            for number in claims.take(missing):
                if number is None:
                    if waiting is not None:
                        waiting.result()  # or nobody would hear that the disk refused
                    continue
                made = make_shard(model, plan, number, missing[number])
                if waiting is not None:
                    waiting.result()
                waiting = disk.submit(_write_and_note, out, plan, number, made, claims)
                del made
                meter.advance(shards[number], f"shard {number + 1} of {end}")
            for turn in claims.take([end]):
                if turn is None:
                    continue
                written: Found = {}
                for number in missing:
                    written |= _noted(claims.record(number))
                _finish(out, plan.manifest, kept | written)
                claims.made(end, {})
        except KeyboardInterrupt as error:
            raise Interrupted(f"Stopped; finished shards are in {out}. Run the same command to continue.") from error
    if claims.clear():
        _sweep(out, plan.manifest)  # what killed processes left half-written


def _write_and_note(
    out: Path, plan: Plan, number: int, made: Mapping[str, Mapping[str, Tensor]], claims: Claims
) -> None:
    claims.made(number, {
        what: [found.sha256, None if (m := found.moments) is None else [m.n, m.mean.tolist(), m.scatter.tolist()]]
        for (what, _), found in _write(out, plan, number, made).items()
    } | {"number": number})  # fmt: skip


def _noted(record: dict[str, Any]) -> Found:
    number = record.pop("number")
    return {
        (what, number): Checked("", sha256, None if m is None else Moments(m[0], *(
            torch.tensor(values, dtype=torch.float64) for values in m[1:]
        )))
        for what, (sha256, m) in record.items()
    }  # fmt: skip


def _write(out: Path, plan: Plan, number: int, made: Mapping[str, Mapping[str, Tensor]]) -> Found:
    manifest, written = plan.manifest, {}
    for what, tensors in made.items():
        moments = None
        if what != TOKENS:
            if row := first_not_finite(tensors["x"]):
                raise TrainingError(
                    f"{what} has a number that {manifest.sites[what]['dtype']} cannot hold, in document "
                    f"{int(plan.token_rows(number)['doc'][row - 1])}. Store bfloat16 or float32 rows, or leave that "
                    "document out."
                )
            moments = Moments.none(tensors["x"].shape[1]).update(tensors["x"])
        written[what, number] = Checked("", write_shard(manifest.path(out, what, number), tensors), moments)
    return written


def _begun(out: Path, manifest: Manifest) -> bool:
    """Whether this very harvest was begun in the folder; UsageError where the folder holds anything else."""
    if not (out / NAME).exists():
        if out.is_dir() and any(path.suffix != PART for path in out.iterdir()):
            raise UsageError(f"{out} holds other files and no store. Give a new folder with --out.")
        return False
    if changed := differences(read_manifest(out), manifest):
        raise UsageError(
            f"{out} holds another harvest ({'; '.join(changed)}). Give another folder with --out, or remove this one."
        )
    return True


def _kept(out: Path, manifest: Manifest, quiet: bool) -> Found:
    """Read what is there, and keep what is whole: its hashes and moments are needed at the end."""
    found: Found = {}
    total = len(manifest.folders) * len(manifest.shards)
    with Meter("checking what is there", total=total, unit="files", quiet=quiet) as meter:
        for what in manifest.folders:
            stats = read_stats(out, manifest, what)
            for number in range(len(manifest.shards)):
                checked = check_shard(out, manifest, what, number, stats)
                if not checked.fault:
                    found[what, number] = checked
                meter.advance()
    return found


def _refuse_without_room(out: Path, manifest: Manifest, missing: Mapping[int, list[str]]) -> None:
    need = sum(manifest.shards[number] * manifest.row_bytes(site) for number, what in missing.items() for site in what)
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if need > free:
        raise LensingError(
            f"{out} needs {need / 1e9:,.3g} GB and the disk has {free / 1e9:,.3g} GB left. Free some space, choose "
            "another folder with --out, or harvest fewer tokens or sites."
        )


def _sweep(out: Path, manifest: Manifest) -> None:
    for folder in (out, *(out / name for name in manifest.folders.values())):
        sweep(folder)


def _finish(out: Path, manifest: Manifest, written: Found) -> None:
    for what, name in manifest.folders.items():
        record = stats_record(manifest, what, written)
        if not agree(record, read_stats(out, manifest, what)):
            write_json(out / name / STATS, record)
