"""A worker's membership of the fleet: it dials the master, and the open stream says which runs to serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import grpc

from perilune.api.master.v1.master_pb2 import JoinRequest, ReportServingRequest, RunAssignment
from perilune.api.master.v1.master_pb2_grpc import FleetServiceStub
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.channel import open_channel, refusal
from perilune.runtime.service import Service

logger = logging.getLogger(__name__)

REJOIN_S = 0.5


async def assignments(service: Service, serves_weights: bool = False) -> AsyncIterator[list[RunAssignment]]:
    """The runs to serve, at once and at every change; joins again when the master comes back.

    InvalidInputError if the master turns this worker away for its token or its authority.

    `serves_weights`: this service has a WeightService, so that the master may send others to it for their versions.
    """
    request = JoinRequest(
        worker_id=service.id, kind=service.name, address=service.address, serves_weights=serves_weights
    )
    async with open_channel(service.settings.master_address) as channel:
        reachable = True
        while True:
            try:
                async for answer in FleetServiceStub(channel).Join(request):
                    reachable = True
                    yield list(answer.runs)
            except grpc.aio.AioRpcError as error:
                if wrong := refusal(error, f"the master at {service.settings.master_address}"):
                    raise wrong from error
                if reachable:
                    logger.warning("the master at %s: %s", service.settings.master_address, error.details())
                reachable = False
            await asyncio.sleep(REJOIN_S)


async def report_serving(service: Service, run_id: str, policy: PolicyVersion, weights_from: str = "") -> None:
    """Tells the master which version this worker samples with from now on; a master that is away learns it later."""
    request = ReportServingRequest(worker_id=service.id, run_id=run_id, policy=policy, weights_from=weights_from)
    try:
        async with open_channel(service.settings.master_address) as channel:
            await FleetServiceStub(channel).ReportServing(request, timeout=5)
    except grpc.aio.AioRpcError as error:
        logger.warning("could not report version %d: %s", policy.number, error.details())
