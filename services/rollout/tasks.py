"""Checks of the master's tasks before the engine sees them: what ends an engine ends all that it runs."""

from __future__ import annotations

import math

import numpy as np

from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1.trajectory_pb2 import SamplingParams, Trajectory
from perilune.codec import check_arrays, unpack
from perilune.errors import InvalidInputError

MAX_SAMPLES = 4096
MAX_VERSION = 1 << 31  # no run comes so far, and to wait for it would be for ever


def check_task(run_id: str, task: RolloutTask, num_embeddings: int) -> None:
    """InvalidInputError if a group that came on a run's subject cannot be sampled, and why."""
    if task.run_id != run_id:
        raise InvalidInputError(f"a group of the run {task.run_id[:200]!r} on another run's subject")
    indices = set(task.sample_indices)
    if not 0 < len(indices) == len(task.sample_indices) <= MAX_SAMPLES:
        raise InvalidInputError(
            f"a group asks for samples by index, each once, and for at most {MAX_SAMPLES}; not for "
            f"{len(task.sample_indices)} of which {len(indices)} differ"
        )
    if task.policy.number > MAX_VERSION:
        raise InvalidInputError(f"the group waits for version {task.policy.number}, which never comes")
    _check_sampling(task.sampling)
    if task.HasField("unfinished"):
        _check_unfinished(task.unfinished, num_embeddings)


def _check_sampling(params: SamplingParams) -> None:
    rule = params.repetition
    wrong = {
        "temperature": not (math.isfinite(params.temperature) and params.temperature >= 0),
        "top_p": not 0 <= params.top_p <= 1,
        "top_k": params.top_k >= 1 << 31,
        "stop": not all(params.stop),
        "repetition.similarity": not 0 <= rule.similarity <= 1,
    }
    if names := [name for name, is_wrong in wrong.items() if is_wrong]:
        raise InvalidInputError(f"the group's sampling parameters are out of range: {', '.join(names)}")


def _check_unfinished(sample: Trajectory, num_embeddings: int) -> None:
    check_arrays(sample)
    tokens = np.concatenate([unpack(sample.prompt_tokens), *(unpack(segment.tokens) for segment in sample.segments)])
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < num_embeddings:
        raise InvalidInputError(f"the unfinished sample has tokens that are none of the model's {num_embeddings}")
