"""`python -m services.master`: the master as a process."""

from __future__ import annotations

from perilune.api.master.v1 import master_pb2, master_pb2_grpc
from perilune.bus import Bus
from perilune.service import Service, main, until_stopping
from services.master.api.fleet import FleetService
from services.master.api.runs import RunService
from services.master.api.training import TrainingService
from services.master.config import MasterSettings
from services.master.intake import take_advisories, take_dead_letters, take_events, take_scores
from services.master.registry import Registry
from services.master.store import Store

_SERVICES = master_pb2.DESCRIPTOR.services_by_name


async def run(service: Service) -> None:
    settings = service.settings
    assert isinstance(settings, MasterSettings)
    settings.home.mkdir(parents=True, exist_ok=True)
    async with Store.open(settings.database, migrate=not settings.read_only) as store:
        if settings.read_only:
            await _serve_readers(service, store)
        else:
            async with Bus.connect(settings.nats_url, service.id) as bus:
                await _serve(service, store, bus)


async def _serve_readers(service: Service, store: Store) -> None:
    master_pb2_grpc.add_RunServiceServicer_to_server(RunService(store, None, None), service.server)
    await service.listen([_SERVICES["RunService"]])
    await service.ready()
    await service.stopping.wait()


async def _serve(service: Service, store: Store, bus: Bus) -> None:
    await bus.declare()
    registry = Registry(store, bus)
    await registry.recover()
    fleet = FleetService(registry)
    master_pb2_grpc.add_RunServiceServicer_to_server(RunService(store, registry, fleet), service.server)
    master_pb2_grpc.add_FleetServiceServicer_to_server(fleet, service.server)
    master_pb2_grpc.add_TrainingServiceServicer_to_server(TrainingService(store, registry), service.server)
    await service.listen(list(_SERVICES.values()))
    await service.ready()
    try:
        await until_stopping(
            service,
            take_scores(bus, store, registry.notify),
            take_dead_letters(bus, store, registry.notify),
            take_events(bus, registry.hear),
            take_advisories(bus),
        )
    finally:
        await registry.close()


if __name__ == "__main__":
    main("master", MasterSettings, run)
