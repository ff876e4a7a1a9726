"""The relay service: a receiver for every run the master assigns, and WeightService for those below."""

from __future__ import annotations

import asyncio
import logging

from perilune.api.master.v1.master_pb2 import RunAssignment
from perilune.fleet import assignments, report_serving
from perilune.recipe import recipe_from_json
from perilune.service import Service, until_stopping
from perilune.weights.adapted import STREAM
from perilune.weights.receiver import Receiver
from perilune.weights.relay import Relay
from perilune.weights.server import SERVICE

logger = logging.getLogger(__name__)


async def run(service: Service) -> None:
    """Relays every assigned run until the service is told to stop."""
    relay = Relay()
    relay.add_to(service.server)
    await service.listen([SERVICE])
    await service.ready()
    await until_stopping(service, follow_assignments(service, relay))


async def follow_assignments(service: Service, relay: Relay) -> None:
    """Receives the runs that are assigned, and lets go of those that no longer are."""
    receiving: dict[str, list[tuple[Receiver, asyncio.Task[None]]]] = {}
    async with asyncio.TaskGroup() as tasks:
        async for runs in assignments(service, serves_weights=True):
            wanted = {run.run_id: run for run in runs if run.weights_address}
            for run_id in receiving.keys() - wanted.keys():
                for _, task in receiving.pop(run_id):
                    task.cancel()
                relay.leave(run_id)
            for run_id, run in wanted.items():
                if run_id not in receiving:
                    receiving[run_id] = [
                        (receiver, tasks.create_task(_receive(service, receiver, run_id)))
                        for receiver in _receivers(service, relay, run)
                    ]
                for receiver, _ in receiving[run_id]:
                    receiver.move([run.weights_address, *run.weights_fallbacks])
                if run.HasField("policy"):
                    receiving[run_id][-1][0].expect(run.policy)


def _receivers(service: Service, relay: Relay, run: RunAssignment) -> list[Receiver]:
    """One for each stream of a run; the last is the one whose versions are the run's."""
    is_adapted = recipe_from_json(run.recipe_json).trainer.adapter is not None
    return [relay.receiver(run.run_id, service.id, adapter) for adapter in (["", STREAM] if is_adapted else [""])]


async def _receive(service: Service, receiver: Receiver, run_id: str) -> None:
    async for staged in receiver.versions():
        logger.info("%s: relays version %d", run_id, staged.manifest.version.number)
        await report_serving(service, run_id, staged.manifest.version, receiver.source)
