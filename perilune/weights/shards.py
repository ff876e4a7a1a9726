"""The parts of a trainer of several ranks, and whatever layout a receiver wants of them.

Each rank streams its own parts (FSDP: a slice of every tensor; pipeline stages: some tensors). All parts of a version
carry one digest, of all ranks' parts together, so parts of two versions cannot be mixed. A receiver puts together what
its own layout needs: the whole tensor, or the region that its tensor-parallel rank holds.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.api.weights.v1.weights_pb2 import Manifest, TensorInfo
from perilune.dtypes import ITEM_TYPES
from perilune.errors import WeightStreamError
from perilune.weights.receiver import Receiver, StagedVersion
from perilune.weights.tensors import RawTensor, State, manifest_of, state_digest


@dataclass(frozen=True)
class Part:
    """The part of a tensor that one rank holds."""

    tensor: RawTensor
    whole_shape: tuple[int, ...]
    start: tuple[int, ...]  # the index of its first element in the whole


def part_state(number: int, rank: int, num_ranks: int, parts: Sequence[Part]) -> State:
    """One rank's parts, still without the digest of all: exchange the manifests among the ranks, then `seal`."""
    tensors = [part.tensor for part in parts]
    manifest = manifest_of(number, tensors)
    for info, part in zip(manifest.tensors, parts, strict=True):
        info.whole_shape[:] = part.whole_shape
        info.start[:] = part.start
    manifest.shard.rank, manifest.shard.num_ranks = rank, num_ranks
    manifest.shard.digest = state_digest(manifest.tensors)
    manifest.version.digest = ""
    return State(manifest, tensors)


def seal(state: State, manifests: Iterable[Manifest]) -> State:
    """One rank's parts with the digest of all ranks' parts. `manifests`: of all ranks, this one's too, in any order."""
    manifest = Manifest()
    manifest.CopyFrom(state.manifest)
    manifest.version.digest = _digest_of_all(manifests)
    return State(manifest, state.tensors)


def assemble(states: Sequence[State]) -> State:
    """The whole tensors of a version, from all ranks' verified parts.

    WeightStreamError if they are not all parts of one version, or leave a gap.
    """
    _check_complete(states)
    wholes: dict[str, TensorInfo] = {}
    for state in states:
        for info in state.manifest.tensors:
            wholes.setdefault(info.name, info)
    tensors = [region(states, name, (0,) * len(info.whole_shape), info.whole_shape) for name, info in wholes.items()]
    manifest = manifest_of(states[0].version.number, tensors)
    manifest.version.CopyFrom(states[0].version)  # the trainer knows the version by its parts' digest
    return State(manifest, tensors)


def region(states: Sequence[State], name: str, start: Sequence[int], shape: Sequence[int]) -> RawTensor:
    """A box of a tensor, put together from the parts that reach into it.

    Args:
        states: of any ranks; parts outside the box are not looked at.
        name: of the tensor.
        start: the index of the box's first element in the whole tensor.
        shape: of the box.

    Raises:
        WeightStreamError: no rank has such a tensor, or its parts do not cover the box exactly once.
    """
    box: NDArray | None = None
    dtype, num_filled = None, 0
    for state in states:
        for info, raw in zip(state.manifest.tensors, state.tensors, strict=True):
            if info.name != name:
                continue
            kind = f"<u{ITEM_TYPES[info.dtype].num_bytes}"
            if box is None:
                box, dtype = np.empty(tuple(shape), kind), info.dtype
            lows = [max(pair) for pair in zip(start, info.start, strict=True)]
            highs = [min(pair) for pair in zip(_ends(start, shape), _ends(info.start, info.shape), strict=True)]
            if info.dtype != dtype or any(high <= low for low, high in zip(lows, highs, strict=True)):
                continue
            part = np.frombuffer(raw.data, kind).reshape(tuple(info.shape))
            box[_slices(lows, highs, start)] = part[_slices(lows, highs, info.start)]
            num_filled += math.prod(high - low for low, high in zip(lows, highs, strict=True))
    if box is None or dtype is None:
        raise WeightStreamError(f"no rank has the tensor {name}")
    if num_filled != box.size:
        raise WeightStreamError(f"the ranks' parts of tensor {name} fill {num_filled} of {box.size} elements")
    return RawTensor(name, dtype, tuple(shape), box.reshape(-1).view(np.uint8).data)


