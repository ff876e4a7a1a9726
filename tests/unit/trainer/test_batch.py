"""What the trainer takes from the master, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_TIMEOUT
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.codec import pack
from perilune.errors import InvalidInputError
from services.trainer.batch import read_group
from tests.unit.trainer.messages import group

OLD, NEW = PolicyVersion(number=1, digest="old"), PolicyVersion(number=2, digest="new")


def test_segments_become_one_sequence_with_the_environment_left_out() -> None:
    message = group(0, NEW, size=1)
    trajectory = message.samples[0].trajectory
    del trajectory.segments[:]
    trajectory.prompt_tokens.CopyFrom(pack(np.array([1, 4], np.int32)))
    old, tool, new = (trajectory.segments.add() for _ in range(3))
    old.policy.CopyFrom(OLD)
    old.tokens.CopyFrom(pack(np.array([5, 6], np.int32)))
    old.full_logprobs.CopyFrom(pack(np.array([-1, -2], np.float32)))
    tool.environment = True
    tool.tokens.CopyFrom(pack(np.array([7], np.int32)))
    new.policy.CopyFrom(NEW)
    new.tokens.CopyFrom(pack(np.array([8, 2], np.int32)))
    new.full_logprobs.CopyFrom(pack(np.array([-3, -4], np.float32)))

    (sample,) = read_group(message, "new", {"old", "new"}).samples
    assert sample.tokens.tolist() == [1, 4, 5, 6, 7, 8, 2]
    assert sample.in_loss.tolist() == [False, False, True, True, False, True, True]
    assert sample.num_response_tokens == 4
    # Log-probs of another version cannot be compared with this one's.
    np.testing.assert_array_equal(sample.engine_logprobs, np.array([np.nan] * 5 + [-3, -4], np.float32))


def test_a_policy_that_was_never_published_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"g/0 was written by version 1 .* never published"):
        read_group(group(0, OLD), "new", {"new"})


def test_a_failed_grader_is_no_reward() -> None:
    message = group(0, NEW)
    message.samples[2].score.status = SCORE_STATUS_TIMEOUT
    message.samples[2].score.ClearField("value")
    with pytest.raises(InvalidInputError, match="g/2 has no valid score"):
        read_group(message, "new", {"new"})


def test_the_first_grader_says_what_is_right() -> None:
    message = group(0, NEW, size=2)
    for scored in message.samples:
        scored.score.components.add(grader="format", value=1.0, weight=0.1)
        scored.score.value += 0.1
    assert [sample.correct for sample in read_group(message, "new", {"new"}).samples] == [True, False]
