"""Many processes: which one this is, and what it sums and gathers with the others. One process is the identity.

The only file that knows torch.distributed. Processes are found from the environment as torchrun sets it (RANK,
WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), or from a process group that is there already. They stand in a grid,
teams x data x latents, neighbours holding parts of the same latents.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

from lensing.errors import LensingError, UsageError

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)  # a process that does not answer for so long is taken for lost


class OthersGone(LensingError):
    """Another process of this run ended or does not answer."""


class Group:
    """Some of the processes: this one's `rank` among them, their `size`, and what they do together.

    Every member must make the same calls in the same order. OthersGone when another member is.
    """

    def __init__(self, ranks: Sequence[int] = (0,), rank: int = 0, handle: Any = None) -> None:
        self.ranks, self.rank, self.size, self._handle = tuple(ranks), rank, len(ranks), handle

    def slice(self, n: int | slice) -> slice:
        """This member's share of n things, or of those of a slice: neighbours, as equally many as can be."""
        start, stop = (0, n) if isinstance(n, int) else (n.start, n.stop)
        edge = [start + (stop - start) * rank // self.size for rank in (self.rank, self.rank + 1)]
        return slice(*edge)

    def sum_(self, *tensors: Tensor) -> None:
        """Make each tensor the sum of the members'."""
        if self.size > 1:
            with _others():
                for work in [dist.all_reduce(tensor, group=self._handle, async_op=True) for tensor in tensors]:
                    work.wait()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the members' tensors, without a gradient."""
        if self.size == 1:
            return tensor
        found = tensor.detach().clone(memory_format=torch.contiguous_format)
        self.sum_(found)
        return found

    def total(self, n: int) -> int:
        """The sum of the members' whole numbers."""
        return n if self.size == 1 else int(self.sum(torch.tensor(n)))

    def largest(self, numbers: Sequence[float]) -> list[float]:
        """The largest of the members' numbers, place by place."""
        if self.size == 1:
            return list(numbers)
        found = torch.tensor(numbers, dtype=torch.float64)
        with _others():
            dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self._handle)
        return found.tolist()

    def wait(self) -> None:
        """Return when every member is here."""
        self.largest([0.0])

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The members' tensors in the order of their ranks; they may differ in length."""
        if self.size == 1:
            return [tensor]
        length = torch.zeros(self.size, dtype=torch.int64, device=tensor.device)
        length[self.rank] = len(tensor)
        self.sum_(length)
        longest = int(length.max())
        mine = tensor.detach().new_zeros(longest, *tensor.shape[1:])
        mine[: len(tensor)] = tensor.detach()
        found = [torch.empty_like(mine) for _ in range(self.size)]
        with _others():
            dist.all_gather(found, mine, group=self._handle)
        return [part[:n] for part, n in zip(found, length.tolist(), strict=True)]

    def copy_(self, tensor: Tensor) -> None:
        """Make the tensor what it is on the first member."""
        if self.size > 1:
            with _others():
                dist.broadcast(tensor, self.ranks[0], group=self._handle)

    def share(self, call: Callable[[], T]) -> T:
        """Let the first member alone call, and return its result on all of them; its LensingError is raised on all."""
        if self.size == 1:
            return call()
        found: list[Any] = [None, None]
        if self.rank == 0:
            try:
                found[0] = call()
            except LensingError as error:
                found[1] = (type(error), str(error))
        with _others():
            dist.broadcast_object_list(found, self.ranks[0], group=self._handle)
        if found[1] is not None:
            kind, text = found[1]
            error = kind.__new__(kind)  # some kinds make their text from other arguments
            error.args = (text,)
            raise error
        return found[0]

    def collect(self, thing: T) -> list[T]:
        """The members' things, any plain Python values, in the order of their ranks."""
        found: list[Any] = [thing] * self.size
        if self.size > 1:
            with _others():
                dist.all_gather_object(found, thing, group=self._handle)
        return found

    def enter(self, x: Tensor) -> Tensor:
        """x itself, where members go on with different latents: the gradient is the sum of theirs."""
        return x if self.size == 1 else _Enter.apply(x, self)

    def leave(self, x: Tensor, share: float = 1.0) -> Tensor:
        """The sum over members of `share` times x; the gradient goes to x as it comes."""
        return x if self.size == 1 else _Leave.apply(x, share, self)


class _Enter(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.group.sum(grads[0]), None


class _Leave(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, share: float, group: Group) -> Tensor:
        return group.sum(x * share)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None, None


@dataclass(frozen=True)
class World:
    """All processes, and this one's place: `everyone`; `team`, who train the same dictionaries; of these `data`, who
    hold the same latents and read other rows, and `latents`, who read the same rows and hold other latents."""

    everyone: Group
    team: Group
    data: Group
    latents: Group
    number: int = 0
    """The team's."""
    teams: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the first of all: it alone writes what is written once, and prints."""
        return self.everyone.rank == 0

    @property
    def parts(self) -> int:
        """How many processes hold something that no other holds."""
        return self.teams * self.latents.size

    @property
    def part(self) -> int:
        """Which of these parts this process holds."""
        return self.number * self.latents.size + self.latents.rank


ALONE = World(Group(), Group(), Group(), Group())


def join_world(*, tp: int = 1, teams: int = 1) -> World:
    """The processes of this run, `tp` for the latents of a dictionary, `teams` for different dictionaries.

    Raises: UsageError: the number of processes is no multiple of tp times teams.
    """
    size = dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))
    if tp < 1 or teams < 1 or size % (tp * teams):
        many = f"{tp} for the latents (--tp) times {teams} teams"
        raise UsageError(
            f"{size} process{'es' * (size > 1)} cannot be dealt out as {many}. "
            f"Start a multiple of {max(tp, 1) * max(teams, 1)}: torchrun --nproc-per-node N -m lensing ..."
        )
    return ALONE if size == 1 else _world(size, tp, teams)


def refuse_many(what: str) -> None:
    """Raise UsageError where torchrun started several processes for what one process does."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        raise UsageError(f"{what} runs in one process, and {size} were started. Start it without torchrun.")


@functools.cache
def _world(size: int, tp: int, teams: int) -> World:
    with _others():
        if not dist.is_initialized():
            has_gpu = torch.cuda.is_available()
            if has_gpu:
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
            # numbers that decide what is done next are exchanged by gloo, tensors on a GPU by nccl
            dist.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo", timeout=TIMEOUT)
            atexit.register(_part)
        rank, per_team = dist.get_rank(), size // teams
        grid = torch.arange(size).view(teams, per_team // tp, tp)
        team, latents = grid.flatten(1).tolist(), grid.flatten(0, 1).tolist()
        data = grid.transpose(1, 2).flatten(0, 1).tolist()
        everyone = Group(range(size), rank, dist.group.WORLD)
        return World(
            everyone, *(_group(sets, rank) for sets in (team, data, latents)), number=rank // per_team, teams=teams
        )


def _group(sets: list[list[int]], rank: int) -> Group:
    # every process must make every group, also those that it is not in
    handles = [dist.new_group(ranks) if len(ranks) > 1 else None for ranks in sets]
    i = next(i for i, ranks in enumerate(sets) if rank in ranks)
    return Group(sets[i], sets[i].index(rank), handles[i])


def _part() -> None:
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


@contextlib.contextmanager
def _others() -> Iterator[None]:
    """Say in a sentence that another process is gone: its end closes what it is connected by."""
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OthersGone(
            f"Another process of this run stopped or does not answer ({reason[:160]}). Its own message says why; "
            "run the same command again to continue."
        ) from error
