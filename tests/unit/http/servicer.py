"""A servicer that does as its request says: what a servicer may do to the HTTP face."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from perilune.api.reward.v1 import reward_pb2
from perilune.api.reward.v1.reward_pb2 import (
    ListGradersResponse,
    RescoreResponse,
    Score,
    ScoreBatchResponse,
    ScoreResponse,
)
from perilune.api.reward.v1.reward_pb2_grpc import RewardServiceServicer
from perilune.errors import InvalidInputError, OverloadedError, UnavailableError, rpc_errors

REWARD_SERVICE = reward_pb2.DESCRIPTOR.services_by_name["RewardService"]


class ScriptedServicer(RewardServiceServicer):
    """The question says what happens; `events` says what did."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.changed = asyncio.Event()
        self.requests: list[Any] = []

    def note(self, event: str) -> None:
        self.events.append(event)
        self.changed.set()

    async def Score(self, request: Any, context: Any) -> ScoreResponse:
        self.requests.append(request)
        async with rpc_errors(context):
            if request.question == "bad":
                raise InvalidInputError("there is no grader 'exakt'; did you mean 'exact'?")
            if request.question == "full":
                raise OverloadedError("full", retry_after_s=2.5)
            if request.question == "bug":
                raise ZeroDivisionError("a secret")
            if request.question == "code":
                context.set_code(grpc.StatusCode.NOT_FOUND)
                context.set_details("set by hand")
            if request.question == "remaining":
                return ScoreResponse(score=Score(value=context.time_remaining()))
            if request.question == "hang":
                self.note("began")
                try:
                    await asyncio.sleep(60)
                finally:
                    self.note("cancelled")
        return ScoreResponse(score=Score(status=reward_pb2.SCORE_STATUS_OK, value=0.0))

    async def ScoreBatch(self, request: Any, context: Any) -> AsyncIterator[ScoreBatchResponse]:
        async with rpc_errors(context):
            for index, each in enumerate(request.requests):
                if each.question == "fail":
                    raise UnavailableError("gone")
                if each.question == "hang":
                    try:
                        await asyncio.sleep(60)
                    finally:
                        self.note("cancelled")
                yield ScoreBatchResponse(index=index, score=Score(value=float(index)))

    async def Rescore(self, request: Any, context: Any) -> AsyncIterator[RescoreResponse]:
        for _ in request.answers:
            yield RescoreResponse()

    async def ListGraders(self, request: Any, context: Any) -> ListGradersResponse:
        return ListGradersResponse()
