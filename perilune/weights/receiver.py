"""The receiving side of the weight stream: verified versions, from any server of them, for as long as the run lives.

consumes       frames, from the first of several addresses that answers: a relay, those above it, the trainer
produces       versions that arrived whole and have their digests
unblocked by   a publication; where one is known of and nothing comes, the next address is tried
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import grpc

from perilune.api.trajectory.v1.trajectory_pb2 import Dtype, PolicyVersion
from perilune.api.weights.v1.weights_pb2 import Commit, Manifest, SubscribeRequest
from perilune.channel import open_channel
from perilune.errors import WeightStreamError
from perilune.weights.frames import Stage, read_frame
from perilune.weights.server import SERVICE, Payload, Stream
from perilune.weights.tensors import RawTensor, State

logger = logging.getLogger(__name__)

FIRST_RETRY_S, LAST_RETRY_S = 0.2, 10.0
STALL_S = 10.0  # without a frame, where one is due
STAND_IN_S = 60.0  # after so long with another address than the first, the first is tried again

Call = grpc.aio.UnaryStreamCall[SubscribeRequest, bytes]


@dataclass(frozen=True)
class StagedVersion:
    """A version that arrived whole and has its digests."""

    manifest: Manifest
    tensors: Sequence[RawTensor]
    model_files: Mapping[str, bytes]  # the small files of a Hugging Face model folder, by name


class _Moved(Exception):
    """The receiver was given another address, and stands between two versions."""


class Receiver:
    """One run's versions. What it holds is the base of the next delta, and what a relay serves on."""

    def __init__(
        self, run_id: str, worker_id: str, adapter: str = "", relay: Stream | None = None, rank: int = 0
    ) -> None:
        self.state: State | None = None
        self.source = ""  # the address that served last
        self.num_received_bytes = 0
        self._sequence = 0
        self._model_files: Mapping[str, bytes] = {}
        self._request = SubscribeRequest(run_id=run_id, worker_id=worker_id, adapter=adapter, rank=rank)
        self._relay = relay
        self._addresses: tuple[str, ...] = ()
        self._address = ""  # the one that is asked
        self._has_moved = False  # since then
        self._news = asyncio.Event()  # addresses are known
        self._is_due = False
        self._idle: asyncio.Timeout | None = None  # while the next version is awaited

    @property
    def held(self) -> StagedVersion | None:
        """The version that came last."""
        return StagedVersion(self.state.manifest, self.state.tensors, self._model_files) if self.state else None

    def move(self, addresses: Sequence[str]) -> None:
        """Sets the sources: the nearest first, then those above it, the trainer last. A version on its way may end."""
        known = tuple(address for address in addresses if address)
        self._has_moved = self._has_moved or (known != self._addresses and known[:1] != (self._address,))
        self._addresses = known
        if known:
            self._news.set()
        else:
            self._news.clear()
        if known and self._has_moved:
            self._wake_after(0)

    def expect(self, version: PolicyVersion) -> None:
        """A version was published: if nothing comes within STALL_S from where it is awaited, another is asked."""
        if self.state is None or version.number > self.state.version.number:
            self._is_due = True
            self._wake_after(STALL_S)

    async def versions(self) -> AsyncGenerator[StagedVersion]:
        """Every version that comes; connects again, with backoff, for ever.

        A version that is corrupt, old, or another model's is dropped, and asked for again.
        """
        retry_s, at, last_problem = FIRST_RETRY_S, 0, ""
        while True:
            await self._news.wait()
            self._address, self._has_moved = self._addresses[min(at, len(self._addresses) - 1)], False
            is_stand_in, since = at > 0, time.monotonic()
            try:
                async with open_channel(self._address) as channel, aclosing(self._subscribed(channel)) as versions:
                    async for version in versions:
                        self.source, retry_s, last_problem = self._address, FIRST_RETRY_S, ""
                        yield version
                        if is_stand_in and time.monotonic() - since > STAND_IN_S:
                            raise _Moved
                problem = "the stream ended"
            except _Moved:
                at = 0
                continue
            except grpc.aio.AioRpcError as error:
                problem = f"{error.code().name}: {error.details()}"
            except WeightStreamError as error:
                problem = f"a version was dropped: {error}"
            except TimeoutError:
                problem = f"nothing came for {STALL_S:.0f} s, where something is due"
            if problem != last_problem:
                logger.warning("weights of %s from %s: %s; asking again", self._request.run_id, self._address, problem)
            last_problem, at = problem, at + 1
            if at >= len(self._addresses):
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))
                retry_s, at = min(2 * retry_s, LAST_RETRY_S), 0

    def _wake_after(self, seconds: float) -> None:
        """Ends the wait for the next version, if there is one, unless it ends before."""
        if self._idle and not self._idle.expired():
            soon = asyncio.get_running_loop().time() + seconds
            self._idle.reschedule(min(soon, self._idle.when() or soon))

    async def _subscribed(self, channel: grpc.aio.Channel) -> AsyncGenerator[StagedVersion]:
        """The versions of one call, chains as their last one. Raises what `_receive` does."""
        request = SubscribeRequest()
        request.CopyFrom(self._request)
        if self.state:
            request.have.CopyFrom(self.state.version)
            request.have_sequence = self._sequence
        subscribe: grpc.aio.UnaryStreamMultiCallable[SubscribeRequest, bytes] = channel.unary_stream(
            f"/{SERVICE.full_name}/Subscribe",
            request_serializer=SubscribeRequest.SerializeToString,
            response_deserializer=None,
        )
        call = subscribe(request)
        try:
            manifest = await self._next_manifest(call)
            while manifest is not None:
                received = await self._receive(manifest, call)
                if isinstance(received, StagedVersion):
                    self._is_due = False
                    if not received.manifest.more_follows:
                        yield received
                    manifest = await self._next_manifest(call)
                else:
                    manifest = received
        finally:
            call.cancel()

    async def _receive(self, manifest: Manifest, call: Call) -> StagedVersion | Manifest:
        """The version that a manifest opened; or another manifest, that came in place of the rest of it.

        Raises:
            WeightStreamError: frames out of order, bytes without their digest, an old version or another model's.
            TimeoutError: the rest does not come.
            grpc.aio.AioRpcError: the call broke.
        """
        self._check_follows(manifest)
        stage = Stage(manifest, self.state)
        payload = self._relay.begin(manifest) if self._relay else Payload(None)
        state = None
        try:
            while True:
                raw = await self._next_frame(call)
                if raw is None:
                    raise WeightStreamError(f"the stream ended within version {manifest.version.number}")
                frame = read_frame(raw)
                if isinstance(frame, Manifest):
                    return frame
                if isinstance(frame, Commit):
                    state = await asyncio.to_thread(stage.finish, frame)
                    self._hold(manifest, payload, state)
                    return StagedVersion(manifest, state.tensors, self._model_files)
                if self._relay:  # first: those below wait for it
                    payload.add(raw)
                stage.add(frame)
        finally:
            if state is None and self._relay:
                self._relay.failed(payload)

    def _hold(self, manifest: Manifest, payload: Payload, state: State) -> None:
        self.state, self._sequence = state, max(self._sequence, manifest.sequence)
        if self._relay:
            self._relay.arrived(manifest, payload, state)

    def _check_follows(self, manifest: Manifest) -> None:
        number = manifest.version.number
        if manifest.sequence < self._sequence:
            raise WeightStreamError(
                f"version {number} was published before the version that is here: someone replays an old stream"
            )
        if self.state is None or self.state.manifest.shard.num_ranks != manifest.shard.num_ranks:
            return  # a trainer of another number of ranks cuts the tensors elsewhere
        ours, theirs = (_kinds(each) for each in (self.state.manifest, manifest))
        if ours != theirs:
            lacks, has = (", ".join(sorted(only)[:3]) or "nothing" for only in (ours - theirs, theirs - ours))
            raise WeightStreamError(
                f"version {number} is of another architecture than the model that is served: of that it lacks {lacks}; "
                f"instead it has {has}"
            )

    async def _next_manifest(self, call: Call) -> Manifest | None:
        """None at the end of the stream. TimeoutError, _Moved."""
        if self._has_moved:
            raise _Moved
        try:
            async with asyncio.timeout(STALL_S if self._is_due else None) as self._idle:
                raw = await call.read()
        except TimeoutError:
            if self._has_moved:
                raise _Moved from None
            self._is_due = False  # asked once: while an older version is held up on purpose, it may never come
            raise
        finally:
            self._idle = None
        frame = self._counted(raw)
        if frame is None:
            return None
        manifest = read_frame(frame)
        if not isinstance(manifest, Manifest):
            raise WeightStreamError(f"a {type(manifest).__name__.lower()} came before a manifest")
        if manifest.model_files:
            self._model_files = dict(manifest.model_files)
        return manifest

    async def _next_frame(self, call: Call) -> bytes | None:
        """Within a version; None at the end of the stream. TimeoutError if the rest does not come."""
        async with asyncio.timeout(STALL_S):
            return self._counted(await call.read())

    def _counted(self, raw: object) -> bytes | None:
        if not isinstance(raw, bytes):  # grpc's mark of the end
            return None
        self.num_received_bytes += len(raw)
        return raw


def _kinds(manifest: Manifest) -> set[str]:
    return {f"{info.name} {tuple(info.shape)} {Dtype.Name(info.dtype)}" for info in manifest.tensors}
