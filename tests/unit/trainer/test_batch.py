"""What the trainer takes from the master, and what it refuses."""

from __future__ import annotations

import numpy as np

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_TIMEOUT
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.codec import pack
from services.trainer.batch import Ages, read_group
from tests.unit.trainer.messages import group
from tests.unit.trainer.models import recipe

OLD, NEW = PolicyVersion(number=1, digest="old"), PolicyVersion(number=2, digest="new")
CURRENT, ALL = Ages(NEW), Ages(NEW, max_staleness=1, skips_older=False)


def test_segments_become_one_sequence_with_the_environment_left_out() -> None:
    message = group(0, NEW, size=1)
    trajectory = message.samples[0].trajectory
    del trajectory.segments[:]
    trajectory.prompt_tokens.CopyFrom(pack(np.array([1, 4], np.int32)))
    old, tool, new = (trajectory.segments.add() for _ in range(3))
    old.policy.CopyFrom(OLD)
    old.tokens.CopyFrom(pack(np.array([5, 6], np.int32)))
    old.full_logprobs.CopyFrom(pack(np.array([-1, -2], np.float32)))
    old.logprobs.CopyFrom(pack(np.array([-1.5, -2.5], np.float32)))
    tool.environment = True
    tool.tokens.CopyFrom(pack(np.array([7], np.int32)))
    new.policy.CopyFrom(NEW)
    new.tokens.CopyFrom(pack(np.array([8, 2], np.int32)))
    new.full_logprobs.CopyFrom(pack(np.array([-3, -4], np.float32)))

    (sample,) = read_group(message, ALL, {"old", "new"}).samples
    assert sample.tokens.tolist() == [1, 4, 5, 6, 7, 8, 2]
    assert sample.in_loss.tolist() == [False, False, True, True, False, True, True]
    assert (sample.num_response_tokens, sample.staleness) == (4, 1)
    assert sample.behaviour_logprobs is not None
    np.testing.assert_array_equal(sample.behaviour_logprobs[2:4], np.array([-1.5, -2.5], np.float32))
    # Log-probs of another version cannot be compared with this one's.
    np.testing.assert_array_equal(sample.current_logprobs, np.array([np.nan] * 5 + [-3, -4], np.float32))


def test_tokens_of_earlier_iterations_are_context_where_only_current_ones_are_trained_on() -> None:
    message = group(0, OLD, size=1)
    new = message.samples[0].trajectory.segments.add(policy=NEW, tokens=pack(np.array([8, 2], np.int32)))
    num_old = len(message.samples[0].trajectory.segments[0].tokens.data) // 4
    (sample,) = read_group(message, CURRENT, {"old", "new"}).samples
    assert sample.in_loss.tolist() == [False] * (5 + num_old) + [True] * 2
    assert (sample.num_response_tokens, sample.staleness) == (num_old + 2, 0)
    assert new.policy == NEW


def test_tokens_older_than_the_recipe_allows_are_refused() -> None:
    ages = Ages(PolicyVersion(number=3, digest="newer"), max_staleness=1, skips_older=False)
    read = read_group(group(0, OLD), ages, {"old", "newer"})
    assert not read.samples
    assert "tokens of version 1 in the batch of version 3" in read.refused[0].reason


def test_a_sample_of_a_policy_that_was_never_published_is_refused_and_the_others_are_taken() -> None:
    message = group(0, NEW)
    message.samples[1].trajectory.sample_index = 1
    message.samples[1].trajectory.segments[0].policy.digest = "forged"
    read = read_group(message, ALL, {"new"})
    assert [sample.id for sample in read.samples] == ["g/0", "g/2", "g/3"]
    (refused,) = read.refused
    assert (refused.group_id, refused.sample_index) == ("g", 1)
    assert "was written by version 2 with digest forged, which this trainer never published" in refused.reason


def test_damaged_arrays_and_unknown_tokens_are_refused() -> None:
    message = group(0, NEW)
    for sample in message.samples[:3]:
        sample.trajectory.segments[0].ClearField("logprobs")
    message.samples[0].trajectory.segments[0].tokens.data += b"x"
    message.samples[1].trajectory.segments[0].tokens.CopyFrom(pack(np.array([5, 40], np.int32)))
    message.samples[2].trajectory.segments[0].tokens.CopyFrom(pack(np.array([-1], np.int32)))
    read = read_group(message, CURRENT, {"new"}, vocab_size=40)
    assert [sample.id for sample in read.samples] == ["g/3"]
    assert [refused.reason.split(";")[0] for refused in read.refused][1:] == [
        "sample g/1 has tokens that are not in the vocabulary of 40",
        "sample g/2 has tokens that are not in the vocabulary of 40",
    ]
    assert "no whole number of" in read.refused[0].reason


def test_a_failed_grader_is_no_reward() -> None:
    message = group(0, NEW)
    message.samples[2].score.status = SCORE_STATUS_TIMEOUT
    message.samples[2].score.ClearField("value")
    read = read_group(message, CURRENT, {"new"})
    assert [sample.id for sample in read.samples] == ["g/0", "g/1", "g/3"]
    assert "g/2 has no valid score" in read.refused[0].reason


def test_the_first_grader_says_what_is_right() -> None:
    message = group(0, NEW, size=2)
    for scored in message.samples:
        scored.score.components.add(grader="format", value=1.0, weight=0.1)
        scored.score.value += 0.1
    assert [sample.correct for sample in read_group(message, CURRENT, {"new"}).samples] == [True, False]


def test_at_another_temperature_the_engine_is_compared_with_on_what_it_drew_from() -> None:
    message = group(0, NEW, size=1)
    message.samples[0].trajectory.segments[0].full_logprobs.CopyFrom(pack(np.full(3, -9, np.float32)))
    (sample,) = read_group(message, Ages.of(recipe(rollout={"temperature": 0.7}), NEW), {"new"}).samples
    np.testing.assert_array_equal(sample.current_logprobs[5:], -3.0)
