"""Trajectories off the bus, scored, and back on it: many at a time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_UNAVAILABLE, Image, Message, Score
from perilune.api.trajectory.v1.trajectory_pb2 import Trajectory
from perilune.errors import InvalidInputError, UnavailableError
from perilune.ids import SampleId, StageId
from perilune.runtime import bus as buses
from perilune.runtime import subjects
from perilune.runtime.bus import Bus, Delivery
from perilune.runtime.telemetry import tracer
from perilune.runtime.wholes import with_score
from services.reward import scoring
from services.reward.graders.grader import GradingSample
from services.reward.processes import Processes

STUCK_S = 30.0  # beyond a score's deadline, after which the work on it is taken for stuck
MAX_TRIES = 4  # of a trajectory whose grader's sandbox or judge is away; then it is set aside with that status


async def work(
    bus: Bus,
    processes: Processes,
    max_in_hand: int,
    deadline_s: float,
    on_scored: Callable[[], None] = lambda: None,
) -> None:
    """Scores trajectories as they come, many at a time: one that needs a process holds up no other."""
    room = asyncio.Semaphore(max_in_hand)
    worker = _Worker(bus, processes, deadline_s, on_scored)
    async with asyncio.TaskGroup() as tasks:
        async for batch in bus.deliveries(subjects.REWARD_CONSUMER, Trajectory):
            for delivery in batch:
                await room.acquire()
                task = tasks.create_task(worker.score(delivery))
                task.add_done_callback(lambda _: room.release())


@dataclass
class _Worker:
    bus: Bus
    processes: Processes
    deadline_s: float
    on_scored: Callable[[], None]
    num_tries: Counter[int] = field(default_factory=Counter)  # of what needs a grader that is away, by its number

    async def score(self, delivery: Delivery[Trajectory]) -> None:
        """Scores a trajectory, and publishes that. Work that outlives its deadline is stuck: another worker gets it."""
        trajectory, number = delivery.message, delivery.number
        stuck_at = time.monotonic() + self.deadline_s + STUCK_S
        delivery.progresses = lambda: time.monotonic() < stuck_at
        ids = [str(sample_id(trajectory))] if trajectory.run_id == delivery.run_id else []
        async with buses.settled(delivery, delivery.run_id, ids, delay_s=2.0 ** (self.num_tries[number] + 1)):
            if trajectory.run_id != delivery.run_id:
                raise InvalidInputError(f"a trajectory of the run {trajectory.run_id[:200]!r} on another run's subject")
            attributes = {"trajectory": trajectory.id}
            with tracer.start_as_current_span("score", context=delivery.context, attributes=attributes):
                await self._publish_score(trajectory, number)
        if delivery.is_over:
            del self.num_tries[number]
            self.on_scored()

    async def _publish_score(self, trajectory: Trajectory, number: int) -> None:
        """UnavailableError if a grader's sandbox or judge is away, and it was tried less often than it may be."""
        score = await _score_trajectory(trajectory, self.processes, self.deadline_s)
        self.num_tries[number] += 1
        if score.status == SCORE_STATUS_UNAVAILABLE and self.num_tries[number] < MAX_TRIES:
            raise UnavailableError(f"a grader of {trajectory.id} is away")
        await self.bus.publish(
            subjects.scored_subject(trajectory.run_id),
            with_score(trajectory, score),
            str(StageId(sample_id(trajectory), "scored", trajectory.round, trajectory.whole.sequence)),
        )


def sample_id(trajectory: Trajectory) -> SampleId:
    """Returns which sample a trajectory is."""
    return SampleId(trajectory.group_id, trajectory.sample_index)


async def _score_trajectory(trajectory: Trajectory, processes: Processes, deadline_s: float) -> Score:
    prompt = trajectory.prompt
    question = "\n".join(message.content for message in prompt.messages)
    try:
        choices = scoring.read_choices(trajectory.graders)
    except InvalidInputError as error:
        return scoring.failed_score(trajectory.graders, str(error))
    conversation = tuple(Message(role=message.role, content=message.content) for message in prompt.messages)
    images = tuple(Image(uri=image.uri, media_type=image.media_type) for image in prompt.images)
    outcome = trajectory.outcome if trajectory.HasField("outcome") else None
    sample = GradingSample(question, prompt.reference, trajectory.response, conversation, images, outcome)
    return await scoring.score(sample, choices, processes, time.monotonic() + deadline_s)
