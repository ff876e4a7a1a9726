"""Says what comes back over the bus: scores to the buffer, dead letters to the ledger, events to watchers.

Insert before ack: a message is forgotten by the bus only when its effect is in the database.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Generic, Literal, TypeVar

from google.protobuf.message import Message
from pydantic import BaseModel, Field, ValidationError

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, Score, ScoreStatus
from perilune.api.trajectory.v1.trajectory_pb2 import (
    ENDING_ABORTED,
    ENDING_BUDGET,
    PURPOSE_EVALUATE,
    DeadLetter,
    Event,
    ScoredTrajectory,
    Trajectory,
)
from perilune.codec import check_arrays, num_response_tokens, num_written_tokens
from perilune.errors import InvalidInputError, UnavailableError
from perilune.grading.correct import is_correct
from perilune.ids import SampleId, TaskId, belongs, parse_message, parse_sample
from perilune.runtime.bus import MAX_BATCH_BYTES, MAX_REASON_CHARS, Bus, Delivery, in_words, settled
from perilune.runtime.subjects import (
    ADVISORY_CONSUMER,
    DEAD_CONSUMER,
    EVENT_CONSUMER,
    MASTER_CONSUMER,
    PARTIAL_CONSUMER,
    is_prompt_subject,
    run_of,
)
from perilune.runtime.wholes import graded_digest
from services.master.records import Partial, Scored
from services.master.seals import check_seal, is_seal, letter_seal
from services.master.store import Store
from services.master.tables import SampleState

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)
L = TypeVar("L")  # a line of the ledger
R = TypeVar("R")
SampleKey = tuple[str, int, int]  # group, index, round

MAX_DELAY_S = 15.0  # between tries of a database that fails
Notify = Callable[[str], None]  # called with the id of a run that something came for


async def take_scores(bus: Bus, store: Store, notify: Notify) -> None:
    """Stores scored trajectories. Their tokens may be long, so that they are fetched a part at a time."""
    async for deliveries in bus.deliveries(MASTER_CONSUMER, ScoredTrajectory, max_batch=256):
        for part in parts_by_size(deliveries, lambda d: d.message.trajectory.whole.num_bytes, MAX_BATCH_BYTES):
            await _take_scores(bus, store, part)
        for run_id in {delivery.message.trajectory.run_id for delivery in deliveries}:
            notify(run_id)


async def _take_scores(bus: Bus, store: Store, deliveries: Sequence[Delivery[ScoredTrajectory]]) -> None:
    wholes = [deepcopy(delivery.message.trajectory.whole) for delivery in deliveries]
    there = await asyncio.gather(*(_complete(bus, delivery) for delivery in deliveries))
    samples = [(d, d.message.trajectory) for d, is_there in zip(deliveries, there, strict=True) if is_there]
    await _keep(samples, lambda d: scored_of(d.message, d.message.SerializeToString()), store.record_scores, store)
    done = [(d.message.trajectory, whole) for d, whole in zip(deliveries, wholes, strict=True) if d.is_acknowledged]
    await asyncio.gather(*(bus.forget_whole(sample, whole) for sample, whole in done if whole.sequence))


async def _complete(bus: Bus, delivery: Delivery[ScoredTrajectory]) -> bool:
    """Fetches the trajectory that a score came for; false, and the delivery is settled, if it is gone.

    One that is gone was stored before, or was lost: the controller asks again for what is awaited and on no queue.
    """
    named = delivery.message.trajectory
    try:
        whole = await bus.whole_of(named)
        if whole is not None:
            check_same(delivery.message, whole)
    except InvalidInputError as error:  # what lies there may be another sender's: the sample is asked for again
        await delivery.reject(str(error), delivery.run_id, [_sample_id(named)], ends_nothing=True)
        return False
    except UnavailableError as error:
        logger.warning("%s; its score will be delivered again", error)
        await delivery.retry()
        return False
    if whole is None:
        logger.info("%s lies on the bus no more: it is stored, or will be asked for again", named.id[:200])
        await delivery.ack()
        return False
    named.CopyFrom(whole)
    return True


def check_same(scored: ScoredTrajectory, whole: Trajectory) -> None:
    """InvalidInputError if a trajectory is not the one that its score names, or not what was graded."""
    named = scored.trajectory
    keys = [(each.run_id, each.group_id, each.sample_index, each.round) for each in (named, whole)]
    if keys[0] != keys[1]:
        raise InvalidInputError(f"a score of {named.id[:200]!r} refers to the trajectory {whole.id[:200]!r}")
    if not named.HasField("whole"):  # it came with all that was graded
        return
    if not scored.graded:
        raise InvalidInputError(
            f"the score of {named.id[:200]!r} does not say what was graded: it comes from a reward worker of a version "
            "before; bring the reward workers up to the master's version"
        )
    if scored.graded != graded_digest(whole):
        raise InvalidInputError(f"the score of {named.id[:200]!r} is of another text than the trajectory there")


def parts_by_size(items: Sequence[R], size_of: Callable[[R], int], limit: int) -> list[list[R]]:
    """Cuts a list into parts of at most this size in all; what is larger is a part of its own."""
    parts: list[list[R]] = []
    room = 0
    for item in items:
        if not parts or size_of(item) > room:
            parts.append([])
            room = limit
        parts[-1].append(item)
        room -= size_of(item)
    return parts


async def take_partials(bus: Bus, store: Store, notify: Notify) -> None:
    """Saves unfinished trajectories; they may be long, so few are taken at once."""
    async for deliveries in bus.deliveries(PARTIAL_CONSUMER, Trajectory, max_batch=16):
        samples = [(delivery, delivery.message) for delivery in deliveries]
        await _keep(samples, lambda d: partial_of(d.message, d.raw.data), store.record_partials, store)
        for run_id in {sample.run_id for _, sample in samples}:
            notify(run_id)


async def _keep(
    samples: Sequence[tuple[Delivery[M], Trajectory]],
    line_of: Callable[[Delivery[M]], L],
    record: Callable[[Sequence[L]], Awaitable[set[tuple[str, int]]]],
    store: Store,
) -> None:
    """Writes what came of samples and acknowledges it; a message that cannot be read or written is rejected alone."""
    lines: dict[SampleKey, Line[M, L]] = {}
    for delivery, sample in samples:
        try:
            check_sender(delivery.run_id, sample, await _secret(store, delivery.run_id))
        except InvalidInputError as error:
            await delivery.reject(str(error), delivery.run_id, [_sample_id(sample)], ends_nothing=True)
            continue
        try:
            check_sample(delivery.run_id, sample)
            line = line_of(delivery)
        except InvalidInputError as error:
            await delivery.reject(str(error), delivery.run_id, [_sample_id(sample)])
            continue
        key = sample.group_id, sample.sample_index, sample.round
        before = lines[key].deliveries if key in lines else []
        lines[key] = Line([*before, delivery], line)
    await _write(lines, record, store)


@dataclass(frozen=True)
class Line(Generic[M, L]):
    """Describes what is to be written of a sample, and the messages that say so."""

    deliveries: list[Delivery[M]]
    value: L


async def _write(
    lines: Mapping[SampleKey, Line[M, L]],
    record: Callable[[Sequence[L]], Awaitable[set[tuple[str, int]]]],
    store: Store,
) -> None:
    """In one transaction; one by one if the database refuses what one of them holds."""
    if not lines:
        return
    refused: Exception | None = None
    unknown: set[tuple[str, int]] = set()
    try:
        unknown = await while_database_fails(store, lambda: record([line.value for line in lines.values()]))
    except Exception as error:  # what a message holds decides what a database driver raises
        if len(lines) > 1:
            for key, line in lines.items():
                await _write({key: line}, record, store)
            return
        logger.warning("a message cannot be written", exc_info=True)
        refused = error
    for (group_id, index, _), line in lines.items():
        for delivery in line.deliveries:
            if refused:
                reason = f"the database refuses it: {getattr(refused, 'orig', None) or in_words(refused)}"
                await delivery.reject(reason, delivery.run_id, [str(SampleId(group_id, index))])
            elif (group_id, index) in unknown:
                await delivery.reject("no run asked for this sample", delivery.run_id, [str(SampleId(group_id, index))])
            else:
                await delivery.ack()


async def while_database_fails(store: Store, change: Callable[[], Awaitable[R]]) -> R:
    """Tries a change until the database takes it. What the change itself is at fault for is raised."""
    delay_s = 0.5
    while True:
        try:
            return await change()
        except Exception as error:  # what a message holds decides what a database driver raises
            if not await store.is_fault_of(error):
                raise
            logger.warning("the database failed: %s; trying again", error)
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, MAX_DELAY_S)


def _sample_id(sample: Trajectory) -> str:
    return str(SampleId(sample.group_id, sample.sample_index))


async def _secret(store: Store, run_id: str) -> bytes | None:
    """The secret that a run's tasks are sealed with; None if there is no such run."""
    return await while_database_fails(store, lambda: store.secret(run_id))


