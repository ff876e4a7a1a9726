"""Ids of groups, samples and messages: the same on the wire as ever, there and back, and nothing else."""

from __future__ import annotations

import pytest

from perilune.errors import InvalidInputError
from perilune.ids import (
    GroupId,
    MessageId,
    RestId,
    SampleId,
    StageId,
    TaskId,
    WholeId,
    belongs,
    dead_letter_id,
    event_id,
    parse_group,
    parse_message,
    parse_sample,
)

SAMPLE = SampleId("sums-1.0.7", 3)


@pytest.mark.parametrize(
    ("group", "text"),
    [(GroupId("sums-1", 0, 7), "sums-1.0.7"), (GroupId("r", 12, 3, "greedy"), "r.12.greedy.3")],
)
def test_a_group(group: GroupId, text: str) -> None:
    assert str(group) == text
    assert parse_group(text) == group
    assert belongs(text, group.run_id)


@pytest.mark.parametrize("text", ["", "r", "r.1", "r.a.1", "r.1.", ".1.1", "r.1.greedy", "r.01.2", "r.1.2/3", "r.1.²"])
def test_no_group(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no id of a group"):
        parse_group(text)


def test_a_run_whose_name_begins_like_another() -> None:
    assert not belongs("sums-10.0.7", "sums-1")
    assert not belongs("sums-1", "sums-1")


@pytest.mark.parametrize("sample", [SAMPLE, SampleId("g", 0), SampleId("r.1.greedy.2", (1 << 32) - 1)])
def test_a_sample(sample: SampleId) -> None:
    assert parse_sample(str(sample)) == sample


@pytest.mark.parametrize(
    "text", ["", "r.0.1", "r.0.1/", "/3", "r.0.1/-1", "r.0.1/²", "r.0.1/4294967296", "g/1/2", "g/01"]
)
def test_no_sample(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no id of a sample"):
        parse_sample(text)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (TaskId("sums-1.0.7", 1), "sums-1.0.7/1"),
        (RestId(SAMPLE, 2, 1), "sums-1.0.7/3/round-2-1"),
        (StageId(SAMPLE, "finished", 0), "sums-1.0.7/3/finished-0"),
        (StageId(SAMPLE, "partial", 1), "sums-1.0.7/3/partial-1"),
        (StageId(SAMPLE, "scored", 10), "sums-1.0.7/3/scored-10"),
        (StageId(SAMPLE, "scored", 10, 77), "sums-1.0.7/3/scored-10-77"),
        (StageId(SAMPLE, "scored", 10, 77, "0a1f"), "sums-1.0.7/3/scored-10-77~0a1f"),
        (StageId(SAMPLE, "partial", 0, 0, "0a1f"), "sums-1.0.7/3/partial-0~0a1f"),
        (WholeId(SAMPLE, 1, "0a" * 32), "sums-1.0.7/3/whole-1-" + "0a" * 32),
    ],
)
def test_a_message(message: MessageId, text: str) -> None:
    assert str(message) == text
    assert parse_message(text) == message


def test_a_message_of_the_first_versions_says_no_round() -> None:
    assert parse_message("r.0.1/7/finished") == StageId(SampleId("r.0.1", 7), "finished", 0)


@pytest.mark.parametrize(
    "text", ["", "g", "g/", "g/x", "g/1/", "g/1/Finished-0", "g/1/finished-x", "g/x/scored-0", "a/b/c/d"]
)
def test_no_message(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no id of a"):
        parse_message(text)


def test_messages_about_neither() -> None:
    assert event_id("run", "trainer-1", "warmup", 40) == "run/trainer-1/warmup/40"
    assert event_id("run", "rollout-1", "rollout_failed") == "run/rollout-1/rollout_failed"
    assert dead_letter_id("TRAJECTORIES/12", ["g/0", "g/1"]) == "dead/TRAJECTORIES/12/2/g/0"
    assert dead_letter_id("TRAJECTORIES/12", []) == "dead/TRAJECTORIES/12/"
