"""Scores for answers, from a running reward service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perilune.api.reward.v1.reward_pb2 import GraderChoice, GraderInfo, ListGradersRequest, Score, ScoreRequest
from perilune.api.reward.v1.reward_pb2_grpc import RewardServiceStub
from perilune.client.connection import DEADLINE_S, AsyncConnection, Connection

Grader = str | GraderChoice


class RewardClient(Connection):
    """Calls a reward service: `with RewardClient(address) as rewards: rewards.score("\\\\boxed{4}", "4", ["math"])`.

    Every method raises UnavailableError if the service does not answer, and OverloadedError if it is too busy.
    """

    def __init__(self, address: str, deadline_s: float = DEADLINE_S) -> None:
        super().__init__(address, deadline_s)
        self._stub = RewardServiceStub(self._channel)

    def score(self, response: str, reference: str, graders: Sequence[Grader], question: str = "") -> Score:
        """Scores one response. A grader that failed is a status of the score, which then has no value.

        Args:
            response: what the model wrote, thinking and all.
            reference: what the graders compare with.
            graders: names, or choices made by `grader`; the total is the weighted sum of what they say.
            question: for graders that read it.

        Raises:
            InvalidInputError: unknown grader or bad option; the message names the nearest right one.
        """
        return self._call(self._stub.Score, _request(response, reference, graders, question)).score

    def graders(self) -> Sequence[GraderInfo]:
        """The graders the service knows, with their options."""
        return self._call(self._stub.ListGraders, ListGradersRequest()).graders


class AsyncRewardClient(AsyncConnection):
    """RewardClient for asyncio: `async with AsyncRewardClient(address) as rewards: await rewards.score(...)`."""

    def __init__(self, address: str, deadline_s: float = DEADLINE_S) -> None:
        super().__init__(address, deadline_s)
        self._stub = RewardServiceStub(self._channel)

    async def score(self, response: str, reference: str, graders: Sequence[Grader], question: str = "") -> Score:
        """See RewardClient.score."""
        return (await self._call(self._stub.Score, _request(response, reference, graders, question))).score

    async def graders(self) -> Sequence[GraderInfo]:
        """See RewardClient.graders."""
        return (await self._call(self._stub.ListGraders, ListGradersRequest())).graders


def grader(name: str, weight: float = 1.0, options: Mapping[str, object] | None = None) -> GraderChoice:
    """A grader with its weight and options: `grader("exact", options={"marker": "answer:"})`."""
    return GraderChoice(name=name, weight=weight, options={key: str(value) for key, value in (options or {}).items()})


def _request(response: str, reference: str, graders: Sequence[Grader], question: str) -> ScoreRequest:
    choices = [GraderChoice(name=choice) if isinstance(choice, str) else choice for choice in graders]
    return ScoreRequest(question=question, reference=reference, response=response, graders=choices)