def check_sender(run_id: str, sample: Trajectory, secret: bytes | None) -> None:
    """InvalidInputError if a trajectory did not come of a task of the run on whose subject it came. Its sender cannot
    end the sample then."""
    check_run(run_id, sample)
    if secret is None:
        raise InvalidInputError("no run asked for this sample")
    check_seal(secret, sample)


def check_sample(run_id: str, sample: Trajectory) -> None:
    """InvalidInputError if a trajectory that came on a run's subject is damaged, or is of another run."""
    check_run(run_id, sample)
    check_arrays(sample)


def check_run(run_id: str, sample: Trajectory) -> None:
    """InvalidInputError if a trajectory is of another run than the subject that it came on."""
    if sample.run_id != run_id or not belongs(sample.group_id, run_id):
        raise InvalidInputError(
            f"it came on a subject of the run {run_id!r}, and says that it is sample {sample.sample_index} of group "
            f"{sample.group_id[:200]!r} of the run {sample.run_id[:200]!r}"
        )


def partial_of(sample: Trajectory, payload: bytes) -> Partial:
    """An unfinished trajectory as a line of the ledger. InvalidInputError if it is finished."""
    if sample.ending not in (ENDING_BUDGET, ENDING_ABORTED):
        raise InvalidInputError(f"a trajectory that ended with {sample.ending} is not unfinished")
    num_tokens = num_response_tokens(sample)
    return Partial(sample.group_id, sample.sample_index, sample.round, sample.ending, num_tokens, payload)


