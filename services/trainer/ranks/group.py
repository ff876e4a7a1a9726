"""The processes of one trainer, as torchrun starts them: the first one leads, the others do what it orders.

The first rank is the trainer service: it has the lease, asks for batches, commits and writes checkpoints. What all must
do together are methods of the session, which every rank has one of; called on the first rank, such a method is ordered
of the others too. torch's collectives do the rest.

consumes       RANK, WORLD_SIZE and the like, which torchrun sets
produces       orders, from the first rank to all others
waits for      on a follower: the next order, for as long as it takes the fleet to sample
unblocked by   the first rank; if that is gone, the broken connection
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

import torch
import torch.distributed as dist

from perilune.errors import UnavailableError
from perilune.models.device import CPU, Device

# In the midst of a step, for a rank that has stopped without having ended.
COLLECTIVE_TIMEOUT = timedelta(minutes=10)
# Orders come when the master has a batch, which may be tomorrow. A rank that ends breaks its connections, and those are
# what a waiting rank notices; no time would tell more.
ORDER_TIMEOUT = timedelta(days=365)

T = TypeVar("T")
P = ParamSpec("P")


class RankLostError(UnavailableError):
    """Another rank has gone, or this one cannot go on with it. All of them must restart, which torchrun sees to."""


class Order(NamedTuple):
    """A method that the other ranks are to run."""

    name: str
    arguments: tuple[Any, ...]


END = "end"


class Ranks:
    """This process among those that train together. One alone needs no process group, and sends no orders."""

    def __init__(
        self, rank: int = 0, size: int = 1, control: dist.ProcessGroup | None = None, device: Device = CPU
    ) -> None:
        """`control`: a group of all ranks on CPUs, for orders and what goes with them. `device`: of this one."""
        self.rank, self.size, self.device = rank, size, device
        self._control = control

    @staticmethod
    def of_environment(device: Device = CPU) -> Ranks:
        """Joins those that torchrun started with this process; returns when all are there. One without torchrun."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return Ranks(device=device)
        backend = "gloo"
        if device.card:
            torch.cuda.set_device(device.card.index)
            backend = "cpu:gloo,cuda:nccl"
        with _naming_loss():
            dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
            control = dist.new_group(backend="gloo", timeout=ORDER_TIMEOUT)
        return Ranks(dist.get_rank(), dist.get_world_size(), control, device)

    @property
    def leads(self) -> bool:
        """Tests whether this is the first rank."""
        return self.rank == 0

    def order(self, name: str, *arguments: Any) -> None:
        """Has the others do something, in the order of calls; without effect on them. RankLostError."""
        if self.leads and self.size > 1:
            self._broadcast(Order(name, arguments))

    def next_order(self) -> Order:
        """On a follower, waits for it. RankLostError if the first rank is gone."""
        return self._broadcast(None)

    def decide(self, answer: bool) -> bool:
        """The first rank's answer, on all ranks."""
        return self._broadcast(answer if self.leads else None) if self.size > 1 else answer

    def gathered(self, value: T) -> list[T]:
        """Every rank's value, on all ranks, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _naming_loss():
            dist.all_gather_object(values, value, group=self._control)
        return values

    def share(self, items: list[T]) -> list[T]:
        """This rank's items of those that all ranks have: they go round."""
        return items[self.rank :: self.size]

    def _broadcast(self, value: Any) -> Any:
        values = [value]
        with _naming_loss():
            dist.broadcast_object_list(values, src=0, group=self._control)
        return values[0]


class Ranked(Protocol):
    """An object that every rank has one of."""

    @property
    def ranks(self) -> Ranks:
        """The ranks that run the methods of `by_all_ranks` together."""


R = TypeVar("R", bound=Ranked)


def by_all_ranks(method: Callable[Concatenate[R, P], T]) -> Callable[Concatenate[R, P], T]:
    """A method that ranks run together: on the first one a call is an order to the others."""

    @functools.wraps(method)
    def ordered(self: R, /, *arguments: P.args, **keywords: P.kwargs) -> T:
        self.ranks.order(method.__name__, *arguments)
        with _naming_loss() if self.ranks.size > 1 else contextlib.nullcontext():
            return method(self, *arguments, **keywords)

    return ordered


@contextlib.contextmanager
def _naming_loss() -> Iterator[None]:
    """torch has no exception of its own for a rank that is gone: Gloo's and NCCL's are these two."""
    try:
        yield
    except RuntimeError as error:
        if type(error) is not RuntimeError and not isinstance(error, dist.DistError):
            raise
        raise RankLostError(
            f"rank {os.environ.get('RANK', '0')} cannot go on with the other ranks of this trainer, which must all "
            f"restart; the first of them to end is the one that broke: {error}"
        ) from error