class ShardedReceiver:
    """A `Receiver` for a trainer of any number of ranks, which may change when it starts again."""

    def __init__(self, receiver_of: Callable[[int], Receiver]) -> None:
        """`receiver_of`: makes the receiver of a rank's part, or of the whole where rank 0 is the only one."""
        self._receiver_of = receiver_of
        self._receivers = [receiver_of(0)]
        self._changed = asyncio.Event()

    @property
    def source(self) -> str:
        """The first rank's source, `host:port`."""
        return self._receivers[0].source

    def move(self, addresses: Sequence[str], rank_addresses: Sequence[str] = ()) -> None:
        """Sets the sources, as `Receiver.move`; `rank_addresses`: of all the trainer's ranks, if several."""
        num_ranks = max(1, len(rank_addresses))
        if num_ranks != len(self._receivers):
            more = map(self._receiver_of, range(len(self._receivers), num_ranks))
            self._receivers = [*self._receivers[:num_ranks], *more]
            self._changed.set()
        for rank, receiver in enumerate(self._receivers):
            receiver.move(rank_sources(addresses, rank_addresses, rank))

    def expect(self, version: PolicyVersion) -> None:
        """Waits for this version in every rank's stream."""
        for receiver in self._receivers:
            receiver.expect(version)

    async def versions(self) -> AsyncGenerator[StagedVersion]:
        """Every whole version that comes, for ever."""
        while True:
            self._changed.clear()
            async with aclosing(assembled_versions(self._receivers, self._changed)) as versions:
                async for version in versions:
                    yield version


def rank_sources(addresses: Sequence[str], rank_addresses: Sequence[str], rank: int) -> list[str]:
    """Addresses of a rank's part, from those of the run: the same, but for the trainer, which is the last.

    >>> rank_sources(["relay", "trainer"], ["trainer", "trainer-1"], 1)
    ['relay', 'trainer-1']
    """
    return [*addresses[:-1], rank_addresses[rank]] if rank_addresses else list(addresses)


async def assembled_versions(
    receivers: Sequence[Receiver], until: asyncio.Event | None = None
) -> AsyncGenerator[StagedVersion]:
    """Whole versions, from one receiver a rank: each that all ranks' parts have arrived of.

    A version that some rank skipped, because this receiver was slow, is skipped; so is one of a trainer with another
    number of ranks. What the receivers have already counts too. Ends when `until` is set.
    """
    arrived: asyncio.Queue[None] = asyncio.Queue()
    newest = [receiver.held for receiver in receivers]
    arrived.put_nowait(None)

    async def follow(rank: int) -> None:
        async with aclosing(receivers[rank].versions()) as versions:
            async for version in versions:
                newest[rank] = version
                arrived.put_nowait(None)

    following = [asyncio.create_task(follow(rank)) for rank in range(len(receivers))]
    ending = asyncio.create_task((until or asyncio.Event()).wait())
    for task in (*following, ending):
        task.add_done_callback(lambda _: arrived.put_nowait(None))
    try:
        while True:
            await arrived.get()
            if ending.done():
                return
            for task in following:
                if task.done():
                    task.result()  # a receiver goes on for ever, unless it is broken
            staged = [version for version in newest if version is not None and _is_of(version, len(receivers))]
            if len(staged) < len(receivers) or len({_key(version.manifest) for version in staged}) > 1:
                continue
            newest = [None] * len(receivers)
            if not staged[0].manifest.HasField("shard"):
                yield staged[0]
                continue
            whole = await asyncio.to_thread(assemble, [State(each.manifest, each.tensors) for each in staged])
            yield StagedVersion(whole.manifest, whole.tensors, staged[0].model_files)
    finally:
        for task in (*following, ending):
            task.cancel()
        await asyncio.gather(*following, ending, return_exceptions=True)


def _is_of(version: StagedVersion, num_ranks: int) -> bool:
    return max(1, version.manifest.shard.num_ranks) == num_ranks


def _key(manifest: Manifest) -> tuple[int, str]:
    return manifest.version.number, manifest.version.digest


def _ends(start: Sequence[int], shape: Sequence[int]) -> list[int]:
    return [low + size for low, size in zip(start, shape, strict=True)]


def _slices(lows: Sequence[int], highs: Sequence[int], start: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(low - at, high - at) for low, high, at in zip(lows, highs, start, strict=True))


def _check_complete(states: Sequence[State]) -> None:
    manifests = [state.manifest for state in states]
    ranks = sorted(manifest.shard.rank for manifest in manifests)
    if not manifests or any(manifest.shard.num_ranks != len(manifests) for manifest in manifests):
        raise WeightStreamError(f"parts of {len(manifests)} ranks are here, which is not all")
    if ranks != list(range(len(manifests))):
        raise WeightStreamError(f"parts of the ranks {ranks} are here: one of them twice")
    if len({_key(manifest) for manifest in manifests}) > 1:
        raise WeightStreamError("parts of several versions are here; a version is one trainer's, whole")
    if _digest_of_all(manifests) != manifests[0].version.digest:
        raise WeightStreamError(f"the parts of version {manifests[0].version.number} are not what its digest says")


def _digest_of_all(manifests: Iterable[Manifest]) -> str:
    return state_digest(info for manifest in manifests for info in manifest.tensors)
