"""The serving side of the weight stream: a run's newest version to every subscriber, from the trainer or a relay.

    version ─▶ Stream ─▶ plan: whole │ one delta │ a chain of deltas │ what is just arriving ─▶ frames to a subscriber

A payload's frames are made once and sent to all. Nothing is queued for anyone: a subscriber is sent what is newest when
it is ready for more, so a slow one skips versions. A version that was overtaken while it is being sent may end, but of
such at most MAX_OVERTAKEN stay in memory; a subscriber of any other starts again with the newest.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.api.weights.v1 import weights_pb2
from perilune.api.weights.v1.weights_pb2 import Manifest, SubscribeRequest
from perilune.errors import NotFoundError
from perilune.runtime.service import rpc_errors
from perilune.runtime.telemetry import meter
from perilune.weights.choice import Measured
from perilune.weights.delta import Delta
from perilune.weights.frames import chunk_frame, commit_frame, manifest_frame, pieces
from perilune.weights.tensors import State, payload_bytes_of

SERVICE = weights_pb2.DESCRIPTOR.services_by_name["WeightService"]
MAX_OVERTAKEN = 2

sent_bytes = meter.create_counter("perilune.weights.sent", "By", "Bytes of weight versions sent")


class Payload:
    """The chunks of one version as frames, for any number of subscribers at once. They may still be arriving."""

    def __init__(self, parts: list[tuple[int, memoryview]] | None) -> None:
        """`parts`: the pieces that frames are made of when they are first asked for; None if frames arrive."""
        self._parts = parts
        self._frames: dict[int, bytes] = {}
        self._complete = parts is not None
        self._news = asyncio.Event()
        self.num_sending = 0
        self.given_up = False

    def add(self, frame: bytes) -> None:
        """A frame that arrived."""
        self._frames[len(self._frames)] = frame
        self._tell()

    def complete(self) -> None:
        """Marks the payload as complete and wakes its readers."""
        self._complete = True
        self._tell()

    def give_up(self) -> None:
        """Ends the frames: subscribers of this payload start again with another."""
        self.given_up = True
        self._tell()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Holds the payload for a subscriber, from before its first frame on."""
        self.num_sending += 1
        try:
            yield
        finally:
            self.num_sending -= 1
            if not self.num_sending and self._parts is not None:
                self._frames.clear()  # made again for the next one who asks

    async def frames(self) -> AsyncGenerator[bytes]:
        """All frames in order; ends early if the payload is given up."""
        at = 0
        while not self.given_up:
            frame = self._frame(at)
            if frame is not None:
                yield frame
                at += 1
            elif self._complete:
                return
            else:
                await self._news.wait()

    def _frame(self, at: int) -> bytes | None:
        """The frame of that number; None if it is not there yet, or there is none. One is kept for others only."""
        frame = self._frames.get(at)
        if frame is None and self._parts is not None and at < len(self._parts):
            frame = chunk_frame(*self._parts[at])
            if self.num_sending > 1:
                self._frames[at] = frame
        return frame

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


@dataclass(frozen=True, eq=False)
class Offer:
    """A version as it may be sent: whole if the manifest has no base."""

    manifest: Manifest
    payload: Payload

    @property
    def num_bytes(self) -> int:
        """The size of the offer's payload."""
        return payload_bytes_of(self.manifest)


@dataclass
class Subscriber:
    """The version that a subscriber has; it changes as versions are sent."""

    have: PolicyVersion | None
    sequence: int

    def lacks(self, version: PolicyVersion, sequence: int) -> bool:
        """True if the subscriber needs this version: another than it has, and later than what it was sent."""
        return version != self.have and (self.have is None or sequence > self.sequence)


