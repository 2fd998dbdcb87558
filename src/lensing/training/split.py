"""A dictionary in training whose latents are dealt out over processes: which tensors are cut, cutting, and joining."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lensing.dictionary.base import new_dictionary
from lensing.dist import ALONE, Group, World
from lensing.errors import UsageError
from lensing.training.optim import adam

WHOLE = {"b_dec", "W_skip"}  # what every process holds whole; it comes out equal on all, as its gradients do
PER_LATENT = ("weight.", "exp_avg.", "exp_avg_sq.", "average.")  # of a trainer's state; and `silence`


def check_split(config: Any, dictionary: Any, batch: int, world: World) -> None:
    """Raise UsageError unless a dictionary and a batch can be dealt out over these processes."""
    tp, dp, width = world.latents.size, world.data.size, config.width
    if tp * dp == 1:
        return
    if not getattr(dictionary, "splits", False):
        raise UsageError(
            f"{config.architecture} cannot be trained by {tp * dp} processes together: it does not say that its choice "
            "of latents and its losses are right in parts (`splits` of its class). Train it in one process."
        )
    if dictionary.whole_batch and dictionary.b_dec.device.type != "cpu":
        raise UsageError(
            f"{config.architecture} chooses latents over the whole batch, which several processes so far do on the CPU "
            "only. Give --device cpu, or train in one process."
        )
    if getattr(config, "penalty", None) == "tanh" and config.pre_act:
        raise UsageError(
            f"The pre-activation loss of dead latents (pre_act is {config.pre_act:g}) is not split over {tp * dp} "
            "processes yet. Train in one process, or with pre_act 0."
        )
    if width % tp:
        near = [n for n in (width - width % tp, width - width % tp + tp) if n]
        fitting = [str(n) for n in range(2, tp + 1) if width % n == 0]
        other = f", or --tp {' or '.join(fitting)}" if fitting else ""
        widths = " or ".join(map(str, near))
        raise UsageError(f"A width of {width} does not divide over {tp} processes. Give --width {widths}{other}.")
    if batch < dp:
        raise UsageError(f"A batch of {batch} rows does not go round {dp} processes. Give --batch {dp} or more.")


def cut_(module: nn.Module, optimizer: torch.optim.Optimizer, width: int, latents: Group) -> None:
    """Keep of every tensor with one row a latent this process's rows: parameters, buffers and moments."""
    mine = latents.slice(width)
    for name, parameter in module.named_parameters():
        if is_cut(name, parameter, width):
            moments = optimizer.state.get(parameter, {})
            for key, tensor in moments.items():
                if is_cut(name, tensor, width):
                    moments[key] = tensor[mine].clone()
            parameter.data = parameter.data[mine].clone()
    for name, buffer in module.named_buffers():
        if is_cut(name, buffer, width):
            setattr(module, name, buffer[mine].clone())


def cut_rows(rows: int, size: int, processes: int) -> list[slice]:
    """Parts of `size` of a batch's rows; the last is longer where some process would be left without a row."""
    edges = [*range(0, rows, size), rows]
    if len(edges) > 2 and rows - edges[-2] < processes:
        del edges[-2]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def spread_(trainer: Any) -> None:
    """Deal a trainer's latents out: from here on each process holds its own.

    Machines may round differently, so all begin with what the first one has.
    """
    world, d = trainer.world, trainer.dictionary
    if world.team.size == 1:
        return
    for tensor in (*d.parameters(), *d.buffers(), trainer.scale_in, trainer.scale_out):
        world.team.copy_(tensor.detach())
    numbers = torch.tensor([trainer.variance, *trainer.penalty.state()], dtype=torch.float64)
    world.team.copy_(numbers)
    trainer.variance, *penalty = numbers.tolist()
    trainer.penalty.load_state(penalty)
    d.world, mine = world, world.latents.slice(d.d_sae)
    if world.latents.size > 1:
        for name, tensor in (trainer.average or {}).items():
            trainer.average[name] = tensor[mine].clone() if is_cut(name, tensor, d.d_sae) else tensor
        trainer.silence.rows = trainer.silence.rows[mine].clone()
        cut_(d, trainer.optimizer, d.d_sae, world.latents)


def join_(trainer: Any) -> None:
    """Give every process the whole dictionary again."""
    d, world = trainer.dictionary, trainer.world
    trainer.world = ALONE
    if world.latents.size > 1:
        whole = gather_state(trainer.state(), trainer.config.width, world.latents)
        d_out, skip = d.d_out if d.is_transcoder else None, d.W_skip is not None
        joined = new_dictionary(trainer.config, d.d_in, d_out=d_out, skip=skip, parts=d.parts)
        joined.quick = d.quick
        trainer.dictionary = joined.to(trainer.device)
        trainer.optimizer = adam(trainer.dictionary, trainer.recipe, trainer.lr)
        trainer.load_state(whole)
    trainer.dictionary.world, trainer.silence.data = ALONE, ALONE.data


def cut_keys(state: Mapping[str, Tensor], width: int) -> list[str]:
    """The names in a trainer's state of what has one row for each of `width` latents."""
    return [
        key for key, tensor in state.items()
        if key == "silence" or (key.startswith(PER_LATENT) and is_cut(key.partition(".")[2], tensor, width))
    ]  # fmt: skip


def join_parts(parts: Sequence[Mapping[str, Tensor]], cut: Sequence[Iterable[str]]) -> dict[str, Tensor]:
    """One whole state from parts in the order of their numbers; `cut` names what is put end to end, for each part."""
    found: dict[str, list[Tensor]] = {}
    for part, names in zip(parts, map(set, cut), strict=True):
        for key, tensor in part.items():
            if key not in found or key in names:
                found.setdefault(key, []).append(tensor)
    return {key: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for key, tensors in found.items()}


def gather_state(state: Mapping[str, Tensor], width: int, latents: Group) -> dict[str, Tensor]:
    """The whole of a trainer's state, on every process."""
    names = set(cut_keys(state, width // latents.size))
    return {key: torch.cat(latents.gather(t)) if key in names else t for key, t in state.items()}


def clip_(parameters: Iterable[tuple[str, nn.Parameter]], most: float, latents: Group) -> None:
    """Scale gradients so that the norm of all of them, over all processes, is at most `most`."""
    grads = [(name, p.grad) for name, p in parameters if p.grad is not None]
    squares = torch.stack([g.square().sum().double() for _, g in grads])
    split = torch.tensor([name not in WHOLE for name, _ in grads])
    total = latents.sum(squares[split].sum()) + squares[~split].sum()
    share = float((most / (total.sqrt() + 1e-6)).clamp(max=1.0))
    for _, grad in grads:
        grad.mul_(share)


def is_cut(name: str, tensor: Tensor, width: int) -> bool:
    """Whether a parameter or buffer (or its moments) has one row for each of `width` latents."""
    return name not in WHOLE and tensor.dim() > 0 and tensor.shape[0] == width
