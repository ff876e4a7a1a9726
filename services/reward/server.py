"""The reward service: a worker on the bus, and RewardService for anyone, over gRPC and HTTP."""

from __future__ import annotations

import contextlib

from perilune.api.reward.v1 import reward_pb2
from perilune.api.reward.v1.reward_pb2_grpc import add_RewardServiceServicer_to_server
from perilune.runtime.blobs import Blobs
from perilune.runtime.bus import Bus
from perilune.runtime.fleet import assignments
from perilune.runtime.http import serve_http
from perilune.runtime.images import ImageCache
from perilune.runtime.service import Service, patiently, until_stopping
from perilune.runtime.vitals import beat
from services.reward import webhooks
from services.reward.answer_store import KeptAnswers
from services.reward.config import RewardSettings
from services.reward.graders.code import CodeSettings
from services.reward.plugins import plugged_in
from services.reward.processes import Processes
from services.reward.requests import Limits
from services.reward.servicer import RewardServicer
from services.reward.worker import work

REWARD_SERVICE = reward_pb2.DESCRIPTOR.services_by_name["RewardService"]


async def run(service: Service) -> None:
    """Consumes finished trajectories, produces scored ones, and answers calls until the service is asked to stop."""
    settings = service.settings
    assert isinstance(settings, RewardSettings)
    kept = KeptAnswers(settings.answers_file, settings.max_answers_mb << 20)
    limits = Limits(settings.max_text_mb << 20, settings.max_deadline_s)
    memory_bytes = settings.grader_memory_mb << 20
    with (
        contextlib.closing(kept),
        Processes(settings.grader_processes, settings.grader_timeout_s, memory_bytes) as processes,
    ):
        servicer = RewardServicer(processes, kept, limits, settings.max_waiting, settings.max_batch)
        add_RewardServiceServicer_to_server(servicer, service.server)
        await service.listen([REWARD_SERVICE])
        routes = webhooks.routes(servicer, service.gate)
        async with plugged_in(settings.plugins), serve_http(service, {REWARD_SERVICE: servicer}, routes):
            if settings.serve_runs:
                await _serve_runs(service, settings, processes)
            else:
                await service.ready()
                await service.stopping.wait()


async def _serve_runs(service: Service, settings: RewardSettings, processes: Processes) -> None:
    blobs = Blobs(settings.blob_url)
    async with patiently(Bus.connect, settings.nats_url, service.id, blobs, patience_s=settings.patience_s) as bus:
        await service.ready()
        limits, images = (settings.max_in_hand, settings.max_deadline_s), ImageCache(blobs)
        scoring_work = work(bus, processes, *limits, service.worked, images)
        sandbox = "sandbox", CodeSettings().sandbox_address
        await until_stopping(service, scoring_work, _stay_listed(service), beat(service, dependency=sandbox))


async def _stay_listed(service: Service) -> None:
    """Keeps this worker on the master's list of the fleet; a reward worker serves every run."""
    async for _ in assignments(service):
        pass
