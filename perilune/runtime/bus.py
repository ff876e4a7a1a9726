"""The bus: trajectory messages over NATS JetStream, at least once, with nothing lost and nothing invisible.

Rules that make redelivery harmless: every message has a deterministic id, a publisher acks its input only after its
output was acknowledged, and the database's unique keys make an effect happen once. The master declares the streams
and consumers; every other service only binds to them.

Whatever a message holds, it ends no service and does not come back for ever: it is handled, or it is rejected, with the
reason in words, to the dead letters (`settled`). A failure outside the message is no fault of the message: it is
delivered again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import nats
import nats.errors
from google.protobuf.message import DecodeError, Message
from nats.aio.client import Client as NATS
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext, api
from nats.js.errors import APIError
from nats.js.errors import NotFoundError as StreamNotFoundError
from opentelemetry.context import Context

from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1.trajectory_pb2 import DeadLetter, Event, ScoredTrajectory, StoredMessage, Trajectory
from perilune.channel import MAX_MESSAGE_BYTES
from perilune.errors import (
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PeriluneError,
    TooLargeError,
    UnavailableError,
)
from perilune.ids import SampleId, WholeId, dead_letter_id
from perilune.runtime import telemetry
from perilune.runtime.blobs import Blobs, message_name
from perilune.runtime.connection import Client, secrets_for, try_once
from perilune.runtime.subjects import (
    DEAD,
    DEAD_SUBJECT,
    EVENTS,
    MAX_NAME_BYTES,
    PROMPTS,
    SAMPLES,
    STANDING_CONSUMERS,
    STREAMS,
    TRAJECTORIES,
    TRIALS,
    Consumer,
    check_subject,
    event_subject,
    run_of,
    safe_id,
    sample_subject,
    trial_subject,
)

logger = logging.getLogger(__name__)

ACK_WAIT_S = 10.0  # a worker that is silent for so long is taken for dead, and its messages go to another
MAX_DELIVERIES = 40  # the server's last resort: deaths of workers are counted too, and are no fault of the message
PULL_WAIT_S = 1.0  # a request that is open across a server restart is only missed when this is over
PUBLISH_PATIENCE_S = 600.0  # what is published may be an hour's work: an outage is waited for
ANSWER_S = 2.0  # for a question that a reader waits on
EVENT_PATIENCE_S = 5.0  # what is only news is not waited for
MAX_PAYLOAD_BYTES = 8 << 20
MAX_LARGE_BYTES = MAX_MESSAGE_BYTES - (2 << 20)  # in the blob store: a batch must hold it, with its score
MAX_BATCH_BYTES = 64 << 20  # of messages that are taken together
MAX_REASON_CHARS = 4000
BLOB_HEADER = "Perilune-Blob"  # the name of the blob that holds the message's bytes
SEAL_HEADER = "Perilune-Seal"  # of a task: its prompt's seal
BLOB_RETRY_S = 5.0  # before a message whose blob store was away is delivered again
_LETTER_ROOM_BYTES = 4096  # of a dead letter, for its headers


M = TypeVar("M", bound=Message)
T = TypeVar("T")

# Failures outside a message: it is delivered again.
OUTAGES = (UnavailableError, OverloadedError, nats.errors.Error, APIError, ConnectionError, TimeoutError)


def in_words(error: BaseException) -> str:
    """The reason for a rejection: our own errors as they are, others with their kind."""
    text = str(error) if isinstance(error, PeriluneError) else f"{type(error).__name__}: {error}"
    return text[:MAX_REASON_CHARS]


@dataclass(frozen=True)
class Backlog:
    """Messages that a consumer has not acknowledged: those still waiting, and those that a worker holds."""

    consumer: str
    num_waiting: int
    num_in_hand: int


def _always() -> bool:
    return True


@dataclass(eq=False)
class Delivery(Generic[M]):
    """A message in hand, until exactly one of ack, retry and reject is called.

    It is kept from redelivery for as long as `progresses` says that the work on it goes on.
    """

    message: M
    raw: Msg
    bus: Bus = field(repr=False)
    progresses: Callable[[], bool] = field(default=_always, repr=False)
    blob: str = ""  # its bytes lie there, and not in the message
    is_over: bool = False  # acknowledged or rejected: it does not come again
    is_acknowledged: bool = False

    @property
    def context(self) -> Context:
        """The trace context that the publisher sent along."""
        return telemetry.context_of(self.raw.headers)

    @property
    def run_id(self) -> str:
        """The run whose subject it came on."""
        return run_of(self.raw.subject)

    @property
    def number(self) -> int:
        """Its place in its stream, which it keeps from delivery to delivery."""
        return self.raw.metadata.sequence.stream

    @property
    def name(self) -> tuple[int, str]:
        """Tells it from every other message of its stream, also if numbers begin again because the store was lost."""
        return self.number, _message_id(self.raw)

    @property
    def num_deliveries(self) -> int:
        """Returns how often it was delivered, this time included."""
        return self.raw.metadata.num_delivered

    def continue_as(self, again: Delivery[M]) -> None:
        """The same message was delivered once more while this delivery is in hand: one piece of work for both."""
        self.bus._in_hand.pop(self.raw.reply, None)
        self.raw = again.raw
        self.bus._in_hand[self.raw.reply] = self

    async def ack(self) -> None:
        """Its effect is durable; the server may forget it."""
        self.is_over = self.is_acknowledged = True
        await self._answer(self.raw.ack)
        await self.bus.delete_blob(self.blob)

    async def retry(self, delay_s: float = 1.0) -> None:
        """Something outside failed: deliver again later, to any worker."""
        await self._answer(lambda: self.raw.nak(delay=delay_s))

    async def reject(
        self, reason: str, run_id: str = "", trajectory_ids: Sequence[str] = (), *, ends_nothing: bool = False
    ) -> None:
        """It can never succeed: move it to the dead-letter stream, with the reason. `ends_nothing`: its samples are
        asked for again."""
        if self.raw.subject == DEAD_SUBJECT:  # it stays in that stream; a letter about it would be read no better
            logger.error("a dead letter cannot be handled: %s", reason)
        else:
            try:
                seal = _seal_in(self.message)
                await self.bus.bury(self.raw, reason, run_id, trajectory_ids, seal, ends_nothing=ends_nothing)
            except UnavailableError as error:
                logger.warning("%s; the message is rejected when it comes again", error)
                return await self.retry()
        self.is_over = True
        await self._answer(self.raw.term)

    async def _answer(self, answer: Callable[[], Awaitable[None]]) -> None:
        self.bus._in_hand.pop(self.raw.reply, None)
        try:
            await answer()
        except nats.errors.Error as error:  # it comes again, and its effect happens once
            logger.warning("the answer to a message on %s did not reach the server: %r", self.raw.subject, error)


@contextlib.asynccontextmanager
async def settled(
    delivery: Delivery[M], run_id: str = "", trajectory_ids: Sequence[str] = (), delay_s: float = 1.0
) -> AsyncIterator[None]:
    """Settles a delivery by how its handling, the body, ends: acknowledged, delivered again after a failure outside of
    it, or rejected with the reason and the samples that end with it."""
    try:
        yield
    except OUTAGES as error:
        logger.warning("%s; it will be delivered again", error or repr(error))
        await delivery.retry(delay_s)
    except Exception as error:  # what the message holds decides what it raises
        if not isinstance(error, PeriluneError):
            logger.warning("a message on %s could not be handled", delivery.raw.subject, exc_info=True)
        await delivery.reject(in_words(error), run_id, trajectory_ids)
    else:
        await delivery.ack()


class Bus:
    """A connection. Use as `async with Bus.connect(url, name) as bus`."""

    def __init__(self, client: NATS, blobs: Blobs | None = None) -> None:
        self._client = client
        self._blobs = blobs
        self._jetstream: JetStreamContext = client.jetstream()
        self._in_hand: dict[str, Delivery[Any]] = {}  # by the reply subject, which is a delivery's own

    @staticmethod
    @contextlib.asynccontextmanager
    async def connect(url: str, name: str, blobs: Blobs | None = None) -> AsyncIterator[Bus]:
        """Connects, and stays connected through server restarts. `blobs`: for messages over the limit.

        Raises:
            UnavailableError: there is no server at first.
            InvalidInputError: the server does not know our user or password, or we do not trust its certificate.
        """

        async def on_error(error: Exception) -> None:
            logger.warning("NATS: %s", error or type(error).__name__)

        async def on_disconnect() -> None:
            if not (client.is_draining or client.is_closed):  # it is called at our own close as well
                logger.warning("lost the NATS server at %s; waiting for it to come back", url)

        async def on_reconnect() -> None:
            logger.warning("the NATS server at %s is back", url)

        options = secrets_for(url)
        await try_once(url, options)
        client = Client()
        await client.connect(
            url,
            name=name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.5,  # type: ignore[arg-type]  # seconds, which it only sleeps for
            connect_timeout=5,
            error_cb=on_error,
            disconnected_cb=on_disconnect,
            reconnected_cb=on_reconnect,
            pending_size=64 << 20,
            **options,
        )
        bus = Bus(client, blobs)
        heartbeat = asyncio.create_task(bus._keep_in_hand())
        try:
            yield bus
        finally:
            heartbeat.cancel()
            with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError, OSError):
                await asyncio.wait_for(client.drain(), 5) if client.is_connected else await client.close()

    async def declare(self) -> None:
        """Makes the streams and standing consumers, or brings them up to date. Only the master calls this.

        UnavailableError if the server does not answer or has no room for them.
        """
        for stream in STREAMS:
            try:
                await _asked(self._jetstream.update_stream(stream), f"bring the stream {stream.name} up to date")
            except StreamNotFoundError:
                await _answered(self._jetstream.add_stream(stream), f"make the stream {stream.name}")
        for consumer in STANDING_CONSUMERS:
            await self.declare_consumer(consumer)

    async def missing_streams(self) -> list[str]:
        """The streams that the server does not have: it was given an empty store. UnavailableError if it does not
        answer."""
        asked = self._client.request("$JS.API.STREAM.NAMES", b"{}", timeout=5)
        answer = json.loads((await _answered(asked, "say which streams it has")).data)
        if "error" in answer:
            raise UnavailableError(f"the bus does not say which streams it has: {answer['error']}")
        return [str(stream.name) for stream in STREAMS if stream.name not in (answer.get("streams") or ())]

    async def declare_consumer(self, consumer: Consumer) -> None:
        """UnavailableError if the server does not answer, here and below."""
        config = api.ConsumerConfig(
            durable_name=consumer.durable,
            filter_subject=consumer.subject,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_deliver=MAX_DELIVERIES,
            max_ack_pending=20_000,
        )
        await _answered(self._jetstream.add_consumer(consumer.stream, config), f"make the consumer {consumer.durable}")

    async def delete_consumer(self, consumer: Consumer) -> None:
        """Deletes a consumer, if it exists."""
        with contextlib.suppress(StreamNotFoundError):
            deleted = self._jetstream.delete_consumer(consumer.stream, consumer.durable)
            await _asked(deleted, f"delete the consumer {consumer.durable}")

    async def purge(self, stream: str, subject: str) -> None:
        """Forgets the messages of a subject that no worker has taken yet."""
        await _answered(self._jetstream.purge_stream(stream, subject=subject), f"forget what waits on {subject}")

    async def backlogs(self) -> list[Backlog]:
        """Returns what every consumer of a work queue has left to do. UnavailableError if the server does not
        answer within ANSWER_S."""
        try:
            async with asyncio.timeout(ANSWER_S):
                found = [
                    info
                    for stream in (PROMPTS, TRAJECTORIES)
                    for info in await _answered(self._jetstream.consumers_info(stream), "say how much work is left")
                ]
        except TimeoutError as error:
            raise UnavailableError("the bus does not say how much work is left") from error
        return [Backlog(info.name, info.num_pending or 0, info.num_ack_pending or 0) for info in found]

    async def num_dead_letters(self) -> int:
        """Returns how many messages were given up and are still kept. UnavailableError if the server does not
        answer."""
        info = await _answered(self._jetstream.stream_info(DEAD), "say how many dead letters there are")
        return info.state.messages

    @property
    def traffic(self) -> dict[str, int]:
        """Messages and bytes of payloads so far: `in_msgs`, `out_msgs`, `in_bytes`, `out_bytes`."""
        return self._client.stats

    async def answers(self, patience_s: float = ANSWER_S) -> bool:
        """Tests whether the server answers now."""
        try:  # not by a ping: the client's reader dies of an answer to one that was given up
            await self._client.request(f"$JS.API.STREAM.INFO.{EVENTS}", timeout=patience_s)
        except (nats.errors.Error, TimeoutError, OSError):
            return False
        return True

    async def num_unfinished(self, consumer: Consumer) -> int:
        """Messages of a consumer that were not acknowledged yet, delivered or not."""
        try:
            asked = self._jetstream.consumer_info(consumer.stream, consumer.durable)
            info = await _asked(asked, f"say what {consumer.durable} has left to do")
        except StreamNotFoundError:
            return 0
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def publish(
        self,
        subject: str,
        message: Message,
        message_id: str,
        headers: dict[str, str] | None = None,
        patience_s: float = PUBLISH_PATIENCE_S,
    ) -> int:
        """Publishes, and returns when the server has stored it, with its number. The same id twice is stored once.

        Retries with the same id through an outage of the server; UnavailableError after `patience_s`. InvalidInputError
        if it can never be published: the subject is none, or (TooLargeError) the message is over the limit; that of the
        server where there is no blob store. `headers` are those of the trace to go on with, the current one if not
        given.
        """
        return await self._publish(subject, message.SerializeToString(), message_id, headers, patience_s)

    async def publish_event(self, event: Event, message_id: str) -> None:
        """Publishes news of a run. UnavailableError if that cannot be done now: work does not depend on it."""
        await self.publish(event_subject(event.run_id), event, message_id, patience_s=EVENT_PATIENCE_S)

    async def _publish(
        self,
        subject: str,
        payload: bytes,
        message_id: str,
        headers: dict[str, str] | None = None,
        patience_s: float = PUBLISH_PATIENCE_S,
    ) -> int:
        check_subject(subject)
        headers = (telemetry.headers_of() if headers is None else headers) | {"Nats-Msg-Id": safe_id(message_id)}
        room = min(MAX_PAYLOAD_BYTES, self._client.max_payload - _num_header_bytes(headers))
        if len(payload) > room:
            limit = MAX_LARGE_BYTES if self._blobs else room
            if len(payload) > limit:
                raise TooLargeError(f"{message_id[:200]!r} has {len(payload):,} bytes; the bus takes {limit:,}")
            payload, headers = await self._put_aside(payload, message_id, headers)
        publishing = partial(self._jetstream.publish, subject, payload, timeout=5, headers=headers)
        stored = await _tried_again(publishing, f"publish {message_id} on {subject}", patience_s)
        _heed_cancellation()
        return stored.seq

    async def _put_aside(
        self, payload: bytes, message_id: str, headers: dict[str, str]
    ) -> tuple[bytes, dict[str, str]]:
        """Writes a large message to the blob store; returns the message that refers to it, which is no protobuf."""
        assert self._blobs
        name = message_name(message_id, hashlib.sha256(payload).hexdigest())
        await _tried_again(partial(self._blobs.write, name, payload), f"keep {message_id} in the blob store")
        return b"\xff" + name.encode(), headers | {BLOB_HEADER: name}

    async def _bytes_of(self, raw: Msg) -> bytes:
        """A message's bytes, from wherever they lie.

        Raises:
            InvalidInputError: they are gone or damaged, or there is no blob store.
            UnavailableError: the blob store does not answer.
        """
        name = _blob_of(raw)
        if not name:
            return raw.data
        if self._blobs is None:
            raise InvalidInputError(f"the message lies in a blob store as {name[:200]!r}, and this service has none")
        try:
            return await self._blobs.read(name)
        except NotFoundError as error:
            raise InvalidInputError(str(error)) from error

    async def delete_blob(self, name: str) -> None:
        """Deletes the bytes of a message that was dealt with. If the store is away, they lie there for a month."""
        if name and self._blobs:
            with contextlib.suppress(UnavailableError, InvalidInputError):
                await self._blobs.delete(name)

    # Finished trajectories, whole (`wholes.py`).

    async def keep_whole(self, sample: Trajectory) -> StoredMessage:
        """Stores a finished trajectory until `forget_whole`. Errors are those of `publish`."""
        payload = sample.SerializeToString(deterministic=True)  # the same sample twice is one message
        digest = hashlib.sha256(payload).hexdigest()
        sequence = await self._publish(sample_subject(sample.run_id), payload, str(_whole_id(sample, digest)))
        return StoredMessage(sequence=sequence, digest=digest, num_bytes=len(payload))

    async def whole_of(self, sample: Trajectory) -> Trajectory | None:
        """All of a trajectory that was sent without its tokens; none if it lies on the bus no more, or another does.

        Raises:
            InvalidInputError: what lies there is no trajectory.
            UnavailableError: the server does not answer.
        """
        if not sample.HasField("whole"):
            return sample
        raw = await self._read(SAMPLES, sample.whole.sequence)
        if raw is None:
            return None
        payload = await self._bytes_of(raw)
        if hashlib.sha256(payload).hexdigest() != sample.whole.digest:
            where = f"message {sample.whole.sequence} of {SAMPLES}"
            logger.warning("%s is not the trajectory %r, by its digest", where, sample.id[:200])
            return None  # numbers begin again where a store was lost
        try:
            return Trajectory.FromString(payload)
        except DecodeError as error:
            raise InvalidInputError(f"what was stored of {sample.id[:200]!r} is no trajectory: {error}") from error

    async def forget_whole(self, sample: Trajectory, whole: StoredMessage) -> None:
        """Deletes a trajectory that was dealt with. If the server does not answer, it lies there for a week."""
        request = {"seq": whole.sequence, "no_erase": True}
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await self._client.request(f"$JS.API.STREAM.MSG.DELETE.{SAMPLES}", json.dumps(request).encode(), timeout=5)
        if whole.num_bytes > MAX_PAYLOAD_BYTES - _LETTER_ROOM_BYTES:  # it may have been put aside
            await self.delete_blob(message_name(str(_whole_id(sample, whole.digest)), whole.digest))

    async def _read(self, stream: str, sequence: int) -> Msg | None:
        """A message of a stream that answers directly, as it was published; none if it is not there."""
        try:
            request = json.dumps({"seq": max(1, sequence)}).encode()
            raw = await self._client.request(f"$JS.API.DIRECT.GET.{stream}", request, timeout=5)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise UnavailableError(f"the bus does not give message {sequence} of {stream}: {error!r}") from error
        _heed_cancellation()
        status = (raw.headers or {}).get("Status")
        if status not in (None, "404"):
            raise UnavailableError(f"the bus does not give message {sequence} of {stream}: status {status}")
        return None if status else raw

    async def deliveries(
        self,
        consumer: Consumer,
        message_type: type[M],
        max_batch: int = 64,
        progresses: Callable[[], bool] = _always,
    ) -> AsyncIterator[list[Delivery[M]]]:
        """Batches of messages, for as long as the caller iterates; an empty batch when there was nothing for a while.

        What cannot be read as `message_type` goes to the dead-letter stream. What was delivered is kept for the caller
        while `progresses` is true; else it goes to another.
        """
        async for raws in self.raw_deliveries(consumer, max_batch):
            taken = [Delivery(message_type(), raw, self, progresses, _blob_of(raw)) for raw in raws]
            self._in_hand |= {delivery.raw.reply: delivery for delivery in taken}
            yield [delivery for delivery in taken if not delivery.blob and await self._open(delivery)]
            for delivery in taken:  # one by one: they may be large
                if delivery.blob and await self._open(delivery):
                    yield [delivery]

    async def raw_deliveries(self, consumer: Consumer, max_batch: int = 64) -> AsyncIterator[list[Msg]]:
        """The same for messages that are no protobuf; the caller acks each."""
        inbox = await self._client.subscribe(self._client.new_inbox())
        try:
            while True:
                yield await self._pull(inbox, consumer, max_batch)
                _heed_cancellation()
        finally:
            with contextlib.suppress(nats.errors.Error):
                await inbox.unsubscribe()

    async def _pull(self, inbox: Subscription, consumer: Consumer, max_batch: int) -> list[Msg]:
        """Waits for the first message and takes whatever else is there, up to `max_batch`, without waiting more.

        The client's own `fetch` would wait its whole timeout for a full batch, and every iteration ends with one that
        is not full. Nothing is asked for ahead of need: what one worker has not taken, another may.
        """
        try:
            await self._ask(inbox, consumer, {"batch": 1, "expires": int(PULL_WAIT_S * 1e9)})
            messages = await self._answers(inbox, 1, PULL_WAIT_S + 1.0)
            if messages and max_batch > 1:
                more = {"batch": max_batch - 1, "no_wait": True, "max_bytes": MAX_BATCH_BYTES}
                await self._ask(inbox, consumer, more)
                messages += await self._answers(inbox, max_batch - 1, 1.0)
        except (nats.errors.Error, OSError) as error:
            if self._client.is_closed:
                raise UnavailableError("the connection to NATS is closed") from error
            await asyncio.sleep(0.5)  # the server restarts
            return []
        return messages

    async def _ask(self, inbox: Subscription, consumer: Consumer, request: dict[str, int | bool]) -> None:
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.durable}"
        await self._client.publish(subject, json.dumps(request).encode(), reply=inbox.subject)

    async def _answers(self, inbox: Subscription, num_wanted: int, timeout_s: float) -> list[Msg]:
        """Messages until there are enough, the server says that there are no more, or the time is up."""
        messages: list[Msg] = []
        with contextlib.suppress(nats.errors.TimeoutError):
            while len(messages) < num_wanted:
                raw = await inbox.next_msg(timeout_s)
                # A message has where to acknowledge it, whatever its publisher wrote into the headers.
                status = None if raw.reply else JetStreamContext.is_status_msg(raw)
                if status:  # 404: none there; 408: none came; 409: enough bytes; 503: no such consumer yet
                    if status == api.StatusCode.SERVICE_UNAVAILABLE:
                        await asyncio.sleep(0.5)
                    break
                messages.append(raw)
        return messages

    async def _open(self, delivery: Delivery[Any]) -> bool:
        """Reads a message; false, and it is settled, if that cannot be done now, or never."""
        try:
            delivery.raw.data = await self._bytes_of(delivery.raw)
            delivery.message.MergeFromString(delivery.raw.data)
        except DecodeError as error:
            await delivery.reject(f"not a {delivery.message.DESCRIPTOR.name}: {error}")
        except InvalidInputError as error:
            await delivery.reject(str(error))
        except UnavailableError as error:
            logger.warning("%s; the message will be delivered again", error)
            await delivery.retry(BLOB_RETRY_S)
        else:
            return True
        return False

    async def bury(
        self,
        raw: Msg,
        reason: str,
        run_id: str = "",
        trajectory_ids: Sequence[str] = (),
        seal: str = "",
        *,
        ends_nothing: bool = False,
    ) -> None:
        """Publishes a dead letter for a message, or for some of its samples, with a payload that is cut to fit.

        The message itself is left as it is. `seal`: of the group whose samples end, where no header has it.
        """
        logger.error("gave up a message on %s: %s", raw.subject, reason)
        letter = dead_letter(raw, reason, run_id, trajectory_ids)
        letter.seal = (seal or str((raw.headers or {}).get(SEAL_HEADER, "")))[:MAX_NAME_BYTES]
        letter.ends_nothing = ends_nothing
        place = _place_of(raw) or f"{raw.subject}/{letter.message_id}"
        await self.publish(DEAD_SUBJECT, letter, dead_letter_id(place, trajectory_ids))

    # How often a message was tried alone and ended its worker: what it is given up for, at last.

    async def num_trials(self, delivery: Delivery[Any]) -> int:
        """Trials that were noted and not taken back. UnavailableError if the server does not answer."""
        try:
            return int(
                (await self._jetstream.get_last_msg(TRIALS, trial_subject(delivery.run_id, delivery.number))).data or 0
            )
        except (StreamNotFoundError, ValueError):
            return 0
        except (nats.errors.Error, APIError, TimeoutError, OSError) as error:
            raise UnavailableError(f"the bus does not say how often a message was tried: {error!r}") from error

    async def note_trials(self, delivery: Delivery[Any], count: int) -> None:
        """Notes, durably, how often a message was tried alone. UnavailableError if the server does not answer."""
        try:
            await self._jetstream.publish(
                trial_subject(delivery.run_id, delivery.number), str(count).encode(), timeout=5
            )
        except (nats.errors.Error, APIError, TimeoutError, OSError) as error:
            raise UnavailableError(f"the bus does not take note of a message that is tried: {error!r}") from error

    async def stored(self, stream: str, sequence: int) -> Msg | None:
        """A message that still lies in a stream, by its sequence number."""
        try:
            stored = await self._jetstream.get_msg(stream, sequence)
        except StreamNotFoundError:
            return None
        except (nats.errors.Error, APIError, TimeoutError, OSError) as error:
            raise UnavailableError(f"the bus does not give message {sequence} of {stream}: {error!r}") from error
        return Msg(self._client, subject=stored.subject or "", data=stored.data or b"", headers=stored.headers)

    async def letters_from(self, number: int, limit: int) -> list[tuple[int, float, DeadLetter]]:
        """Dead letters from a number on, at most so many: the number of each, when it came (Unix time, in seconds) and
        itself. UnavailableError if the server does not answer."""
        found: list[tuple[int, float, DeadLetter]] = []
        while len(found) < limit:
            asked = self._jetstream.get_msg(DEAD, number, DEAD_SUBJECT, next=True)
            try:
                stored = await _asked(asked, "give its dead letters")
            except StreamNotFoundError:
                break
            letter = DeadLetter()
            try:
                letter.MergeFromString(stored.data or b"")
            except DecodeError:
                letter = DeadLetter(
                    subject=DEAD_SUBJECT, reason="this letter cannot be read", payload=stored.data or b""
                )
            found.append((stored.seq or 0, stored.time.timestamp() if stored.time else 0.0, letter))
            number = (stored.seq or 0) + 1
        return found

    async def publish_again(self, letter: DeadLetter, number: int) -> None:
        """Publishes what a dead letter holds once more, where it came from. InvalidInputError, UnavailableError."""
        await self._publish(letter.subject, letter.payload, f"again/{number}/{letter.message_id}")

    async def delete(self, stream: str, sequence: int) -> None:
        """Deletes a message of a stream by its sequence number, if it exists. UnavailableError if the server does not
        answer."""
        with contextlib.suppress(StreamNotFoundError):
            await _asked(self._jetstream.delete_msg(stream, sequence), f"delete message {sequence} of {stream}")

    async def _keep_in_hand(self) -> None:
        """Tells the server, while the work on what is in hand goes on, to keep it from others."""
        while True:
            await asyncio.sleep(ACK_WAIT_S / 3)
            for delivery in list(self._in_hand.values()):
                if delivery.progresses():
                    with contextlib.suppress(nats.errors.Error, OSError):
                        await delivery.raw.in_progress()


def _seal_in(message: Message) -> str:
    """The seal of a task that a message is, or brings; empty for none."""
    about = message.trajectory if isinstance(message, ScoredTrajectory) else message
    return about.prompt.seal if isinstance(about, RolloutTask | Trajectory) else ""


def dead_letter(raw: Msg, reason: str, run_id: str = "", trajectory_ids: Sequence[str] = ()) -> DeadLetter:
    """The letter about a message that is given up. What is long is cut, the payload to what is left of the limit."""
    letter = DeadLetter(
        subject=raw.subject[:MAX_NAME_BYTES],
        message_id=_message_id(raw)[:MAX_NAME_BYTES],
        reason=reason[:MAX_REASON_CHARS],
        num_deliveries=raw.metadata.num_delivered or 0 if raw.reply else 0,
        trajectory_ids=[each[:MAX_NAME_BYTES] for each in trajectory_ids[:4096]],
        run_id=(run_id or run_of(raw.subject))[:MAX_NAME_BYTES],
    )
    letter.payload = raw.data[: MAX_PAYLOAD_BYTES - _LETTER_ROOM_BYTES - letter.ByteSize() - MAX_NAME_BYTES]
    return letter


def is_cut(letter: DeadLetter) -> bool:
    """Tests whether a letter may hold only the beginning of its message."""
    return letter.ByteSize() > MAX_PAYLOAD_BYTES - 2 * _LETTER_ROOM_BYTES


def _whole_id(sample: Trajectory, digest: str) -> WholeId:
    return WholeId(SampleId(sample.group_id, sample.sample_index), sample.round, digest)


def _blob_of(raw: Msg) -> str:
    """The name of the blob that holds a message's bytes; empty if the message does."""
    return str((raw.headers or {}).get(BLOB_HEADER, ""))


