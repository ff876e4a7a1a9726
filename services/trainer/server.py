"""The trainer service: the weight stream, and a worker that trains the runs it leases.

Of several ranks the first one leases runs; the others follow its orders. All serve their part of the weights.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

import torch
from transformers.utils.logging import disable_progress_bar

from perilune.errors import InvalidInputError
from perilune.models.device import GIB, Device, Machine, choose_device, parse_device, rank_request
from perilune.models.machine import this_machine
from perilune.runtime.audit import Audit
from perilune.runtime.blobs import Blobs
from perilune.runtime.bus import Bus
from perilune.runtime.images import ImageCache
from perilune.runtime.service import Service, open_channel, patiently, until_stopping
from perilune.runtime.vitals import beat
from services.trainer.config import TrainerSettings
from services.trainer.ranks.group import END, RankLostError, Ranks
from services.trainer.versions.publisher import SERVICE, Publisher
from services.trainer.worker import Trainer, follow


async def run(service: Service) -> None:
    """Serves weights and trains runs until the service is asked to stop.

    UnavailableError: no NATS server, or another rank of this trainer is gone.
    """
    disable_progress_bar()  # transformers draws one for every file it reads or writes
    # All of torch's work is done by one thread: the event loop stays free to send weights.
    thread, loop = ThreadPoolExecutor(1, "torch"), asyncio.get_running_loop()
    assert isinstance(service.settings, TrainerSettings)
    device = await loop.run_in_executor(thread, device_of, service.settings)
    limit_memory(device, service.settings.memory_gib)
    ranks = await loop.run_in_executor(thread, Ranks.of_environment, device)
    if ranks.size > 1 and service.settings.hybrid:
        raise InvalidInputError("PERILUNE_HYBRID: a trainer of several ranks does not take turns with an engine")
    publisher = Publisher(ranks.rank, Audit(service.settings.home))
    publisher.add_to(service.server)
    await service.listen([SERVICE])
    addresses = await loop.run_in_executor(thread, ranks.gathered, service.address)
    if not ranks.leads:
        await service.ready()
        await follow(ranks, publisher, thread)
        return
    blobs = Blobs(service.settings.blob_url)
    try:
        async with (
            patiently(
                Bus.connect,
                service.settings.nats_url,
                service.id,
                blobs,
                patience_s=service.settings.patience_s,
            ) as bus,
            open_channel(service.settings.master_address) as channel,
        ):
            await service.ready()
            trainer = Trainer(service, bus, publisher, channel, ranks, addresses, thread, ImageCache(blobs))
            await until_stopping(service, trainer.work(), beat(service, trainer.vitals))
    finally:
        with contextlib.suppress(RankLostError):  # they end by themselves then
            await loop.run_in_executor(thread, ranks.order, END)


def device_of(settings: TrainerSettings) -> Device:
    """The device of this rank. SettingsError if the machine does not have what PERILUNE_DEVICE asks for."""
    request = parse_device(settings.device)
    machine = Machine() if request.type == "cpu" else this_machine()
    request = rank_request(request, machine, settings.local_rank, settings.num_local_ranks)
    return choose_device(request, machine)


def limit_memory(device: Device, memory_gib: float | None) -> None:
    """Has torch take no more of a card than PERILUNE_MEMORY_GIB, where that is set; more is out of memory."""
    if device.card and memory_gib:
        share = min(1.0, memory_gib * GIB / device.card.total_bytes)
        torch.cuda.set_per_process_memory_fraction(share, device.card.index)
