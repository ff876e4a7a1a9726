"""The routes: finds the run that is meant, and checks who calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from perilune.api.rollout.v1 import rollout_pb2
from perilune.api.trajectory.v1.trajectory_pb2 import ChatMessage, Prompt
from perilune.errors import InvalidInputError, NotFoundError, PeriluneError, UnavailableError
from perilune.policies import version_as_json
from perilune.runtime.auth import Gate
from perilune.runtime.http.face import identify, read_body
from perilune.runtime.http.problems import HTTP_STATUS, RpcAborted
from services.rollout.engines.base import Engine
from services.rollout.openai.answer import Answer, Served
from services.rollout.openai.formats import ChatFormat, CompletionFormat, error_body, status_of
from services.rollout.openai.request import ChatRequest, CompletionRequest, read
from services.rollout.tokenizer import prompt_tokens

SERVICE = rollout_pb2.DESCRIPTOR.services_by_name["RolloutService"].full_name  # whose callers may call this too


@dataclass(frozen=True)
class Endpoint:
    """Finds the run that is meant, and has it answer."""

    runs: Callable[[], Sequence[Served]]
    gate: Gate | None

    def routes(self) -> list[BaseRoute]:
        """The paths that it answers."""
        return [
            Route("/v1/models", self._guarded(self._models), methods=["GET"]),
            Route("/v1/completions", self._guarded(self._completions), methods=["POST"]),
            Route("/v1/chat/completions", self._guarded(self._chat_completions), methods=["POST"]),
        ]

    def _guarded(
        self, answer: Callable[[HttpRequest], Awaitable[Response]]
    ) -> Callable[[HttpRequest], Awaitable[Response]]:
        """Checks the caller, and puts failures into OpenAI's form."""

        async def guarded(http: HttpRequest) -> Response:
            try:
                with ExitStack() as stack:
                    stack.enter_context(identify(http, self.gate).call(SERVICE))
                    response = await answer(http)
                    if isinstance(response, StreamingResponse):
                        response.body_iterator = _held(stack.pop_all(), response.body_iterator)
                    return response
            except RpcAborted as error:
                return JSONResponse(error_body(InvalidInputError(error.details)), error.http_status)
            except PeriluneError as error:
                return JSONResponse(error_body(error), HTTP_STATUS[status_of(error)])

        return guarded

    async def _models(self, http: HttpRequest) -> Response:
        models = [
            {"id": run.run_id, "object": "model", "created": 0, "owned_by": "perilune"} | _version(run)
            for run in self.runs()
        ]
        return JSONResponse({"object": "list", "data": models})

    async def _completions(self, http: HttpRequest) -> Response:
        request = read(CompletionRequest, await read_body(http))
        served, engine = self._run(request.model)
        ids = request.prompt if isinstance(request.prompt, list) else served.tokenizer(request.prompt)["input_ids"]
        prompt = _checked(ids, engine.max_context, len(served.tokenizer))
        form = CompletionFormat(request, served.tokenizer)
        return await _respond(http, Answer(served, request, form, prompt, request.max_tokens))

    async def _chat_completions(self, http: HttpRequest) -> Response:
        request = read(ChatRequest, await read_body(http))
        served, engine = self._run(request.model)
        messages = [ChatMessage(role=message.role, content=message.text) for message in request.messages]
        prompt = prompt_tokens(Prompt(id="of this request", messages=messages), served.tokenizer, engine.max_context)
        limit = request.max_completion_tokens or request.max_tokens or engine.max_context - len(prompt)
        return await _respond(http, Answer(served, request, ChatFormat(request, served.tokenizer), prompt, limit))

    def _run(self, model: str) -> tuple[Served, Engine]:
        """NotFoundError for a run that is not served here; UnavailableError before its first version is."""
        runs = {run.run_id: run for run in self.runs()}
        if model not in runs:
            raise NotFoundError(f"there is no model {model!r} here; the runs that are served: {', '.join(runs) or '-'}")
        served = runs[model]
        if served.engine is None or served.policy is None:
            raise UnavailableError(f"{model} has no weights yet; try again in a moment")
        return served, served.engine


async def _held(stack: ExitStack, body: AsyncIterable[Any]) -> AsyncGenerator[Any]:
    """A stream takes its caller's place until it is over."""
    with stack:
        async for piece in body:
            yield piece


async def _respond(http: HttpRequest, answer: Answer) -> Response:
    if answer.request.stream:
        return StreamingResponse(answer.events(), media_type="text/event-stream")
    whole, leaving = asyncio.create_task(answer.whole()), asyncio.create_task(_left(http))
    try:
        await asyncio.wait([whole, leaving], return_when=asyncio.FIRST_COMPLETED)
        return JSONResponse(whole.result()) if whole.done() else Response(status_code=499)
    finally:
        whole.cancel()
        leaving.cancel()
        await asyncio.gather(whole, leaving, return_exceptions=True)


async def _left(http: HttpRequest) -> None:
    """Returns when the caller has gone away."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _checked(ids: Sequence[int], max_context: int, vocab_size: int) -> NDArray[np.int32]:
    if not ids:
        raise InvalidInputError("prompt: is empty")
    if not all(0 <= token < vocab_size for token in ids):
        raise InvalidInputError(f"prompt: token ids are 0 to {vocab_size - 1}")
    if len(ids) >= max_context:
        raise InvalidInputError(f"prompt: has {len(ids)} tokens, and the model's context is {max_context}")
    return np.array(ids, dtype=np.int32)


def _version(run: Served) -> dict[str, Any]:
    if run.policy is None:
        return {}
    return {"perilune": version_as_json(run.policy)}
