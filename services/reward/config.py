"""What the reward service is told from outside."""

from __future__ import annotations

import os

from pydantic import PositiveFloat, PositiveInt

from perilune.service import ServiceSettings


class RewardSettings(ServiceSettings):
    max_in_hand: PositiveInt = 256  # trajectories taken from the bus and not yet scored
    max_waiting: PositiveInt = 1024  # RPCs beyond this are refused with RESOURCE_EXHAUSTED
    grader_processes: PositiveInt = os.cpu_count() or 1
    grader_timeout_s: PositiveFloat = 5.0  # for one response, in a grader process
    grader_memory_mb: PositiveInt = 1024  # address space of a grader process
