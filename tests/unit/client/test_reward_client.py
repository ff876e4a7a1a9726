"""The reward clients against a real gRPC server that breaks off, is full, or has a grader away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from pydantic import SecretStr

from perilune.api.reward.v1.reward_pb2 import (
    SCORE_STATUS_OK,
    SCORE_STATUS_UNAVAILABLE,
    GraderChoice,
    Score,
    ScoreBatchResponse,
)
from perilune.api.reward.v1.reward_pb2_grpc import RewardServiceServicer, add_RewardServiceServicer_to_server
from perilune.channel import GRPC_OPTIONS, MAX_MESSAGE_BYTES
from perilune.client import AsyncRewardClient, Credentials, RewardClient, score_request
from perilune.client.batch import CALL_REQUESTS
from perilune.client.reward import read_graders
from perilune.errors import InvalidInputError, OverloadedError, UnavailableError

pytestmark = pytest.mark.slow  # trains, or starts services and processes


class Rewards(RewardServiceServicer):
    """Scores are the number in the response. `breaks` calls break off half-way; `away` times each, a grader is away."""

    def __init__(self) -> None:
        self.breaks = 0
        self.refusals = 0
        self.away = 0
        self.asked: Counter[str] = Counter()
        self.calls: list[Any] = []
        self.metadata: list[dict[str, Any]] = []

    def ScoreBatch(self, request: Any, context: Any) -> Iterator[ScoreBatchResponse]:
        self.calls.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.refusals:
            self.refusals -= 1
            context.set_trailing_metadata((("retry-after-ms", "10"),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        for index in reversed(range(len(request.requests))):
            response = request.requests[index].response
            if self.breaks and index < len(request.requests) // 2:
                self.breaks -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "going")
            self.asked[response] += 1
            away = self.asked[response] <= self.away
            status = SCORE_STATUS_UNAVAILABLE if away else SCORE_STATUS_OK
            yield ScoreBatchResponse(index=index, score=Score(status=status, value=None if away else float(response)))


@pytest.fixture
def server() -> Iterator[tuple[Rewards, str]]:
    servicer = Rewards()
    running = grpc.server(ThreadPoolExecutor(4), options=GRPC_OPTIONS)
    add_RewardServiceServicer_to_server(servicer, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield servicer, f"127.0.0.1:{port}"
    running.stop(None)


REQUESTS = [score_request(str(number), "") for number in range(10)]


async def score_all(address: str, kind: str, deadline_s: float = 30.0) -> list[Score]:
    if kind == "sync":
        with RewardClient(address) as rewards:
            return rewards.score_all(REQUESTS, ["exact"], deadline_s)
    async with AsyncRewardClient(address) as client:
        return await client.score_all(REQUESTS, ["exact"], deadline_s)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_what_a_broken_call_left_out_is_asked_for_again(server: tuple[Rewards, str], kind: str) -> None:
    servicer, address = server
    servicer.breaks = 2
    assert [score.value for score in await score_all(address, kind)] == list(range(10))
    assert set(servicer.asked.values()) == {1}  # and nothing else
    assert [len(call.requests) for call in servicer.calls] == [10, 5, 2]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_grader_that_was_away_is_asked_again_until_the_deadline(server: tuple[Rewards, str], kind: str) -> None:
    servicer, address = server
    servicer.away = 2
    assert [score.value for score in await score_all(address, kind)] == list(range(10))
    assert set(servicer.asked.values()) == {3}
    servicer.away = 1_000_000
    late = await score_all(address, kind, deadline_s=1.0)
    assert {(score.status, score.HasField("value")) for score in late} == {(SCORE_STATUS_UNAVAILABLE, False)}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_full_service_is_asked_again(server: tuple[Rewards, str], kind: str) -> None:
    servicer, address = server
    servicer.refusals = 7  # more than gRPC's own attempts
    assert [score.value for score in await score_all(address, kind)] == list(range(10))
    servicer.refusals = 1_000_000
    with pytest.raises(OverloadedError, match="full"):
        await score_all(address, kind, deadline_s=0.5)


async def test_a_service_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        await score_all("127.0.0.1:9", "sync", deadline_s=0.3)


def test_large_batches_go_in_several_calls(server: tuple[Rewards, str]) -> None:
    servicer, address = server
    with RewardClient(address) as rewards:
        scores = rewards.score_all(score_request(str(number), "") for number in range(CALL_REQUESTS + 3))
        assert [score.value for score in scores] == list(range(CALL_REQUESTS + 3))
        assert [len(call.requests) for call in servicer.calls] == [CALL_REQUESTS, 3]
        servicer.calls.clear()
        long = [score_request(str(number), "x" * (6 << 20)) for number in range(4)]
        rewards.score_all(long)
        assert [len(call.requests) for call in servicer.calls] == [2, 2]  # at most 16 MiB a call
        with pytest.raises(InvalidInputError, match="message larger than max"):
            rewards.score_all([score_request("1", "x" * MAX_MESSAGE_BYTES)])


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_token_goes_along(server: tuple[Rewards, str], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    servicer, address = server
    monkeypatch.setenv("PERILUNE_TOKEN", "from-outside")
    await score_all(address, kind)
    with RewardClient(address, credentials=Credentials(token=SecretStr("given"))) as rewards:
        rewards.score_all(REQUESTS)
    assert [call["authorization"] for call in servicer.metadata] == ["Bearer from-outside", "Bearer given"]
    assert "given" not in repr(Credentials(token=SecretStr("given")))


def test_graders_in_whatever_form() -> None:
    math = GraderChoice(name="math", weight=2.0, options={"marker": "answer:", "case": "True"})
    as_values = {"name": "math", "weight": 2, "options": {"marker": "answer:", "case": True}}
    as_json = '{"name": "math", "weight": 2, "options": {"marker": "answer:", "case": "True"}}'
    for given in (math, [math], as_values, [as_values], as_json, [as_json]):
        assert read_graders(given) == [math]
    assert read_graders("math") == [GraderChoice(name="math")]
    for wrong in ("{", {"weight": 2}, [5], {"name": "math", "options": 5}):
        with pytest.raises(InvalidInputError, match="is no grader; give a name"):
            read_graders(wrong)  # type: ignore[arg-type]
