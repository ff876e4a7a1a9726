"""The client of the weight stream: verified versions, for as long as the run lives."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass

import grpc

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.api.weights.v1.weights_pb2 import Manifest, SubscribeRequest, SubscribeResponse
from perilune.api.weights.v1.weights_pb2_grpc import WeightServiceStub
from perilune.errors import WeightStreamError
from perilune.service import open_channel
from perilune.weights import RawTensor, Stage

logger = logging.getLogger(__name__)

FIRST_RETRY_S, LAST_RETRY_S = 0.2, 10.0


@dataclass(frozen=True)
class StagedVersion:
    """A version that arrived whole and has its digests."""

    manifest: Manifest
    tensors: list[RawTensor]


async def staged_versions(
    run_id: str, worker_id: str, address: str, have: Callable[[], PolicyVersion | None]
) -> AsyncIterator[StagedVersion]:
    """Every version that the trainer at `address` publishes; connects again, with backoff, for ever.

    `have` says what is served now. A corrupt version is dropped, and asked for again.
    """
    retry_s, last_problem = FIRST_RETRY_S, ""
    async with open_channel(address) as channel:
        while True:
            request = SubscribeRequest(run_id=run_id, worker_id=worker_id, have=have())
            call = WeightServiceStub(channel).Subscribe(request)
            try:
                async for version in _staged(call):
                    retry_s, last_problem = FIRST_RETRY_S, ""
                    yield version
                problem = "the trainer ended the stream"
            except grpc.aio.AioRpcError as error:
                problem = f"{error.code().name}: {error.details()}"
            except WeightStreamError as error:
                problem = f"a version was dropped: {error}"
            finally:
                call.cancel()
            if problem != last_problem:
                logger.warning("weights of %s from %s: %s; trying again", run_id, address, problem)
            last_problem = problem
            await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))
            retry_s = min(2 * retry_s, LAST_RETRY_S)


async def _staged(frames: AsyncIterable[SubscribeResponse]) -> AsyncIterator[StagedVersion]:
    """Versions out of frames. WeightStreamError for frames out of order and for bytes without their digest."""
    stage: Stage | None = None
    async for frame in frames:
        kind = frame.WhichOneof("frame")
        if kind == "manifest":
            stage = Stage(frame.manifest)
        elif stage is None:
            raise WeightStreamError(f"{kind or 'an unknown frame'} came before a manifest")
        elif kind == "chunk":
            stage.add(frame.chunk)
        elif kind == "commit":
            yield StagedVersion(stage.manifest, await asyncio.to_thread(stage.commit, frame.commit))
            stage = None
