"""The reward service: a worker on the bus, and RewardService for anyone."""

from __future__ import annotations

import asyncio

import grpc

from perilune import bus as buses
from perilune.api.reward.v1 import reward_pb2
from perilune.api.reward.v1.reward_pb2 import ListGradersRequest, ListGradersResponse, ScoreRequest, ScoreResponse
from perilune.api.reward.v1.reward_pb2_grpc import RewardServiceServicer, add_RewardServiceServicer_to_server
from perilune.api.trajectory.v1.trajectory_pb2 import ScoredTrajectory, Trajectory
from perilune.bus import Bus, Delivery
from perilune.errors import InvalidInputError, OverloadedError
from perilune.fleet import assignments
from perilune.service import Service, rpc_errors, until_stopping
from perilune.telemetry import tracer
from services.reward import scoring
from services.reward.config import RewardSettings
from services.reward.graders import GRADERS
from services.reward.graders.grader import Sample
from services.reward.processes import Processes


async def run(service: Service) -> None:
    """Consumes finished trajectories, produces scored ones, and answers RPCs until the service is told to stop."""
    settings = service.settings
    assert isinstance(settings, RewardSettings)
    with Processes(settings.grader_processes, settings.grader_timeout_s, settings.grader_memory_mb << 20) as processes:
        servicer = RewardServicer(processes, settings.max_waiting)
        add_RewardServiceServicer_to_server(servicer, service.server)
        await service.listen([reward_pb2.DESCRIPTOR.services_by_name["RewardService"]])
        async with Bus.connect(settings.nats_url, service.id) as bus:
            await service.ready()
            await until_stopping(service, work(bus, processes, settings.max_in_hand), _be_visible(service))


async def work(bus: Bus, processes: Processes, max_in_hand: int) -> None:
    """Scores trajectories as they come, many at a time: one that needs a process holds up no other."""
    room = asyncio.Semaphore(max_in_hand)
    async with asyncio.TaskGroup() as tasks:
        async for batch in bus.deliveries(buses.REWARD_CONSUMER, Trajectory):
            for delivery in batch:
                await room.acquire()
                tasks.create_task(_score_delivery(bus, delivery, processes)).add_done_callback(lambda _: room.release())


async def _score_delivery(bus: Bus, delivery: Delivery[Trajectory], processes: Processes) -> None:
    trajectory = delivery.message
    with tracer.start_as_current_span("score", context=delivery.context, attributes={"trajectory": trajectory.id}):
        score = await _score_trajectory(trajectory, processes)
        await bus.publish(
            buses.scored_subject(trajectory.run_id),
            ScoredTrajectory(trajectory=trajectory, score=score),
            f"{trajectory.id}/scored",
        )
        await delivery.ack()


async def _score_trajectory(trajectory: Trajectory, processes: Processes) -> reward_pb2.Score:
    prompt = trajectory.prompt
    question = "\n".join(message.content for message in prompt.messages)
    try:
        choices = scoring.read_choices(trajectory.graders)
    except InvalidInputError as error:
        return scoring.failed_score(trajectory.graders, str(error))
    return await scoring.score(Sample(question, prompt.reference, trajectory.response), choices, processes)


class RewardServicer(RewardServiceServicer):
    """RewardService, as the proto documents it."""

    def __init__(self, processes: Processes, max_waiting: int) -> None:
        self._processes = processes
        self._max_waiting = max_waiting

    async def Score(
        self, request: ScoreRequest, context: grpc.aio.ServicerContext[ScoreRequest, ScoreResponse]
    ) -> ScoreResponse:
        async with rpc_errors(context):
            choices = scoring.read_choices(request.graders)
            if self._processes.num_waiting >= self._max_waiting:
                raise OverloadedError("the grader processes are busy and their queue is full; try again with backoff")
            sample = Sample(request.question, request.reference, request.response)
            return ScoreResponse(score=await scoring.score(sample, choices, self._processes))

    async def ListGraders(
        self, request: ListGradersRequest, context: grpc.aio.ServicerContext[ListGradersRequest, ListGradersResponse]
    ) -> ListGradersResponse:
        return ListGradersResponse(graders=[grader.info() for grader in GRADERS.values()])


async def _be_visible(service: Service) -> None:
    """Keeps this worker on the master's list of the fleet; a reward worker serves every run."""
    async for _ in assignments(service):
        pass
