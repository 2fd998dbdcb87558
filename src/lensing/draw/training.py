"""What a training cost and what came out, for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def draw_training(report: Mapping[str, Any], console: Console) -> None:
    """Draw a TrainReport: rows, time, and the numbers of the held-out text."""
    lines = {
        "rows": f"{report['tokens']:,} in {report['steps']:,} steps of {report['batch']:,}",
        "time": f"{_time(report['seconds'])}, {report['rows_per_second']:,.0f} rows/s",
        "FVU": f"{report['fvu']:.4g}",
        "L0": f"{report['l0']:.4g}",
        "dead": f"{report['dead_share']:.2%} of the latents never fire on {report['held_out_rows']:,} held-out rows",
    }
    for name, value in lines.items():
        console.print(f"{name:16}{value}")
    for name, value in _behaviour(report).items():
        console.print(f"{name:16}{value}", soft_wrap=True)


def _behaviour(report: Mapping[str, Any]) -> dict[str, str]:
    b = report["behaviour"]
    if b is None:
        return {"loss recovered": f"not measured: {report['behaviour_note'] or 'no reason was recorded'}."}
    on = f"{b['n']:,} predictions in {b['documents']:,} held-out documents"
    return {
        "loss recovered": f"{_pair(b['loss_recovered'], b['loss_recovered_se'])} against zeros, "
        f"{_pair(b['loss_recovered_mean'], b['loss_recovered_mean_se'])} against the mean",
        "loss": f"{_pair(b['delta_loss'], b['delta_loss_se'], sign='+')} nats over {b['clean']:.4f}, on {on}",
    }


def draw_sweep(report: Mapping[str, Any], console: Console) -> None:
    """Draw a SweepReport: one row a member."""
    table = Table(box=None, pad_edge=False)
    table.add_column("dictionary", overflow="fold")
    for name in ("FVU", "L0", "loss recovered", "dead", "rows/s"):
        table.add_column(name, justify="right")
    notes = set()
    for member in report["members"]:
        if member["failure"] is not None:
            table.add_row(member["name"], "failed", "", "", "", "")
            continue
        recovered, note = member["loss_recovered"], member["behaviour_note"]
        notes |= {note} if note else set()
        table.add_row(
            member["name"], f"{member['fvu']:.4f}", f"{member['l0']:.1f}",
            "not measured" if recovered is None else _pair(recovered, member["loss_recovered_se"]),
            f"{member['dead_share']:.1%}", f"{member['rows_per_second']:,.0f}",
        )  # fmt: skip
    console.print(table)
    for note in sorted(notes):
        console.print(f"Loss recovered was not measured: {note}.", soft_wrap=True)
    for member in report["members"]:
        if (failure := member["failure"]) is not None:
            console.print(f"{member['name']} failed at step {failure['step']:,}: {failure['reason']}", soft_wrap=True)
    seconds, reading = report["seconds"], report["reading_seconds"]
    console.print(f"{_time(seconds)} in all, {reading / max(seconds, 1e-9):.0%} of it waiting for rows.")


def _pair(value: float | None, se: float | None, sign: str = "") -> str:
    if value is None:
        return "undefined"
    return f"{value:{sign}.4f}" + (f" ± {se:.4f}" if se is not None else "")


def _time(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min" if whole >= 3600 else f"{whole // 60} min {whole % 60} s"
