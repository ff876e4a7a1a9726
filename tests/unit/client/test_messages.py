"""What cannot be sent is named by its field, by every client; scores print the names of their statuses."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format

from perilune.api.reward.v1.reward_pb2 import (
    SCORE_STATUS_OK,
    SCORE_STATUS_TIMEOUT,
    Component,
    Message,
    Score,
    ScoredAnswer,
)
from perilune.client import RewardClient, RunClient, SandboxClient, WeightsClient, grader, score_request
from perilune.client.sandbox import run_request, session_request, write_files
from perilune.client.scores import ScoreStatus, named
from perilune.errors import InvalidInputError

HALF = "a\ud83d"
NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: score_request(HALF, "4"), r"response cannot be sent: .*lone surrogate '\\ud83d', at 1"),
        (lambda: score_request("4", HALF), "reference cannot be sent: .*lone surrogate"),
        (lambda: score_request("4", 4), r"reference cannot be sent: it has to be a string, not 4 \(int\)"),  # type: ignore[arg-type]
        (lambda: score_request(4.5, "4"), "response cannot be sent: it has to be a string, not 4.5"),  # type: ignore[arg-type]
        (lambda: score_request("4", "4", question=["x"]), "question cannot be sent: it has to be a string"),  # type: ignore[arg-type]
        (lambda: score_request("4", "4", question=HALF), "question cannot be sent"),
        (lambda: score_request("4", "4", idempotency_key=7), "idempotency_key cannot be sent"),  # type: ignore[arg-type]
        (lambda: score_request("4", "4", conversation=["x"]), "conversation cannot be sent: .*Message"),  # type: ignore[list-item]
        (lambda: score_request("4", "4", images=iter([5])), "images cannot be sent"),  # type: ignore[arg-type]
        (lambda: score_request("4", "4", deadline_s=0), "deadline_s has to be a number of seconds above 0"),
        (lambda: score_request("4", "4", deadline_s="2"), "deadline_s has to be a number"),  # type: ignore[arg-type]
        (lambda: grader("exact", options={"marker": HALF}), "options cannot be sent: .*lone surrogate"),
        (lambda: grader(HALF), "name cannot be sent"),
        (lambda: grader("exact", weight="heavy"), "weight cannot be sent: it has to be a number"),  # type: ignore[arg-type]
        (lambda: run_request("python", HALF), "source cannot be sent"),
        (lambda: run_request("python", "1", stdin=HALF), "stdin cannot be sent: .*lone surrogate"),
        (lambda: run_request("python", "1", stdin=5), "stdin cannot be sent: it has to be bytes or a string"),  # type: ignore[arg-type]
        (lambda: run_request("python", "1", environment={"A": HALF}), "environment cannot be sent"),
        (lambda: run_request("python", "1", environment={"A": 5}), "environment cannot be sent: .*table of strings"),  # type: ignore[dict-item]
        (lambda: run_request("python", "1", arguments=[5]), "arguments cannot be sent: .*each item a string"),  # type: ignore[list-item]
        (lambda: write_files({"a.txt": HALF}), r"files\['a.txt'\] cannot be sent"),
        (lambda: write_files({HALF: "x"}), "path cannot be sent"),
        (lambda: session_request(5), "language cannot be sent"),  # type: ignore[arg-type]
        (lambda: RunClient(NOWHERE).get(HALF), "run_id cannot be sent"),
        (lambda: RunClient(NOWHERE).stop(5), "run_id cannot be sent"),  # type: ignore[arg-type]
        (lambda: SandboxClient(NOWHERE).languages(HALF), "image cannot be sent"),
        (lambda: WeightsClient(NOWHERE).pin("run", -1), "number cannot be sent: it has to be a whole number that fits"),
        (lambda: RewardClient(NOWHERE).score("4", HALF, ["exact"]), "reference cannot be sent"),
        (lambda: RewardClient(NOWHERE).score("4", "4", ["exact"], deadline_s=-1), "deadline_s has to be"),
        (lambda: list(RewardClient(NOWHERE).score_batch([], [], float("nan"))), "deadline_s has to be"),
        (lambda: list(RewardClient(NOWHERE).rescore(idempotency_keys=[HALF])), "idempotency_keys cannot be sent"),
    ],
)
def test_a_field_that_cannot_be_sent_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_a_status_prints_its_name_and_equals_its_number() -> None:
    sent = Score(status=SCORE_STATUS_OK, value=0.5, components=[Component(grader="math", status=SCORE_STATUS_TIMEOUT)])
    score = named(sent)
    assert (str(score.status), f"{score.status}") == ("SCORE_STATUS_OK", "SCORE_STATUS_OK")
    assert score.status == SCORE_STATUS_OK == ScoreStatus.SCORE_STATUS_OK
    assert str(score.components[0].status) == "SCORE_STATUS_TIMEOUT"
    assert (score.value, score.HasField("value"), score.components[0].grader) == (0.5, True, "math")
    assert (score == sent, sent == score, isinstance(score, Score), bool(named(Score()))) == (True, True, True, True)
    assert str(score) == str(sent)
    assert json_format.MessageToDict(score)["status"] == "SCORE_STATUS_OK"
    assert pickle.loads(pickle.dumps(score)) == sent  # noqa: S301 written a moment ago
    assert ScoredAnswer(score=score).score == sent
    assert named(Score(status=99)).status == 99  # of a newer service  # type: ignore[arg-type]


def test_messages_of_ones_own_pass_through() -> None:
    request = score_request("4", "4", ["exact"], conversation=(Message(role="user", content=text) for text in "ab"))
    assert [each.content for each in request.conversation] == ["a", "b"]
