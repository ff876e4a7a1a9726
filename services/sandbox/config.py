"""The sandbox service's settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from perilune.runtime.service import ServiceSettings
from perilune.settings import Settings

_IMAGES = Path("perilune", "images")
Level = Literal["gvisor", "namespaces", "user-namespaces", "landlock", "rlimits"]


class JailSettings(Settings):
    """The jail's own settings: PERILUNE_SANDBOX_LEVELS, PERILUNE_SANDBOX_NUM_SLOTS, and so on."""

    model_config = SettingsConfigDict(env_prefix="PERILUNE_SANDBOX_")

    # The isolation levels that are accepted, by name; the strongest that the host allows is taken, and the service
    # does not start where none is available. The weaker ones (landlock, rlimits) must be asked for by name; so must
    # gvisor, for it is slower.
    levels: Annotated[frozenset[Level], NoDecode] = frozenset(("namespaces", "user-namespaces"))
    num_slots: PositiveInt = os.cpu_count() or 1  # jobs that run at a time
    max_waiting: NonNegativeInt = 256  # jobs beyond this are refused with "busy, retry after"
    python: Path | None = None  # the warm interpreter; none: the one below this service's environment
    runsc: Path | None = None  # gVisor's program; none: the one on the PATH
    first_uid: PositiveInt = 61000  # a slot's programs run under a uid of their own from here on, where we are root
    images: Path = Field(default_factory=lambda: _shared_data() / _IMAGES)  # where `perilune image add` puts them
    scratch: Path | None = None  # where work folders lie at levels that cannot mount; none: /dev/shm

    @field_validator("levels", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _shared_data() -> Path:
    """The folder of a machine's own data, or a user's: every slot's uid must be able to enter it."""
    return Path("/var/lib") if os.getuid() == 0 else Path.home() / ".local" / "share"


class SandboxSettings(ServiceSettings):
    """Settings of the sandbox service: limits that a caller may ask for, and sizes of its caches."""

    listen: str = "127.0.0.1:7050"
    jail: JailSettings = Field(default_factory=JailSettings)
    # Programs by tool, instead of those on the PATH: PERILUNE_TOOLS='{"lean": "/opt/lean/bin/lean"}'.
    tools: dict[str, str] = Field(default_factory=dict)
    builds_mb: PositiveInt = 1024  # of compiled programs, cached for further requests
    max_sessions: NonNegativeInt = 8  # each takes a slot of its own besides those for jobs
    session_idle_s: PositiveFloat = 600.0  # an unused session is closed after this time
    session_life_s: PositiveFloat = 24 * 3600.0
    session_cpu_s: PositiveFloat = 3600.0
    max_cpu_s: PositiveFloat = 600.0  # what a caller may ask for at most
    max_wall_s: PositiveFloat = 1200.0
    max_memory_mb: PositiveInt = 4096
    max_disk_mb: PositiveInt = 1024
    max_output_mb: PositiveInt = 32
    max_processes: PositiveInt = 512
    max_files: PositiveInt = 16_384
