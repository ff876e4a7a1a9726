"""The master service: its RPCs, its page, and what it takes off the bus; or only reading, beside a running
master, or only recording evaluations, where none runs."""

from __future__ import annotations

from collections.abc import Awaitable

from perilune.api.master.v1 import master_pb2, master_pb2_grpc
from perilune.runtime.blobs import Blobs, sweep
from perilune.runtime.bus import Bus
from perilune.runtime.http import serve_http
from perilune.runtime.service import Service, patiently, until_stopping
from perilune.runtime.telemetry import is_exporting
from services.master.api.evaluations import EvaluationService
from services.master.api.fleet import FleetService
from services.master.api.runs import RunService
from services.master.api.training import TrainingService
from services.master.config import MasterSettings
from services.master.gauges import keep_gauges
from services.master.intake import take_advisories, take_dead_letters, take_events, take_partials, take_scores
from services.master.liveness import watch_fleet
from services.master.migrate import migrate_if_older
from services.master.registry import Registry
from services.master.single_master import has_master, single_master, until_released
from services.master.store import Store
from services.master.streams import keep_streams
from services.master.web import page_routes

_SERVICES = master_pb2.DESCRIPTOR.services_by_name


async def run(service: Service) -> None:
    """Drives the runs of its database until the service is asked to stop.

    UnavailableError: no database or NATS server within the settings' patience, or another master drives the runs.
    """
    settings = service.settings
    assert isinstance(settings, MasterSettings)
    settings.make_home()
    if settings.read_only:
        await migrate_if_older(settings)
        async with Store.open(settings.database, migrate=False) as store:
            await until_released(settings.database)  # a master whose launcher was killed still ends
            await _serve_records(service, store, settings, may_write=False)
        return
    if settings.record_only:
        async with (
            patiently(single_master, settings.database, patience_s=settings.patience_s),
            Store.open(settings.database) as store,
        ):
            await _serve_records(service, store, settings, may_write=True)
        return
    blobs = Blobs(settings.blob_url)
    async with (
        patiently(single_master, settings.database, patience_s=settings.patience_s) as lost,
        patiently(Store.open, settings.database, patience_s=settings.patience_s) as store,
        patiently(Bus.connect, settings.nats_url, service.id, blobs, patience_s=settings.patience_s) as bus,
    ):
        await _serve(service, store, bus, blobs, lost)


async def _serve_records(service: Service, store: Store, settings: MasterSettings, *, may_write: bool) -> None:
    """Answers about runs, which another master may drive, and about evaluations, recording them if it may."""

    async def is_driven() -> bool:
        return not may_write and await has_master(settings.database)

    readers = RunService(store, None, None, is_driven)
    master_pb2_grpc.add_RunServiceServicer_to_server(readers, service.server)
    evaluations = EvaluationService(store, may_write=may_write)
    master_pb2_grpc.add_EvaluationServiceServicer_to_server(evaluations, service.server)
    await service.listen([_SERVICES["RunService"], _SERVICES["EvaluationService"]])
    await service.ready()
    await service.stopping.wait()


async def _serve(service: Service, store: Store, bus: Bus, blobs: Blobs, lost: Awaitable[None]) -> None:
    assert isinstance(service.settings, MasterSettings)
    await bus.declare()
    registry = Registry(store, bus, blobs, service.settings.image_hosts)
    await registry.recover()
    fleet = FleetService(registry)
    runs = RunService(store, registry, fleet, settings=service.settings)
    evaluations = EvaluationService(store, may_write=True)
    master_pb2_grpc.add_RunServiceServicer_to_server(runs, service.server)
    master_pb2_grpc.add_FleetServiceServicer_to_server(fleet, service.server)
    master_pb2_grpc.add_EvaluationServiceServicer_to_server(evaluations, service.server)
    master_pb2_grpc.add_TrainingServiceServicer_to_server(TrainingService(store, registry), service.server)
    await service.listen(list(_SERVICES.values()))
    faces = {_SERVICES["RunService"]: runs, _SERVICES["EvaluationService"]: evaluations}
    async with serve_http(service, faces, page_routes(blobs, service.gate)):
        await service.ready()
        try:
            await until_stopping(
                service,
                lost,
                take_scores(bus, store, registry.notify),
                take_partials(bus, store, registry.notify),
                take_dead_letters(bus, store, registry.notify),
                take_events(bus, registry.hear),
                take_advisories(bus),
                sweep(blobs),
                keep_streams(bus, registry.ask_again),
                watch_fleet(registry.liveness, bus.answers, registry.tell_of),
                *([keep_gauges(store, registry, fleet)] if is_exporting() else []),
            )
        finally:
            await registry.close()