def scored_of(message: ScoredTrajectory, payload: bytes) -> Scored:
    """A scored trajectory as a line of the ledger. A grader that failed makes the sample dead, never worth 0."""
    sample, score = message.trajectory, message.score
    ok = score.status == SCORE_STATUS_OK and score.HasField("value") and math.isfinite(score.value)
    final = SampleState.EVALUATED if sample.purpose == PURPOSE_EVALUATE else SampleState.SCORED
    return Scored(
        group_id=sample.group_id,
        sample_index=sample.sample_index,
        state=final if ok else SampleState.DEAD,
        payload=payload,
        num_tokens=num_written_tokens(sample),
        round=sample.round,
        ending=sample.ending,
        value=score.value if ok else None,
        correct=is_correct(score) if ok else None,
        reason="" if ok else readable(reason_of(score)),
    )


def reason_of(score: Score) -> str:
    """The reason why a score has no value, from its first failed grader."""
    failed = [c for c in score.components if c.status != SCORE_STATUS_OK]
    if not failed:
        value = f", value {score.value}" if score.HasField("value") else ""
        return f"no score: {_status_name(score.status)}{value}"
    evidence = "; ".join(f"{key}: {value}" for key, value in sorted(failed[0].evidence.items()))
    return f"grader {failed[0].grader}: {_status_name(failed[0].status)} {evidence}".strip()[:MAX_REASON_CHARS]


def _status_name(status: int) -> str:
    """Its name, or the number of one that this version does not know."""
    return ScoreStatus.Name(status) if status in ScoreStatus.values() else f"status {status}"  # type: ignore[arg-type]


