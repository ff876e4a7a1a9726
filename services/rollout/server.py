"""The rollout service: a worker for every run the master assigns, and RolloutService, which says how busy it is."""

from __future__ import annotations

import torch

from perilune.api.rollout.v1 import rollout_pb2
from perilune.api.rollout.v1.rollout_pb2_grpc import add_RolloutServiceServicer_to_server
from perilune.runtime.blobs import Blobs
from perilune.runtime.bus import Bus
from perilune.runtime.http import serve_http
from perilune.runtime.images import ImageCache
from perilune.runtime.service import Service, patiently, until_stopping
from perilune.runtime.vitals import beat
from perilune.weights.relay import Relay
from perilune.weights.server import SERVICE as WEIGHT_SERVICE
from services.rollout.config import RolloutSettings
from services.rollout.openai.endpoint import Endpoint
from services.rollout.runs import Workers
from services.rollout.servicer import RolloutServicer


async def run(service: Service) -> None:
    """Samples for every assigned run until the service is asked to stop."""
    assert isinstance(service.settings, RolloutSettings)
    torch.set_num_threads(service.settings.num_threads)
    settings = service.settings
    blobs = Blobs(settings.blob_url)
    async with patiently(Bus.connect, settings.nats_url, service.id, blobs, patience_s=settings.patience_s) as bus:
        relay = Relay()
        relay.add_to(service.server)
        workers = Workers(service, bus, relay, ImageCache(blobs))
        descriptor = rollout_pb2.DESCRIPTOR.services_by_name["RolloutService"]
        servicer = RolloutServicer(service.id, workers.all)
        add_RolloutServiceServicer_to_server(servicer, service.server)
        await service.listen([descriptor, WEIGHT_SERVICE])
        async with serve_http(service, {descriptor: servicer}, Endpoint(workers.all, service.gate).routes()):
            await service.ready()
            await until_stopping(service, workers.follow_assignments(), beat(service, workers.vitals))
