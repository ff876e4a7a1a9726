"""Settings of the trainer service."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, model_validator

from perilune.models.device import DeviceSetting
from perilune.runtime.service import ServiceSettings


class TrainerSettings(ServiceSettings):
    """Gives each rank that torchrun starts on one machine ports of its own: those that are set, the next, and so on."""

    device: DeviceSetting = "auto"  # where the policy is trained: auto, cpu, cuda, cuda:N
    memory_gib: PositiveFloat | None = None  # of its card that it may take; all that is free, if not given
    rank: int = Field(0, validation_alias="RANK")
    local_rank: int = Field(0, validation_alias="LOCAL_RANK")
    num_local_ranks: int = Field(1, validation_alias="LOCAL_WORLD_SIZE")

    @model_validator(mode="after")
    def _tell_ranks_apart(self) -> TrainerSettings:
        self.listen = _moved(self.listen, self.local_rank)
        self.advertise = _moved(self.advertise, self.local_rank) if self.advertise else None
        if self.metrics_port:
            self.metrics_port += self.local_rank
        if self.rank:
            self.worker_id = f"{self.worker_id}-rank-{self.rank}"
            self.ready_file = None  # the service is ready when its first rank is
        return self


def _moved(address: str, num_ports: int) -> str:
    """The address so many ports further; port 0 is any free one, and stays."""
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + num_ports}" if port.isdigit() and int(port) else address
