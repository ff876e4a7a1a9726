"""Scores for answers, from a running reward service."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from perilune.api.reward.v1.reward_pb2 import (
    GraderChoice,
    GraderInfo,
    Image,
    ListGradersRequest,
    Message,
    RescoreRequest,
    RescoreResponse,
    Score,
    ScoredAnswer,
    ScoreRequest,
)
from perilune.api.reward.v1.reward_pb2_grpc import RewardServiceStub
from perilune.channel import Credentials
from perilune.client.batch import Batch
from perilune.client.connection import DEADLINE_S, AsyncConnection, Connection
from perilune.client.messages import check_deadline, message
from perilune.client.scores import named
from perilune.errors import InvalidInputError, PeriluneError

BATCH_DEADLINE_S = 300.0

Grader = str | Mapping[str, Any] | GraderChoice  # a name, {"name": …, "weight": …, "options": {…}}, or that as JSON


class ScoreOptions(TypedDict, total=False):
    """Optional arguments of a request."""

    conversation: Iterable[Message]  # the turns before the response, where the question was more than one message
    images: Iterable[Image]  # of the question
    idempotency_key: str  # the same request with the same key is graded once, and can be rescored
    deadline_s: float  # when the score is there, whatever its status; the client's own deadline if not given


class RewardClient(Connection):
    """Calls a reward service: `with RewardClient(address) as rewards: rewards.score("\\\\boxed{4}", "4", ["math"])`.

    Every method raises UnavailableError if the service does not answer, OverloadedError if it is too busy or the
    token's quota is spent, and UnauthenticatedError or PermissionDeniedError if it wants another token.
    """

    def __init__(self, address: str, deadline_s: float = DEADLINE_S, credentials: Credentials | None = None) -> None:
        """See Connection."""
        super().__init__(address, deadline_s, credentials)
        self._stub = RewardServiceStub(self._channel)

    def score(
        self,
        response: str,
        reference: str,
        graders: Sequence[Grader],
        question: str = "",
        **options: Unpack[ScoreOptions],
    ) -> Score:
        """Scores one response. A grader that failed is a status of the score, which then has no value.

        Args:
            response: what the model wrote, thinking and all.
            reference: what the graders compare with.
            graders: names, or choices made by `grader`; the total is the weighted sum of what they say.
            question: for graders that read it.
            options: see ScoreOptions.

        Raises:
            InvalidInputError: unknown grader or bad option; the message names the nearest right one. Or a text that
                cannot be sent, named by its field.
        """
        request = score_request(response, reference, graders, question, **options)
        return named(self._call(self._stub.Score, request, options.get("deadline_s")).score)

    def score_batch(
        self,
        requests: Iterable[ScoreRequest],
        graders: Sequence[Grader] = (),
        deadline_s: float = BATCH_DEADLINE_S,
    ) -> Iterator[tuple[int, Score]]:
        """Scores many requests (made by `score_request`); yields each one's index and score as soon as it is there.

        What a broken call left out is asked for again, and so is what a grader could not do because its sandbox or
        judge was away, until the deadline; then such scores come as they are.

        Args:
            requests: any number; they are sent in calls of a few thousand.
            graders: for the requests that name none.
            deadline_s: when the last score is there, whatever its status.
        """
        batch = Batch(requests, read_graders(graders), deadline_s)
        pause_s: float | None = 0.0
        while pause_s is not None:
            time.sleep(pause_s)
            failure = None
            for indexes, request in batch.calls():
                try:
                    for answer in self._stream(self._stub.ScoreBatch, request, batch.patience_s()):
                        if batch.is_final(indexes[answer.index], answer.score):
                            yield indexes[answer.index], named(answer.score)
                except PeriluneError as error:
                    failure = error
                    break
            pause_s = batch.pause_s(failure)

    def score_all(
        self,
        requests: Iterable[ScoreRequest],
        graders: Sequence[Grader] = (),
        deadline_s: float = BATCH_DEADLINE_S,
    ) -> list[Score]:
        """The scores of many requests, in their order; see `score_batch`."""
        return [score for _, score in sorted(self.score_batch(requests, graders, deadline_s), key=lambda pair: pair[0])]

    def rescore(
        self,
        answers: Iterable[ScoredAnswer] = (),
        *,
        idempotency_keys: Iterable[str] = (),
        graders: Sequence[Grader] = (),
        force: bool = False,
        deadline_s: float = BATCH_DEADLINE_S,
    ) -> Iterator[RescoreResponse]:
        """Grades again what was graded by older graders, or failed: answers with their scores, or those that the
        service keeps by their idempotency keys. Yields the score before and after, with the index of the answer.

        NotFoundError if the service keeps no answer for a key.
        """
        request = _rescore_request(answers, idempotency_keys, graders, force, deadline_s)
        yield from self._stream(self._stub.Rescore, request, deadline_s)

    def graders(self) -> Sequence[GraderInfo]:
        """The graders the service knows, with their versions and options."""
        return self._call(self._stub.ListGraders, ListGradersRequest()).graders


class AsyncRewardClient(AsyncConnection):
    """RewardClient for asyncio: `async with AsyncRewardClient(address) as rewards: await rewards.score(...)`."""

    def __init__(self, address: str, deadline_s: float = DEADLINE_S, credentials: Credentials | None = None) -> None:
        """See Connection."""
        super().__init__(address, deadline_s, credentials)
        self._stub = RewardServiceStub(self._channel)

    async def score(
        self,
        response: str,
        reference: str,
        graders: Sequence[Grader],
        question: str = "",
        **options: Unpack[ScoreOptions],
    ) -> Score:
        """See RewardClient.score."""
        request = score_request(response, reference, graders, question, **options)
        return named((await self._call(self._stub.Score, request, options.get("deadline_s"))).score)

    async def score_batch(
        self,
        requests: Iterable[ScoreRequest],
        graders: Sequence[Grader] = (),
        deadline_s: float = BATCH_DEADLINE_S,
    ) -> AsyncIterator[tuple[int, Score]]:
        """See RewardClient.score_batch."""
        batch = Batch(requests, read_graders(graders), deadline_s)
        pause_s: float | None = 0.0
        while pause_s is not None:
            await asyncio.sleep(pause_s)
            failure = None
            for indexes, request in batch.calls():
                try:
                    async for answer in self._stream(self._stub.ScoreBatch, request, batch.patience_s()):
                        if batch.is_final(indexes[answer.index], answer.score):
                            yield indexes[answer.index], named(answer.score)
                except PeriluneError as error:
                    failure = error
                    break
            pause_s = batch.pause_s(failure)

    async def score_all(
        self,
        requests: Iterable[ScoreRequest],
        graders: Sequence[Grader] = (),
        deadline_s: float = BATCH_DEADLINE_S,
    ) -> list[Score]:
        """See RewardClient.score_all."""
        scores = {index: score async for index, score in self.score_batch(requests, graders, deadline_s)}
        return [score for _, score in sorted(scores.items())]

    async def rescore(
        self,
        answers: Iterable[ScoredAnswer] = (),
        *,
        idempotency_keys: Iterable[str] = (),
        graders: Sequence[Grader] = (),
        force: bool = False,
        deadline_s: float = BATCH_DEADLINE_S,
    ) -> AsyncIterator[RescoreResponse]:
        """See RewardClient.rescore."""
        request = _rescore_request(answers, idempotency_keys, graders, force, deadline_s)
        async for answer in self._stream(self._stub.Rescore, request, deadline_s):
            yield answer

    async def graders(self) -> Sequence[GraderInfo]:
        """See RewardClient.graders."""
        return (await self._call(self._stub.ListGraders, ListGradersRequest())).graders


def grader(name: str, weight: float = 1.0, options: Mapping[str, object] | None = None) -> GraderChoice:
    """A grader with its weight and options: `grader("exact", options={"marker": "answer:"})`."""
    given = {key: str(value) for key, value in (options or {}).items()}
    return message(GraderChoice, name=name, weight=weight, options=given)


def read_graders(graders: Grader | Sequence[Grader]) -> list[GraderChoice]:
    """Graders in whatever form they are given. InvalidInputError for one that is none."""
    if isinstance(graders, str | Mapping | GraderChoice):
        return [_read_grader(graders)]
    return [_read_grader(given) for given in graders]


def _read_grader(given: Grader) -> GraderChoice:
    if isinstance(given, GraderChoice):
        return given
    try:
        values = json.loads(given) if isinstance(given, str) and given.lstrip().startswith("{") else given
        if isinstance(values, str):
            return message(GraderChoice, name=values)
        return grader(values["name"], values.get("weight", 1.0), values.get("options"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInputError(
            f'{given!r} is no grader; give a name, or {{"name": …, "weight": …, "options": {{…}}}}'
        ) from error


def score_request(
    response: str,
    reference: str,
    graders: Sequence[Grader] = (),
    question: str = "",
    conversation: Iterable[Message] = (),
    images: Iterable[Image] = (),
    idempotency_key: str = "",
    deadline_s: float | None = None,
) -> ScoreRequest:
    """One request of a batch; see RewardClient.score. InvalidInputError names the field that cannot be sent."""
    return message(
        ScoreRequest,
        question=question,
        reference=reference,
        response=response,
        graders=read_graders(graders),
        conversation=conversation,
        images=images,
        idempotency_key=idempotency_key,
        deadline_s=None if deadline_s is None else check_deadline(deadline_s),
    )


def _rescore_request(
    answers: Iterable[ScoredAnswer], keys: Iterable[str], graders: Sequence[Grader], force: bool, deadline_s: float
) -> RescoreRequest:
    return message(
        RescoreRequest,
        idempotency_keys=keys,
        answers=answers,
        graders=read_graders(graders),
        force=force,
        deadline_s=check_deadline(deadline_s),
    )
