"""The rollout service's settings."""

from __future__ import annotations

import sys

from pydantic import PositiveFloat, PositiveInt

from perilune.models.device import DeviceSetting
from perilune.runtime.service import ServiceSettings


class RolloutSettings(ServiceSettings):
    """Settings of a rollout worker, from PERILUNE_ variables."""

    device: DeviceSetting = "auto"  # where the torch engine computes: auto, cpu, cuda, cuda:N
    num_threads: PositiveInt = 1  # that torch computes with; start more workers rather than more threads
    sandbox_address: str = "127.0.0.1:7050"  # for runs whose policy may execute programs
    teacher_address: str = "127.0.0.1:7060"  # for runs with a teacher: RolloutService of its model
    # Memory for keys and values, for each run's engine. Not given: what a card has room for; 4 elsewhere, and for vLLM
    # and SGLang.
    kv_cache_gib: PositiveFloat | None = None
    engine_python: str = sys.executable  # runs the process of an engine that has one; it must have vllm, or sglang

    @property
    def kv_cache_bytes(self) -> int | None:
        """The memory for keys and values, if it is given."""
        return None if self.kv_cache_gib is None else int(self.kv_cache_gib * 2**30)
