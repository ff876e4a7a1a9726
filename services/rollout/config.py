"""What the rollout service is told from outside."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt

from perilune.service import ServiceSettings


class RolloutSettings(ServiceSettings):
    num_threads: PositiveInt = 1  # that torch computes with; start more workers rather than more threads
    kv_cache_gib: PositiveFloat = 4.0  # memory for keys and values, for each run's engine