async def take_dead_letters(bus: Bus, store: Store, notify: Notify) -> None:
    """Ends the samples that dead letters name, for as long as the bus is there."""
    async for deliveries in bus.deliveries(DEAD_CONSUMER, DeadLetter):
        for delivery in deliveries:
            async with settled(delivery):
                letter = delivery.message
                await while_database_fails(store, lambda letter=letter: _end_samples(store, letter))  # type: ignore[misc]
                notify(letter.run_id or run_of(letter.subject))


async def _end_samples(store: Store, letter: DeadLetter) -> None:
    samples, group_id = lost_by(letter)
    groups = {sample.group_id for sample in samples} | {group_id} - {""}
    given = {group for group in groups if await _was_given(store, letter, group)}
    if groups - given:
        logger.warning("a dead letter ends no samples of %s: its sender was not given them", groups - given)
    reason = readable(letter.reason)
    await store.mark_dead([sample for sample in samples if sample.group_id in given], reason)
    if group_id in given:
        await store.mark_group_dead(group_id, reason)


async def _was_given(store: Store, letter: DeadLetter, group_id: str) -> bool:
    """Tests whether a letter's sender had a task of this group."""
    secret = await store.secret(group_id.partition(".")[0])
    return secret is not None and is_seal(secret, group_id, letter_seal(letter))


def readable(text: str) -> str:
    """A text as every database takes it: PostgreSQL's know no NUL."""
    return text.replace("\0", "\\0")[:MAX_REASON_CHARS]


def lost_by(letter: DeadLetter) -> tuple[list[SampleId], str]:
    """The samples, or the group, that end with a dead letter.

    The sender names the samples if it could read the message; else the message's id tells.
    """
    if letter.ends_nothing:
        return [], ""
    if letter.trajectory_ids:
        return [sample for sample in map(_sample_or_none, letter.trajectory_ids) if sample], ""
    try:
        about = parse_message(letter.message_id)
    except InvalidInputError:
        return [], ""
    if not isinstance(about, TaskId):
        return [about.sample], ""
    return [], about.group_id if is_prompt_subject(letter.subject) else ""


def _sample_or_none(text: str) -> SampleId | None:
    try:
        return parse_sample(text)
    except InvalidInputError:
        return None


async def take_advisories(bus: Bus) -> None:
    """Moves what the server stopped delivering from its queue, where it would stay unseen, to the dead letters."""
    async for raws in bus.raw_deliveries(ADVISORY_CONSUMER):
        for raw in raws:
            async with settled(Delivery(DeadLetter(), raw, bus)):
                await _bury_undelivered(bus, raw.data)


async def _bury_undelivered(bus: Bus, advisory: bytes) -> None:
    """InvalidInputError if it is no advisory of ours. Only work queues keep what is not delivered."""
    try:
        read = Advisory.model_validate_json(advisory)
    except ValidationError as error:
        raise InvalidInputError(f"not an advisory: {error.errors(include_url=False, include_input=False)}") from error
    message = await bus.stored(read.stream, read.stream_seq)
    if message is not None:
        await bus.bury(message, f"given up after {read.deliveries} deliveries to {read.consumer}")
        await bus.delete(read.stream, read.stream_seq)


class Advisory(BaseModel):
    """Describes what the server says of a message that it has delivered as often as it may, as far as it is used."""

    stream: Literal["PROMPTS", "TRAJECTORIES"]
    stream_seq: Annotated[int, Field(gt=0, lt=1 << 63)]
    deliveries: int = 0
    consumer: str = ""


async def take_events(bus: Bus, hear: Callable[[Event], Awaitable[None]]) -> None:
    """Passes on what services report of a run; an event on the subject of another run is rejected."""
    async for deliveries in bus.deliveries(EVENT_CONSUMER, Event):
        for delivery in deliveries:
            async with settled(delivery):
                if delivery.message.run_id != delivery.run_id:
                    raise InvalidInputError(
                        f"an event of the run {delivery.message.run_id[:200]!r} on another's subject"
                    )
                await hear(delivery.message)
