"""Trajectories off the bus, scored, and back on it: many at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_UNAVAILABLE, Image, Message, Score
from perilune.api.trajectory.v1.trajectory_pb2 import ImageRef, Trajectory
from perilune.errors import InvalidInputError, NotFoundError, UnavailableError
from perilune.ids import DIGEST_CHARS, SampleId, StageId
from perilune.runtime import bus as buses
from perilune.runtime import subjects
from perilune.runtime.bus import Bus, Delivery
from perilune.runtime.images import ImageCache
from perilune.runtime.telemetry import tracer
from perilune.runtime.wholes import with_score
from services.reward import scoring
from services.reward.graders.grader import GradingSample
from services.reward.processes import Processes

STUCK_S = 30.0  # beyond a score's deadline, after which the work on it is taken for stuck
OUTAGE_S = 500.0  # that a grader's sandbox or judge may be away; then a trajectory is set aside with that status
MAX_DELAY_S = 15.0  # between two tries of a trajectory: fewer than MAX_DELIVERIES within an outage


async def work(
    bus: Bus,
    processes: Processes,
    max_in_hand: int,
    deadline_s: float,
    on_scored: Callable[[], None] = lambda: None,
    images: ImageCache | None = None,
) -> None:
    """Scores trajectories as they come, many at a time: one that needs a process holds up no other.

    `images`: those of prompts, for graders that look; without it those see none.
    """
    room = asyncio.Semaphore(max_in_hand)
    worker = _Worker(bus, processes, deadline_s, on_scored, images)
    async with asyncio.TaskGroup() as tasks:
        async for batch in bus.deliveries(subjects.REWARD_CONSUMER, Trajectory):
            for delivery in batch:
                await room.acquire()
                task = tasks.create_task(worker.score(delivery))
                task.add_done_callback(lambda _: room.release())


Name = tuple[int, str]  # of a message, which it keeps from delivery to delivery


@dataclass
class Wait:
    """Describes how long a trajectory has waited for a grader that is away."""

    since: float  # by the monotonic clock
    num_tries: int = 0


@dataclass
class _Worker:
    bus: Bus
    processes: Processes
    deadline_s: float
    on_scored: Callable[[], None]
    images: ImageCache | None = None
    waits: dict[Name, Wait] = field(default_factory=dict)  # of what needs a grader that is away

    async def score(self, delivery: Delivery[Trajectory]) -> None:
        """Scores a trajectory, and publishes that. Work that outlives its deadline is stuck: another worker gets it."""
        trajectory, name = delivery.message, delivery.name
        stuck_at = time.monotonic() + self.deadline_s + STUCK_S
        delivery.progresses = lambda: time.monotonic() < stuck_at
        ids = [str(sample_id(trajectory))] if trajectory.run_id == delivery.run_id else []
        async with buses.settled(
            delivery, delivery.run_id, ids, delay_s=delay_s(self.waits[name].num_tries if name in self.waits else 0)
        ):
            if trajectory.run_id != delivery.run_id:
                raise InvalidInputError(f"a trajectory of the run {trajectory.run_id[:200]!r} on another run's subject")
            attributes = {"trajectory": trajectory.id}
            with tracer.start_as_current_span("score", context=delivery.context, attributes=attributes):
                await self._publish_score(trajectory, name)
        if delivery.is_over:
            self.waits.pop(name, None)
            self.on_scored()

    async def _publish_score(self, trajectory: Trajectory, name: Name) -> None:
        """UnavailableError if a grader's sandbox or judge is away, and not for longer than it may be."""
        score = await _score_trajectory(trajectory, self.processes, self.deadline_s, self.images)
        if score.status == SCORE_STATUS_UNAVAILABLE:
            wait = self.waits.setdefault(name, Wait(time.monotonic()))
            wait.num_tries += 1
            if time.monotonic() - wait.since < OUTAGE_S:
                raise UnavailableError(f"a grader of {trajectory.id} is away: {_evidence(score)}")
        message = with_score(trajectory, score)
        place = trajectory.whole.sequence, message.graded[:DIGEST_CHARS]  # neither, where all comes in one message
        message_id = StageId(sample_id(trajectory), "scored", trajectory.round, *place)
        await self.bus.publish(subjects.scored_subject(trajectory.run_id), message, str(message_id))


def delay_s(num_tries: int) -> float:
    """Seconds before a trajectory is delivered again, after so many tries with a grader that was away.

    >>> [delay_s(num_tries) for num_tries in (0, 1, 2, 3)]
    [2.0, 4.0, 8.0, 15.0]
    """
    return min(MAX_DELAY_S, 2.0 ** (num_tries + 1))


def _evidence(score: Score) -> str:
    """What its graders say that is away."""
    found = [text for component in score.components for text in component.evidence.values()]
    return "; ".join(found)[: buses.MAX_REASON_CHARS]


def sample_id(trajectory: Trajectory) -> SampleId:
    """Returns which sample a trajectory is."""
    return SampleId(trajectory.group_id, trajectory.sample_index)


async def _score_trajectory(
    trajectory: Trajectory, processes: Processes, deadline_s: float, cache: ImageCache | None
) -> Score:
    prompt = trajectory.prompt
    question = "\n".join(message.content for message in prompt.messages)
    try:
        choices = scoring.read_choices(trajectory.graders)
        looks = cache is not None and any(choice.grader.looks(choice.options) for choice in choices)
        images = await _shown(prompt.images, cache) if cache and looks else ()
    except (InvalidInputError, NotFoundError) as error:
        return scoring.failed_score(trajectory.graders, str(error))
    conversation = tuple(Message(role=message.role, content=message.content) for message in prompt.messages)
    outcome = trajectory.outcome if trajectory.HasField("outcome") else None
    sample = GradingSample(question, prompt.reference, trajectory.response, conversation, images, outcome)
    return await scoring.score(sample, choices, processes, time.monotonic() + deadline_s)


async def _shown(images: Sequence[ImageRef], cache: ImageCache) -> tuple[Image, ...]:
    """A prompt's images with their bytes. NotFoundError, InvalidInputError: one is gone, or damaged."""
    return tuple([Image(data=await cache.get(image.digest), media_type=image.media_type) for image in images])
