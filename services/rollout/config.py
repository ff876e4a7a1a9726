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
    kv_cache_gib: PositiveFloat = 4.0  # memory for keys and values, for each run's engine
    engine_python: str = sys.executable  # runs the process of an engine that has one; it must have vllm, or sglang
