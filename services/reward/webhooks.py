"""Endpoints for trainers that post requests in a format of their own: `/openrlhf` and `/slime`.

What to do stands in the URL: `grader` (a name, or a grader as JSON; may be given often), `undecided` (the reward where
a grader could not decide) and `deadline_s`. They want a number for every answer: where one has no score, the answer is
an error, which makes them ask again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from perilune.api.reward.v1.reward_pb2 import (
    SCORE_STATUS_TIMEOUT,
    SCORE_STATUS_UNAVAILABLE,
    Score,
    ScoreBatchRequest,
    ScoreRequest,
)
from perilune.client.reward import read_graders
from perilune.errors import InvalidInputError, rpc_errors
from perilune.integrations import openrlhf, slime
from perilune.integrations.scorer import Scorer, explain
from perilune.runtime.auth import Gate
from perilune.runtime.http.context import HttpContext
from perilune.runtime.http.face import identify, read_body
from perilune.runtime.http.problems import RpcAborted, problem_response
from services.reward.servicer import RewardServicer

METHOD = "perilune.api.reward.v1.RewardService/Score"
DEADLINE_S = 100.0  # slime waits 120 s for an answer, OpenRLHF 180


@dataclass(frozen=True)
class Format:
    """Describes how a trainer asks, and how it is answered."""

    read: Callable[[Any], list[ScoreRequest]]
    answer: Callable[[Sequence[float]], Any]


FORMATS = {
    "/openrlhf": Format(openrlhf.read, openrlhf.answer),
    "/slime": Format(slime.read, slime.answer),
}


def routes(servicer: RewardServicer, gate: Gate | None) -> list[Route]:
    """A route for each format."""
    return [Route(path, _endpoint(format_, servicer, gate), methods=["POST"]) for path, format_ in FORMATS.items()]


def _endpoint(format_: Format, servicer: RewardServicer, gate: Gate | None) -> Any:
    async def answer(http: Request) -> Response:
        context = HttpContext(http, None)
        try:
            async with rpc_errors(context):
                caller = identify(http, gate)
                scorer = _scorer(http)
                requests = format_.read(await _body(http))
                with caller.call(METHOD):
                    scores = await _scores(servicer, requests, scorer, context)
                return JSONResponse(format_.answer([_value(scorer, score) for score in scores]))
        except RpcAborted as error:
            return problem_response(error)

    return answer


def _scorer(http: Request) -> Scorer:
    """Returns what the URL asks for. InvalidInputError says what is wrong with it."""
    query = http.query_params
    graders = read_graders(query.getlist("grader"))
    if not graders:
        raise InvalidInputError(f"say in the URL which grader is to score: {http.url.path}?grader=math")
    try:
        undecided = float(query["undecided"]) if "undecided" in query else None
        return Scorer(graders, deadline_s=float(query.get("deadline_s", DEADLINE_S)), undecided=undecided)
    except ValueError as error:
        raise InvalidInputError(f"undecided and deadline_s must be numbers: {error}") from error


async def _body(http: Request) -> Any:
    try:
        return json.loads(await read_body(http))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the body is no JSON: {error}") from error


async def _scores(
    servicer: RewardServicer, requests: list[ScoreRequest], scorer: Scorer, context: HttpContext
) -> list[Score]:
    batch = ScoreBatchRequest(requests=requests, graders=read_graders(scorer.graders), deadline_s=scorer.deadline_s)
    scores = {answer.index: answer.score async for answer in servicer.ScoreBatch(batch, context)}
    return [scores[index] for index in range(len(requests))]


def _value(scorer: Scorer, score: Score) -> float:
    value = scorer.value_or_none(score)
    if value is not None:
        return value
    again = score.status in (SCORE_STATUS_UNAVAILABLE, SCORE_STATUS_TIMEOUT)
    code = grpc.StatusCode.UNAVAILABLE if again else grpc.StatusCode.FAILED_PRECONDITION
    raise RpcAborted(code, explain(score), http_status=503 if again else 422)