class Stream:
    """The versions of one policy that are served here. Belongs to the event loop's thread."""

    def __init__(self, leads: bool) -> None:
        """`leads`: versions are published here, and not relayed from elsewhere."""
        self._leads = leads
        self._model_files: Mapping[str, bytes] = {}
        self._sequence = 0
        self._whole: Offer | None = None
        self._links: deque[Offer] = deque()  # deltas, each from the one before, the last one to the newest version
        self._arriving: Offer | None = None
        self._overtaken: list[Payload] = []
        self._changed = asyncio.Event()
        self._closed = False
        self.num_sent_bytes = 0
        self.measured = Measured()

    @property
    def version(self) -> PolicyVersion | None:
        """The newest one that is all here."""
        return self._whole.manifest.version if self._whole else None

    def publish(self, state: State, delta: Delta | None, model_files: Mapping[str, bytes]) -> None:
        """Makes a version the newest one. A delta is of use if its base was the newest until now."""
        self._model_files = model_files
        link = Offer(delta.manifest, Payload(pieces([delta.payload]))) if delta else None
        # Time makes it higher than all that the trainer before this one published.
        self._take(state, link, max(self._sequence + 1, time.time_ns()))

    def begin(self, manifest: Manifest) -> Payload:
        """A version begins to arrive; its frames are to be added to the payload, and go on to others at once."""
        if manifest.model_files:
            self._model_files = dict(manifest.model_files)
        bare = Manifest()
        bare.CopyFrom(manifest)
        bare.ClearField("model_files")
        offer = Offer(bare, Payload(None))
        if not manifest.more_follows:  # the links of a chain serve only those who lack the same ones
            self._arriving = offer
            self._tell()
        return offer.payload

    def arrived(self, manifest: Manifest, payload: Payload, state: State) -> None:
        """The version that began to arrive is all here and verified."""
        payload.complete()
        self._arriving = None
        link = Offer(manifest, payload) if manifest.HasField("base") else None
        self._take(state, link, max(self._sequence, manifest.sequence))

    def failed(self, payload: Payload) -> None:
        """Gives up the version that began to arrive: it broke off, or failed its check."""
        payload.give_up()
        self._arriving = None

    def close(self) -> None:
        """Ends every subscriber's stream."""
        self._closed = True
        offers = [*self._links, *([self._whole] if self._whole else []), *([self._arriving] if self._arriving else [])]
        for payload in [*(offer.payload for offer in offers), *self._overtaken]:
            payload.give_up()
        self._tell()

    async def send(self, subscriber: Subscriber) -> AsyncGenerator[bytes]:
        """Frames for one subscriber, until the stream is closed."""
        while not self._closed:
            changed = self._changed
            with ExitStack() as held:
                offers = self._plan(subscriber)
                for offer in offers:
                    held.enter_context(offer.payload.sending())
                for offer in offers:
                    head = self._head(offer, subscriber, is_last=offer is offers[-1])
                    started = time.perf_counter()
                    yield self._counted(manifest_frame(head))
                    async with aclosing(offer.payload.frames()) as frames:
                        async for frame in frames:
                            yield self._counted(frame)
                    if offer.payload.given_up:
                        break
                    yield self._counted(commit_frame(head.version))
                    self.measured.sent(offer.num_bytes, time.perf_counter() - started)
                    subscriber.have, subscriber.sequence = head.version, head.sequence
            if not offers:
                await changed.wait()

    def _plan(self, subscriber: Subscriber) -> list[Offer]:
        """Plans the next offers, in order; the last one is the newest version that the subscriber can be brought to."""
        arriving = self._arriving
        if arriving and subscriber.lacks(arriving.manifest.version, arriving.manifest.sequence):
            base = arriving.manifest.base if arriving.manifest.HasField("base") else None
            if base is None or base == subscriber.have:
                return [arriving]
        whole = self._whole
        if whole is None or whole.manifest.version == subscriber.have:
            return []
        if self._leads:  # what is published here is the truth, whatever the subscriber was sent before
            self._sequence = max(self._sequence, subscriber.sequence + 1)
        if not subscriber.lacks(whole.manifest.version, self._sequence):
            return []
        bases = [link.manifest.base for link in self._links]
        chain = list(self._links)[bases.index(subscriber.have) :] if subscriber.have in bases else []
        pays = chain and sum(link.num_bytes for link in chain) < whole.num_bytes
        return chain if pays else [whole]

    def _head(self, offer: Offer, subscriber: Subscriber, is_last: bool) -> Manifest:
        head = Manifest()
        head.CopyFrom(offer.manifest)
        if offer is not self._arriving:
            # Half a chain is no publication: a subscriber that breaks off there must still be offered the newest.
            head.sequence = self._sequence if is_last else subscriber.sequence
            head.more_follows = not is_last
        if subscriber.have is None:
            head.model_files.update(self._model_files)
        return head

    def _take(self, state: State, link: Offer | None, sequence: int) -> None:
        before, self._sequence = self._whole, sequence
        manifest = Manifest()
        manifest.CopyFrom(state.manifest)
        manifest.ClearField("model_files")
        self._whole = Offer(manifest, Payload(pieces([tensor.data for tensor in state.tensors])))
        dropped = [before.payload] if before else []
        if link and before and link.manifest.base == before.manifest.version:
            self._links.append(link)
        else:
            dropped += [offer.payload for offer in self._links]
            self._links = deque()
        while sum(offer.num_bytes for offer in self._links) > self._whole.num_bytes:
            dropped.append(self._links.popleft().payload)
        self._limit_overtaken(dropped)
        self._tell()

    def _limit_overtaken(self, dropped: list[Payload]) -> None:
        """Lets the oldest end, so that the slowest subscriber makes progress; those after them are given up."""
        self._overtaken = [payload for payload in [*self._overtaken, *dropped] if payload.num_sending]
        for payload in self._overtaken[MAX_OVERTAKEN:]:
            payload.give_up()
        del self._overtaken[MAX_OVERTAKEN:]

    def _counted(self, frame: bytes) -> bytes:
        self.num_sent_bytes += len(frame)
        sent_bytes.add(len(frame))
        return frame

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class WeightServer:
    """Serves WeightService from the streams that there are. All methods belong to the event loop's thread."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str, int], Stream] = {}  # by run, adapter and rank

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service."""
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, self._handlers()),))

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """RPC handlers by the method's name. Subscribe responds with bytes, serialised already."""
        subscribe: grpc.RpcMethodHandler[SubscribeRequest, bytes] = grpc.unary_stream_rpc_method_handler(
            self._subscribe, request_deserializer=SubscribeRequest.FromString, response_serializer=None
        )
        return {"Subscribe": subscribe}

    def stream_of(self, run_id: str, adapter: str = "", rank: int = 0) -> Stream:
        """NotFoundError if no such run is served here."""
        stream = self._streams.get((run_id, adapter, rank))
        if stream is None:
            of = f"adapter {adapter!r} of " * bool(adapter) + f"rank {rank} of " * bool(rank)
            which = f"{of}run {run_id!r}"
            raise NotFoundError(f"no {which} is served here; ask the master where it is")
        return stream

    async def _subscribe(
        self, request: SubscribeRequest, context: grpc.aio.ServicerContext[SubscribeRequest, bytes]
    ) -> AsyncGenerator[bytes]:
        subscriber = Subscriber(request.have if request.HasField("have") else None, request.have_sequence)
        async with rpc_errors(context):
            while True:  # a stream that was closed may have a successor
                stream = self.stream_of(request.run_id, request.adapter, request.rank)
                async with aclosing(stream.send(subscriber)) as frames:
                    async for frame in frames:
                        yield frame
