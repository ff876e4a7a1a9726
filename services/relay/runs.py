"""The runs that the master assigns: their weights are received, and served to those below."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from perilune.api.master.v1.master_pb2 import RunAssignment
from perilune.recipe import read_stored_recipe
from perilune.runtime.fleet import assignments, report_serving
from perilune.runtime.service import Service
from perilune.weights.adapted import STREAM
from perilune.weights.receiver import Receiver
from perilune.weights.relay import Relay
from perilune.weights.shards import rank_sources

logger = logging.getLogger(__name__)


async def follow_assignments(service: Service, relay: Relay) -> None:
    """Receives the runs that are assigned, and lets go of those that no longer are."""
    receiving: dict[str, dict[AssignedStream, Receiving]] = {}
    async with asyncio.TaskGroup() as tasks:
        async for runs in assignments(service, serves_weights=True):
            wanted = {run.run_id: run for run in runs if run.weights_address}
            for run_id in receiving.keys() - wanted.keys():
                for each in receiving.pop(run_id).values():
                    each.task.cancel()
                relay.leave(run_id)
            for run_id, run in wanted.items():
                streams = _streams(run)
                received = receiving.setdefault(run_id, {})
                for stream in received.keys() - set(streams):  # of a rank that the trainer no longer has
                    received.pop(stream).task.cancel()
                for stream in streams:
                    if stream not in received:
                        receiver = relay.receiver(run_id, service.id, stream.adapter, stream.rank)
                        received[stream] = Receiving(receiver, tasks.create_task(_receive(service, receiver, run_id)))
                    sources = [run.weights_address, *run.weights_fallbacks]
                    received[stream].receiver.move(rank_sources(sources, run.rank_addresses, stream.rank))
                    if run.HasField("policy") and stream.carries_versions:
                        received[stream].receiver.expect(run.policy)


class AssignedStream(NamedTuple):
    """One of those that a run's weights come in."""

    adapter: str = ""
    rank: int = 0
    carries_versions: bool = True  # not so the base of what is trained


class Receiving(NamedTuple):
    """A receiver and the task that drives it."""

    receiver: Receiver
    task: asyncio.Task[None]


def _streams(run: RunAssignment) -> list[AssignedStream]:
    if read_stored_recipe(run.recipe_json).trainer.adapter is not None:
        return [AssignedStream(carries_versions=False), AssignedStream(STREAM)]
    return [AssignedStream(rank=rank) for rank in range(max(1, len(run.rank_addresses)))]


async def _receive(service: Service, receiver: Receiver, run_id: str) -> None:
    async for staged in receiver.versions():
        logger.info("%s: relays version %d", run_id, staged.manifest.version.number)
        await report_serving(service, run_id, staged.manifest.version, receiver.source)
