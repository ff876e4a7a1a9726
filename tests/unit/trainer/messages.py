"""Batches as the master serves them."""

from __future__ import annotations

import numpy as np

from perilune.api.master.v1.master_pb2 import ScoredGroup
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.codec import pack
from perilune.models.response_text import ResponseText
from perilune.tasks import find_task
from services.trainer.policy.created import word_tokenizer

_TOKENIZER = word_tokenizer(find_task("search").VOCABULARY)
text_of = ResponseText(_TOKENIZER, end_tokens={_TOKENIZER.eos_token_id})


def group(seed: int, policy: PolicyVersion, name: str = "g", size: int = 4) -> ScoredGroup:
    """A group of random tokens whose first sample is right."""
    rng = np.random.default_rng(seed)
    message = ScoredGroup(group_id=name)
    for number in range(size):
        scored = message.samples.add()
        scored.trajectory.id = f"{name}/{number}"
        scored.trajectory.prompt_tokens.CopyFrom(pack(rng.integers(3, 40, 5).astype(np.int32)))
        response = rng.integers(3, 40, rng.integers(3, 20)).astype(np.int32)
        drawn_with = np.full(len(response), -3.0, np.float32)
        scored.trajectory.segments.add(policy=policy, tokens=pack(response), logprobs=pack(drawn_with))
        scored.trajectory.response = text_of(response.tolist())
        scored.score.status = SCORE_STATUS_OK
        scored.score.value = float(number == 0)
        scored.score.components.add(grader="pair", status=SCORE_STATUS_OK, value=float(number == 0), weight=1)
    return message


def batch(iteration: int, policy: PolicyVersion, num_groups: int = 3) -> list[ScoredGroup]:
    return [group(100 * iteration + number, policy, f"{iteration}-{number}") for number in range(num_groups)]
