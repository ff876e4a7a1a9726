"""RewardService, as its proto documents it. The same object answers gRPC and HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

import grpc

from perilune.api.reward.v1 import reward_pb2
from perilune.api.reward.v1.reward_pb2 import (
    SCORE_STATUS_OK,
    Component,
    GraderChoice,
    ListGradersRequest,
    ListGradersResponse,
    RescoreRequest,
    RescoreResponse,
    ScoreBatchRequest,
    ScoreBatchResponse,
    ScoredAnswer,
    ScoreRequest,
    ScoreResponse,
)
from perilune.api.reward.v1.reward_pb2_grpc import RewardServiceServicer
from perilune.errors import InvalidInputError, NotFoundError, OverloadedError, PeriluneError, rpc_errors
from perilune.runtime.auth import caller
from services.reward.answer_store import KeptAnswers
from services.reward.batches import as_finished
from services.reward.graders import GRADERS
from services.reward.processes import Processes
from services.reward.requests import Asked, Limits, read_request
from services.reward.rescore import has_changed, standing_component
from services.reward.scoring import score

BATCH_WINDOW = 64  # of one batch under way at one time, apart from slow ones
CHECKED_AT_ONCE = 200  # requests of a batch, before others get their turn

Context = grpc.aio.ServicerContext


class RewardServicer(RewardServiceServicer):
    """Scores for anyone. Every method raises what `rpc_errors` turns into a status, before anything is graded."""

    def __init__(
        self, processes: Processes, kept: KeptAnswers, limits: Limits, max_waiting: int, max_batch: int
    ) -> None:
        self._processes = processes
        self._kept = kept
        self._limits = limits
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._num_waiting = 0

    async def Score(self, request: ScoreRequest, context: Context[ScoreRequest, ScoreResponse]) -> ScoreResponse:
        """Scores one answer. INVALID_ARGUMENT; RESOURCE_EXHAUSTED if the service is full."""
        async with rpc_errors(context):
            asked = read_request(request, self._limits, context.time_remaining())
            if self._num_waiting >= self._max_waiting:
                raise OverloadedError("the service has as many requests as it can hold", retry_after_s=1.0)
            self._num_waiting += 1
            try:
                return ScoreResponse(score=await self._score(asked, caller().name))
            finally:
                self._num_waiting -= 1

    async def ScoreBatch(
        self, request: ScoreBatchRequest, context: Context[ScoreBatchRequest, ScoreBatchResponse]
    ) -> AsyncIterator[ScoreBatchResponse]:
        """Scores answers and streams each score when it is ready. INVALID_ARGUMENT; RESOURCE_EXHAUSTED."""
        async with rpc_errors(context):
            self._admit(len(request.requests))
            for each in request.requests:
                _take_defaults(each, request.graders, request)
            batch = await self._read_all(request.requests, context)
            works = [partial(self._score, asked, caller().name) for asked in batch]
            async for index, score in as_finished(works, BATCH_WINDOW):
                yield ScoreBatchResponse(index=index, score=score)

    async def Rescore(
        self, request: RescoreRequest, context: Context[RescoreRequest, RescoreResponse]
    ) -> AsyncIterator[RescoreResponse]:
        """Scores answers again, each beside its former score. INVALID_ARGUMENT; NOT_FOUND for an unknown key."""
        async with rpc_errors(context):
            self._admit(len(request.idempotency_keys) + len(request.answers))
            owner = caller().name
            answers = [*(self._find(owner, key) for key in request.idempotency_keys), *request.answers]
            batch = await self._read_all([_asked_again(answer.request, request) for answer in answers], context)
            works = [
                partial(
                    self._rescore, asked, answer, request.force, owner if index < len(request.idempotency_keys) else ""
                )
                for index, (asked, answer) in enumerate(zip(batch, answers, strict=True))
            ]
            async for index, score in as_finished(works, BATCH_WINDOW):
                before = answers[index].score
                yield RescoreResponse(index=index, before=before, after=score, changed=has_changed(before, score))

    async def ListGraders(
        self, request: ListGradersRequest, context: Context[ListGradersRequest, ListGradersResponse]
    ) -> ListGradersResponse:
        """Lists the graders with their versions and options."""
        return ListGradersResponse(graders=[grader.info() for grader in GRADERS.values()])

    def _admit(self, num_requests: int) -> None:
        """Checks the size of a batch, and takes it from the caller's quota, which the call itself has paid for one."""
        if num_requests > self._max_batch:
            raise InvalidInputError(
                f"a batch of {num_requests:,} is too large; send at most {self._max_batch:,} a call"
            )
        caller().charge(max(0, num_requests - 1))

    async def _read_all(self, requests: Sequence[ScoreRequest], context: Context) -> list[Asked]:
        """Checks all requests of a batch; an error names the index of the one at fault."""
        batch, remaining_s = [], context.time_remaining()
        for index, request in enumerate(requests):
            if index % CHECKED_AT_ONCE == CHECKED_AT_ONCE - 1:
                await asyncio.sleep(0)
            try:
                batch.append(read_request(request, self._limits, remaining_s))
            except PeriluneError as error:
                raise type(error)(f"request {index}: {error}") from error
        return batch

    def _find(self, owner: str, key: str) -> ScoredAnswer:
        found = self._kept.find(owner, key)
        if found is None:
            raise NotFoundError(
                f"no answer is kept for the idempotency key {key!r}; send the answer itself in `answers`"
            )
        return found

    async def _score(self, asked: Asked, owner: str) -> reward_pb2.Score:
        """The score of one request; with an idempotency key, the one that is there already."""
        request = asked.request
        if not request.idempotency_key:
            return await self._grade(asked)
        async with self._kept.alone(owner, request.idempotency_key):
            before = self._kept.score_of(owner, request)
            if before is not None and before.status == SCORE_STATUS_OK:
                return before
            score = await self._grade(asked)
            self._kept.keep(owner, request, score)
            return score

    async def _rescore(self, asked: Asked, answer: ScoredAnswer, force: bool, owner: str) -> reward_pb2.Score:
        standing = [
            None if force else standing_component(choice, read.grader.version, answer)
            for choice, read in zip(asked.request.graders, asked.choices, strict=True)
        ]
        score = await self._grade(asked, standing)
        if owner:
            self._kept.keep(owner, asked.request, score)
        return score

    async def _grade(self, asked: Asked, standing: Sequence[Component | None] = ()) -> reward_pb2.Score:
        return await score(asked.sample, asked.choices, self._processes, asked.deadline, standing)


def _take_defaults(
    request: ScoreRequest, graders: Sequence[GraderChoice], batch: ScoreBatchRequest | RescoreRequest
) -> None:
    """Fills in what a request of a batch leaves to the batch."""
    if not request.graders:
        request.graders.extend(graders)
    if batch.HasField("deadline_s") and not request.HasField("deadline_s"):
        request.deadline_s = batch.deadline_s


def _asked_again(request: ScoreRequest, again: RescoreRequest) -> ScoreRequest:
    """An earlier request with the graders and the deadline of now."""
    asked = ScoreRequest()
    asked.CopyFrom(request)
    asked.ClearField("deadline_s")
    if again.graders:
        asked.ClearField("graders")
    for choice in asked.graders:
        choice.ClearField("version")  # it is to be the newer one
    _take_defaults(asked, again.graders, again)
    return asked
