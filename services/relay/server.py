"""The relay service: a receiver for every run the master assigns, and WeightService for those below."""

from __future__ import annotations

from perilune.runtime.service import Service, until_stopping
from perilune.runtime.vitals import beat
from perilune.weights.relay import Relay
from perilune.weights.server import SERVICE
from services.relay.runs import follow_assignments


async def run(service: Service) -> None:
    """Relays every assigned run until the service is asked to stop."""
    relay = Relay()
    relay.add_to(service.server)
    await service.listen([SERVICE])
    await service.ready()
    await until_stopping(service, follow_assignments(service, relay), beat(service))
