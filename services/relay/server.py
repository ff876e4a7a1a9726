"""The relay service: a receiver for every run the master assigns, and WeightService for those below."""

from __future__ import annotations

import asyncio
import logging

from perilune.fleet import assignments, report_serving
from perilune.service import Service, until_stopping
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
    receiving: dict[str, tuple[Receiver, asyncio.Task[None]]] = {}
    async with asyncio.TaskGroup() as tasks:
        async for runs in assignments(service, serves_weights=True):
            wanted = {run.run_id: run for run in runs if run.weights_address}
            for run_id in receiving.keys() - wanted.keys():
                receiving.pop(run_id)[1].cancel()
                relay.leave(run_id)
            for run_id, run in wanted.items():
                if run_id not in receiving:
                    receiver = relay.receiver(run_id, service.id)
                    receiving[run_id] = receiver, tasks.create_task(_receive(service, receiver, run_id))
                receiver = receiving[run_id][0]
                receiver.move([run.weights_address, *run.weights_fallbacks])
                if run.HasField("policy"):
                    receiver.expect(run.policy)


async def _receive(service: Service, receiver: Receiver, run_id: str) -> None:
    async for staged in receiver.versions():
        logger.info("%s: relays version %d", run_id, staged.manifest.version.number)
        await report_serving(service, run_id, staged.manifest.version, receiver.source)