def _message_id(raw: Msg) -> str:
    """As its publisher wrote it; what is no text is replaced."""
    return str((raw.headers or {}).get("Nats-Msg-Id", "")).encode(errors="replace").decode()


def _place_of(raw: Msg) -> str:
    """The stream and number that a delivered message lies at."""
    return f"{raw.metadata.stream}/{raw.metadata.sequence.stream}" if raw.reply else ""


def _num_header_bytes(headers: dict[str, str]) -> int:
    """Headers count towards the server's limit: a line each, after one that says what they are."""
    return len("NATS/1.0\r\n\r\n") + sum(len(f"{key}: {value}\r\n".encode()) for key, value in headers.items())


async def _tried_again(attempt: Callable[[], Awaitable[T]], what: str, patience_s: float = PUBLISH_PATIENCE_S) -> T:
    """Returns what comes of an attempt, made again through an outage. UnavailableError after the patience."""
    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            return await attempt()
        except (UnavailableError, nats.errors.Error, APIError, TimeoutError, OSError) as error:
            if asyncio.get_running_loop().time() > deadline:
                raise UnavailableError(f"could not {what}: {error!r}") from error
            await asyncio.sleep(0.5)


async def _answered(asked: Awaitable[T], what: str) -> T:
    """Returns what the server answers. UnavailableError if it does not, or if what is asked for is not there now."""
    try:
        return await _asked(asked, what)
    except StreamNotFoundError as error:
        raise UnavailableError(f"the bus does not {what}: {error.description}") from error


async def _asked(asked: Awaitable[T], what: str) -> T:
    """Returns what the server answers. UnavailableError if it does not, StreamNotFoundError if it knows no such
    thing."""
    try:
        answer = await asked
    except StreamNotFoundError:
        raise
    except (nats.errors.Error, APIError, TimeoutError, OSError) as error:
        raise UnavailableError(f"the bus does not {what}: {error!r}") from error
    _heed_cancellation()
    return answer


def _heed_cancellation() -> None:
    """Raises a cancellation that was swallowed below us.

    The client waits in `asyncio.wait_for`, which, before Python 3.12, gives its result instead of a cancellation that
    comes in the same turn of the event loop. The canceller would wait for ever.
    """
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError
