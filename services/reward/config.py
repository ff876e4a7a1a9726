"""Settings of the reward service."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from perilune.runtime.service import ServiceSettings


class RewardSettings(ServiceSettings):
    """Settings of the reward service, from the environment."""

    serve_runs: bool = True  # score the trajectories on the bus; off: answer calls alone, with no NATS and no master
    max_in_hand: PositiveInt = 256  # trajectories taken from the bus and not yet scored
    max_waiting: PositiveInt = 4096  # RPCs beyond this are refused with RESOURCE_EXHAUSTED
    max_batch: PositiveInt = 20_000  # requests in one ScoreBatch or Rescore
    max_text_mb: PositiveInt = 8  # of one request
    max_deadline_s: PositiveFloat = 300.0  # longest time that one score may take
    answers_file: Path | None = None  # where answers with an idempotency key are kept; in memory if not given
    max_answers_mb: PositiveInt = 256
    # Graders in processes of their own: name to address, as JSON (`perilune.grading.plugin`).
    plugins: dict[str, str] = Field(default_factory=dict)
    grader_processes: PositiveInt = os.cpu_count() or 1
    grader_timeout_s: PositiveFloat = 5.0  # for one response, in a grader process
    grader_memory_mb: PositiveInt = 1024  # address space of a grader process
