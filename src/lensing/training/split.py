"""A dictionary in training whose latents are dealt out over processes: which tensors are cut, cutting, and joining."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lensing.dist import Group, World
from lensing.errors import UsageError

WHOLE = {"b_dec", "W_skip"}  # what every process holds whole; it comes out equal on all, as its gradients do
PER_LATENT = ("weight.", "exp_avg.", "exp_avg_sq.", "average.")  # of a trainer's state; and `silence`


def check_split(config: Any, splits: bool, whole_batch: bool, batch: int, world: World) -> None:
    """Raise UsageError unless a dictionary and a batch can be dealt out over these processes."""
    tp, dp, width = world.latents.size, world.data.size, config.width
    if not splits and (tp > 1 or (dp > 1 and whole_batch)):
        raise UsageError(
            f"{config.architecture} cannot be trained by {tp * dp} processes together: it does not say that its choice "
            "of latents is right in parts (`splits` of its class). Train it in one process."
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
