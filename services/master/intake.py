"""What comes back over the bus: scores to the buffer, dead letters to the ledger, events to whoever watches.

Insert before ack: a message is forgotten by the bus only when its effect is in the database.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, Score, ScoreStatus
from perilune.api.trajectory.v1.trajectory_pb2 import (
    PURPOSE_EVALUATE,
    DeadLetter,
    Event,
    ScoredTrajectory,
    Trajectory,
)
from perilune.bus import (
    ADVISORY_CONSUMER,
    DEAD_CONSUMER,
    EVENT_CONSUMER,
    MASTER_CONSUMER,
    PARTIAL_CONSUMER,
    Bus,
)
from perilune.codec import num_response_tokens
from services.master.store import Partial, Scored, Store
from services.master.tables import SampleState

logger = logging.getLogger(__name__)

Notify = Callable[[str], None]  # told the id of a run that something came for


async def take_scores(bus: Bus, store: Store, notify: Notify) -> None:
    async for deliveries in bus.deliveries(MASTER_CONSUMER, ScoredTrajectory, max_batch=256):
        if not deliveries:
            continue
        by_sample = {}
        for delivery in deliveries:
            sample = delivery.message.trajectory
            by_sample[sample.group_id, sample.sample_index, sample.round] = delivery
        unknown = await store.record_scores([scored_of(d.message, d.raw.data) for d in by_sample.values()])
        for delivery in deliveries:
            sample = delivery.message.trajectory
            if (sample.group_id, sample.sample_index) in unknown:
                await delivery.reject("no run asked for this sample", sample.run_id, [sample.id])
            else:
                await delivery.ack()
        for run_id in {delivery.message.trajectory.run_id for delivery in deliveries}:
            notify(run_id)


async def take_partials(bus: Bus, store: Store, notify: Notify) -> None:
    """Saves unfinished trajectories; they may be long, so few are taken at once."""
    async for deliveries in bus.deliveries(PARTIAL_CONSUMER, Trajectory, max_batch=16):
        if not deliveries:
            continue
        by_sample = {(d.message.group_id, d.message.sample_index, d.message.round): d for d in deliveries}
        unknown = await store.record_partials([partial_of(d.message, d.raw.data) for d in by_sample.values()])
        for delivery in deliveries:
            sample = delivery.message
            if (sample.group_id, sample.sample_index) in unknown:
                await delivery.reject("no run asked for this sample", sample.run_id, [sample.id])
            else:
                await delivery.ack()
        for run_id in {delivery.message.run_id for delivery in deliveries}:
            notify(run_id)


def partial_of(sample: Trajectory, payload: bytes) -> Partial:
    """An unfinished trajectory as a line of the ledger."""
    num_tokens = num_response_tokens(sample)
    return Partial(sample.group_id, sample.sample_index, sample.round, sample.ending, num_tokens, payload)


def scored_of(message: ScoredTrajectory, payload: bytes) -> Scored:
    """A scored trajectory as a line of the ledger. A grader that failed makes the sample dead, never worth 0."""
    sample, score = message.trajectory, message.score
    ok = score.status == SCORE_STATUS_OK and score.HasField("value")
    final = SampleState.EVALUATED if sample.purpose == PURPOSE_EVALUATE else SampleState.SCORED
    return Scored(
        group_id=sample.group_id,
        sample_index=sample.sample_index,
        state=final if ok else SampleState.DEAD,
        payload=payload,
        num_tokens=num_response_tokens(sample),
        round=sample.round,
        ending=sample.ending,
        value=score.value if ok else None,
        correct=is_correct(score) if ok else None,
        reason="" if ok else reason_of(score),
    )


def is_correct(score: Score) -> bool:
    """Whether the answer is right, as the first grader of the recipe says; the others shape the reward."""
    return bool(score.components) and score.components[0].value >= 1


def reason_of(score: Score) -> str:
    failed = [c for c in score.components if c.status != SCORE_STATUS_OK]
    if not failed:
        return f"no score: {ScoreStatus.Name(score.status)}"
    evidence = "; ".join(f"{key}: {value}" for key, value in sorted(failed[0].evidence.items()))
    return f"grader {failed[0].grader}: {ScoreStatus.Name(failed[0].status)} {evidence}".strip()


async def take_dead_letters(bus: Bus, store: Store, notify: Notify) -> None:
    async for deliveries in bus.deliveries(DEAD_CONSUMER, DeadLetter):
        for delivery in deliveries:
            letter = delivery.message
            samples, group_id = lost_by(letter)
            await store.mark_dead(samples, letter.reason)
            if group_id:
                await store.mark_group_dead(group_id, letter.reason)
            await delivery.ack()
            notify(letter.run_id or letter.subject.split(".")[1])


def lost_by(letter: DeadLetter) -> tuple[list[tuple[str, int]], str]:
    """The samples, or the group, that end with a dead letter.

    The sender names the samples if it could read the message; else the message's id tells, since the master and the
    workers derive it from the group (`<group>/<dispatch>`) or from the sample (`<group>/<sample>/<stage>`; a stage is
    `finished`, `scored`, or the round that was asked for or saved).
    """
    if letter.trajectory_ids:
        pairs = [trajectory_id.rsplit("/", 1) for trajectory_id in letter.trajectory_ids]
        return [(group_id, int(index)) for group_id, index in pairs if index.isdigit()], ""
    match letter.message_id.split("/"):
        case [group_id, dispatch] if dispatch.isdigit() and letter.subject.endswith(".prompt"):
            return [], group_id
        case [group_id, index, _stage] if index.isdigit():
            return [(group_id, int(index))], ""
    return [], ""


async def take_advisories(bus: Bus) -> None:
    """Moves what the server stopped delivering from its queue, where nobody would see it, to the dead letters."""
    async for raws in bus.raw_deliveries(ADVISORY_CONSUMER):
        for raw in raws:
            advisory = json.loads(raw.data)
            stream, sequence = advisory["stream"], advisory["stream_seq"]
            message = await bus.stored(stream, sequence)
            if message is not None:
                reason = f"given up after {advisory['deliveries']} deliveries to {advisory['consumer']}"
                await bus.bury(message, reason)
                await bus.delete(stream, sequence)
            await raw.ack()


async def take_events(bus: Bus, hear: Callable[[Event], Awaitable[None]]) -> None:
    async for deliveries in bus.deliveries(EVENT_CONSUMER, Event):
        for delivery in deliveries:
            await hear(delivery.message)
            await delivery.ack()
