"""The routes: finds the model that is meant, and checks who calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from perilune.errors import InvalidInputError, NotFoundError, PeriluneError
from perilune.policies import version_as_json
from perilune.runtime.auth import Gate
from perilune.runtime.http.face import identify, read_body
from perilune.runtime.http.problems import HTTP_STATUS, RpcAborted
from services.rollout.openai.answer import Answer
from services.rollout.openai.fields import header
from services.rollout.openai.formats import ChatFormat, CompletionFormat, error_body, status_of
from services.rollout.openai.prompts import chat_prompt, given_prompts
from services.rollout.openai.request import ChatRequest, CompletionRequest, read
from services.rollout.openai.tokenizing import tokenizer_info, tokenizer_json
from services.rollout.openai.tools import call_form
from services.rollout.served import Served, find_engine, find_served

METHOD = "perilune.api.rollout.v1.RolloutService/ScoreTokens"  # whose callers may call this too


@dataclass(frozen=True)
class Endpoint:
    """Finds the run that is meant, and has it answer."""

    runs: Callable[[], Sequence[Served]]
    gate: Gate | None

    def routes(self) -> list[BaseRoute]:
        """The paths that it answers."""
        return [
            Route("/v1/models", self._guarded(self._models), methods=["GET"]),
            Route("/v1/models/{name:path}", self._guarded(self._model), methods=["GET"]),
            Route("/v1/completions", self._guarded(self._completions), methods=["POST"]),
            Route("/v1/chat/completions", self._guarded(self._chat_completions), methods=["POST"]),
            Route("/tokenizer_info", self._guarded(self._tokenizer_info), methods=["GET"]),
            Route("/tokenizer.json", self._guarded(self._tokenizer), methods=["GET"]),
            Route("/v1/{rest:path}", self._guarded(self._unknown), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]

    def _guarded(
        self, answer: Callable[[HttpRequest], Awaitable[Response]]
    ) -> Callable[[HttpRequest], Awaitable[Response]]:
        """Checks the caller, and puts failures into OpenAI's form."""

        async def guarded(http: HttpRequest) -> Response:
            try:
                with ExitStack() as stack:
                    stack.enter_context(identify(http, self.gate).call(METHOD))
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
        return JSONResponse({"object": "list", "data": [_as_model(run) for run in self.runs()]})

    async def _model(self, http: HttpRequest) -> Response:
        name = http.path_params["name"]
        return JSONResponse(_as_model(find_served(self.runs(), name)))

    async def _completions(self, http: HttpRequest) -> Response:
        request, ignored = read(CompletionRequest, await read_body(http))
        served, engine, _ = find_engine(self.runs(), request.model)
        prompts = given_prompts(request, served.tokenizer, engine.max_context)
        form = CompletionFormat(request, served.tokenizer)
        return await _respond(http, Answer(served, request, form, prompts, request.max_tokens), ignored)

    async def _chat_completions(self, http: HttpRequest) -> Response:
        request, ignored = read(ChatRequest, await read_body(http))
        served, engine, _ = find_engine(self.runs(), request.model)
        calls = call_form(served.tokenizer, request.offered_tools) if request.offered_tools else None
        given = request, served.tokenizer, engine.max_context, served.vision
        prompt = await asyncio.to_thread(chat_prompt, *given) if served.vision else chat_prompt(*given)
        limit = request.max_completion_tokens or request.max_tokens or engine.max_context - len(prompt.tokens)
        form = ChatFormat(request, served.tokenizer, calls)
        return await _respond(http, Answer(served, request, form, [prompt], limit), ignored)

    async def _tokenizer_info(self, http: HttpRequest) -> Response:
        return JSONResponse(tokenizer_info(self._named(http).tokenizer))

    async def _tokenizer(self, http: HttpRequest) -> Response:
        return Response(tokenizer_json(self._named(http).tokenizer), media_type="application/json")

    def _named(self, http: HttpRequest) -> Served:
        """The model that a query names; where one is served it need not. Errors as `find_engine`."""
        return find_engine(self.runs(), http.query_params.get("model", ""))[0]

    async def _unknown(self, http: HttpRequest) -> Response:
        raise NotFoundError(
            f"there is no {http.method} {http.url.path} here: GET /v1/models, POST /v1/completions and "
            "POST /v1/chat/completions are answered"
        )


async def _held(stack: ExitStack, body: AsyncIterable[Any]) -> AsyncGenerator[Any]:
    """A stream takes its caller's place until it is over."""
    with stack:
        async for piece in body:
            yield piece


async def _respond(http: HttpRequest, answer: Answer, ignored: Sequence[str]) -> Response:
    headers = header(ignored)
    if answer.request.stream:
        return StreamingResponse(answer.events(), headers=headers, media_type="text/event-stream")
    whole, leaving = asyncio.create_task(answer.whole()), asyncio.create_task(_left(http))
    try:
        await asyncio.wait([whole, leaving], return_when=asyncio.FIRST_COMPLETED)
        return JSONResponse(whole.result(), headers=headers) if whole.done() else Response(status_code=499)
    finally:
        whole.cancel()
        leaving.cancel()
        await asyncio.gather(whole, leaving, return_exceptions=True)


async def _left(http: HttpRequest) -> None:
    """Returns when the caller has gone away."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _as_model(run: Served) -> dict[str, Any]:
    return {"id": run.run_id, "object": "model", "created": 0, "owned_by": "perilune"} | _version(run)


def _version(run: Served) -> dict[str, Any]:
    if run.policy is None:
        return {}
    return {"perilune": version_as_json(run.policy)}
