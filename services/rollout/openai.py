"""An OpenAI-compatible endpoint beside the rollout service's own: outside agents sample the policy that is trained.

`/v1/models`, `/v1/completions` and `/v1/chat/completions`, streamed or not. The model's name is the run's id. A request
shares the engine, its places and its weights with the run's own samples. Beyond OpenAI's format, as vLLM has it,
`"return_token_ids": true` gives the ids of prompt and response, and `prompt` may be a list of ids: a conversation goes
on from the very tokens that were drawn. Every choice says which policy versions wrote it, in `perilune.segments`.

What the engines cannot do is refused by name, never ignored: penalties, biases, tools, alternatives to a token.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, TypeVar
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from perilune.api.rollout.v1 import rollout_pb2
from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import ChatMessage, PolicyVersion, Prompt
from perilune.auth import Gate
from perilune.errors import STATUS_OF_ERROR, InvalidInputError, NotFoundError, PeriluneError, UnavailableError
from perilune.http.face import identify, read_body
from perilune.http.problems import HTTP_STATUS, RpcAborted
from services.rollout.engines.base import Engine, Generated, Sample, Sampling, Span
from services.rollout.prompts import prompt_tokens
from services.rollout.stream_text import StreamText

SERVICE = rollout_pb2.DESCRIPTOR.services_by_name["RolloutService"].full_name  # whose callers may call this too
DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's
FINISH_REASONS = {
    trajectory.ENDING_STOP: "stop",
    trajectory.ENDING_LENGTH: "length",
    trajectory.ENDING_REPETITION: "repetition",
    trajectory.ENDING_ABORTED: "abort",
}


class Served(Protocol):
    """A run, as its worker serves it; the engine and what belongs to it are None until the first version is there."""

    run_id: str

    @property
    def engine(self) -> Engine | None: ...

    @property
    def tokenizer(self) -> Any: ...

    @property
    def policy(self) -> PolicyVersion | None: ...

    async def generate(self, sample: Sample) -> Generated: ...


# --- What is asked ------------------------------------------------------------------------------------------------


StopText = Annotated[str, Field(min_length=1, max_length=256)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False


class Asked(BaseModel):
    """What the two kinds of request have in common; a field that is not here is refused."""

    model_config = ConfigDict(extra="forbid")

    model: str
    n: Annotated[int, Field(ge=1, le=128)] = 1
    temperature: Annotated[float, Field(ge=0, le=10)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: NonNegativeInt = 0
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None
    seed: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False
    user: str | None = None  # of no consequence
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class CompletionAsked(Asked):
    prompt: str | list[int]
    max_tokens: PositiveInt = DEFAULT_COMPLETION_TOKENS
    logprobs: Annotated[int, Field(ge=0, le=0)] | None = None  # 0: of the tokens that were drawn, and no others
    echo: Literal[False] = False


class ContentPart(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: str
    content: str | list[ContentPart]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatAsked(Asked):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None


Kind = TypeVar("Kind", bound=Asked)


# --- What is answered ---------------------------------------------------------------------------------------------


@dataclass
class Choice:
    """One of the n answers, as far as it came."""

    index: int
    text: StreamText
    spans: list[Span] = field(default_factory=list)
    finish_reason: str | None = None

    @property
    def num_tokens(self) -> int:
        return sum(len(span.tokens) for span in self.spans)


@dataclass(frozen=True)
class Part:
    """What came to a choice: all at once, or piece by piece."""

    choice: Choice
    spans: Sequence[Span]
    text: str

    @property
    def token_ids(self) -> list[int]:
        return [token for span in self.spans for token in span.tokens.tolist()]


class Format(Protocol):
    """How one of the two endpoints writes its answers."""

    @property
    def kind(self) -> str: ...

    @property
    def chunk_kind(self) -> str: ...

    def choice(self, part: Part, prompt: Sequence[int]) -> dict[str, Any]: ...

    def chunk_choice(self, part: Part, prompt: Sequence[int]) -> dict[str, Any]: ...


@dataclass(frozen=True)
class CompletionFormat:
    asked: CompletionAsked
    tokenizer: Any
    kind: str = "text_completion"
    chunk_kind: str = "text_completion"

    def choice(self, part: Part, prompt: Sequence[int]) -> dict[str, Any]:
        ids = {"prompt_token_ids": list(prompt), "token_ids": part.token_ids} if self.asked.return_token_ids else {}
        logprobs = self._logprobs(part) if self.asked.logprobs is not None else None
        return {"text": part.text, "logprobs": logprobs, **ids}

    chunk_choice = choice

    def _logprobs(self, part: Part) -> dict[str, Any]:
        return {
            "tokens": [self.tokenizer.decode([token]) for token in part.token_ids],
            "token_logprobs": [value for span in part.spans for value in span.logprobs.tolist()],
            "full_logprobs": [value for span in part.spans for value in span.full_logprobs.tolist()],
            "top_logprobs": None,
            "text_offset": [],
        }


@dataclass(frozen=True)
class ChatFormat:
    asked: ChatAsked
    tokenizer: Any
    kind: str = "chat.completion"
    chunk_kind: str = "chat.completion.chunk"

    def choice(self, part: Part, prompt: Sequence[int]) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": part.text}, **self._details(part, prompt)}

    def chunk_choice(self, part: Part, prompt: Sequence[int]) -> dict[str, Any]:
        return {"delta": {"role": "assistant", "content": part.text}, **self._details(part, prompt)}

    def _details(self, part: Part, prompt: Sequence[int]) -> dict[str, Any]:
        ids = {"prompt_token_ids": list(prompt), "token_ids": part.token_ids} if self.asked.return_token_ids else {}
        content = {"content": list(self._logprobs(part)), "refusal": None} if self.asked.logprobs else None
        return {"logprobs": content, **ids}

    def _logprobs(self, part: Part) -> Iterator[dict[str, Any]]:
        for span in part.spans:
            columns = (span.tokens.tolist(), span.logprobs.tolist(), span.full_logprobs.tolist())
            for token, logprob, full_logprob in zip(*columns, strict=True):
                text = self.tokenizer.decode([token])
                yield {
                    "token": text,
                    "logprob": logprob,  # of the distribution that was sampled from
                    "full_logprob": full_logprob,  # of the whole distribution at temperature 1
                    "bytes": list(text.encode()),
                    "top_logprobs": [],
                }


def segments(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Which version wrote how many tokens, in order."""
    merged: list[dict[str, Any]] = []
    for span in spans:
        if merged and merged[-1]["digest"] == span.policy.digest and merged[-1]["version"] == span.policy.number:
            merged[-1]["num_tokens"] += len(span.tokens)
        else:
            merged.append({"version": span.policy.number, "digest": span.policy.digest, "num_tokens": len(span.tokens)})
    return merged


@dataclass(frozen=True)
class Answer:
    """A request on its way: its samples in the engine, and the answer's form."""

    served: Served
    asked: Asked
    form: Format
    prompt: NDArray[np.int32]
    max_tokens: int
    id: str = field(default_factory=lambda: f"perilune-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    async def parts(self) -> AsyncGenerator[Part]:
        """What is drawn, as it comes; the last part of each choice has its finish reason.

        The samples end where they are when nobody listens any more. UnavailableError if the engine breaks.
        """
        arrived: asyncio.Queue[tuple[Choice, Span | Generated]] = asyncio.Queue()
        choices = [Choice(index, StreamText(self.served.tokenizer, self.asked.stops)) for index in range(self.asked.n)]
        samples = list(self._samples(choices, arrived))
        engine = self.served.engine
        assert engine is not None
        broken: asyncio.Future[Any] = asyncio.wrap_future(engine.stopped)
        working = [asyncio.create_task(self._finish(s, c, arrived)) for s, c in zip(samples, choices, strict=True)]
        try:
            while any(choice.finish_reason is None for choice in choices):
                coming: asyncio.Future[Any] = asyncio.ensure_future(arrived.get())
                await asyncio.wait([coming, broken], return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    coming.cancel()
                    raise UnavailableError("the engine ended; another takes over in a moment: try again")
                yield _part(*coming.result())
        finally:
            engine.interrupt([sample.id for sample in samples])
            for task in working:
                task.cancel()

    def _samples(
        self, choices: Sequence[Choice], arrived: asyncio.Queue[tuple[Choice, Span | Generated]]
    ) -> Iterator[Sample]:
        loop, asked = asyncio.get_running_loop(), self.asked
        sampling = Sampling(asked.temperature, asked.top_p, asked.top_k, asked.stops)
        seed = secrets.randbits(63) if asked.seed is None else asked.seed
        for choice in choices:

            def watch(span: Span, choice: Choice = choice) -> None:
                loop.call_soon_threadsafe(arrived.put_nowait, (choice, span))

            yield Sample(
                f"{self.id}/{choice.index}", self.prompt, self.max_tokens, sampling, seed, choice.index, watch=watch
            )

    async def _finish(
        self, sample: Sample, choice: Choice, arrived: asyncio.Queue[tuple[Choice, Span | Generated]]
    ) -> None:
        arrived.put_nowait((choice, await self.served.generate(sample)))

    # As JSON.

    async def whole(self) -> dict[str, Any]:
        texts: dict[int, str] = {}
        ended: dict[int, Choice] = {}
        async with aclosing(self.parts()) as parts:
            async for part in parts:
                ended[part.choice.index] = part.choice
                texts[part.choice.index] = texts.get(part.choice.index, "") + part.text
        whole = [Part(choice, choice.spans, texts[index]) for index, choice in sorted(ended.items())]
        choices = [self._ended(part.choice) | self.form.choice(part, self.prompt.tolist()) for part in whole]
        return self._frame(self.form.kind, choices) | {"usage": self._usage(list(ended.values()))}

    async def events(self) -> AsyncGenerator[str]:
        """Server-sent events."""
        ended: list[Choice] = []
        try:
            async with aclosing(self.parts()) as parts:
                async for part in parts:
                    chunk = self.form.chunk_choice(part, self.prompt.tolist())
                    if part.choice.finish_reason:
                        ended.append(part.choice)
                        yield _event(self._frame(self.form.chunk_kind, [self._ended(part.choice) | chunk]))
                    elif part.text or self.asked.return_token_ids or chunk["logprobs"]:
                        running = {"index": part.choice.index, "finish_reason": None}
                        yield _event(self._frame(self.form.chunk_kind, [running | chunk]))
        except PeriluneError as error:
            yield _event(_error_body(error))
            return
        if self.asked.stream_options and self.asked.stream_options.include_usage:
            yield _event(self._frame(self.form.chunk_kind, []) | {"usage": self._usage(ended)})
        yield "data: [DONE]\n\n"

    def _ended(self, choice: Choice) -> dict[str, Any]:
        return {
            "index": choice.index,
            "finish_reason": choice.finish_reason,
            "perilune": {"segments": segments(choice.spans)},
        }

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """`system_fingerprint` and `perilune` name what is served now; a choice's segments say who wrote it."""
        policy = self.served.policy
        assert policy is not None
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.served.run_id,
            "system_fingerprint": f"v{policy.number}-{policy.digest}",
            "perilune": {"version": policy.number, "digest": policy.digest},
            "choices": choices,
        }

    def _usage(self, choices: Sequence[Choice]) -> dict[str, int]:
        num_completion = sum(choice.num_tokens for choice in choices)
        return {
            "prompt_tokens": len(self.prompt),
            "completion_tokens": num_completion,
            "total_tokens": len(self.prompt) + num_completion,
        }


def _part(choice: Choice, news: Span | Generated) -> Part:
    if isinstance(news, Span):
        choice.spans.append(news)
        return Part(choice, [news], choice.text.add(news.tokens.tolist()))
    choice.finish_reason = FINISH_REASONS[news.ending]
    return Part(choice, [], choice.text.end())


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


# --- The routes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Endpoint:
    """Finds the run that is meant, and has it answer."""

    runs: Callable[[], Sequence[Served]]
    gate: Gate | None

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/v1/models", self._guarded(self._models), methods=["GET"]),
            Route("/v1/completions", self._guarded(self._completions), methods=["POST"]),
            Route("/v1/chat/completions", self._guarded(self._chat_completions), methods=["POST"]),
        ]

    def _guarded(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Asks who calls, and puts failures into OpenAI's form."""

        async def guarded(request: Request) -> Response:
            try:
                with ExitStack() as stack:
                    stack.enter_context(identify(request, self.gate).call(SERVICE))
                    response = await answer(request)
                    if isinstance(response, StreamingResponse):
                        response.body_iterator = _held(stack.pop_all(), response.body_iterator)
                    return response
            except RpcAborted as error:
                return JSONResponse(_error_body(InvalidInputError(error.details)), error.http_status)
            except PeriluneError as error:
                return JSONResponse(_error_body(error), HTTP_STATUS[_status_of(error)])

        return guarded

    async def _models(self, request: Request) -> Response:
        models = [
            {"id": run.run_id, "object": "model", "created": 0, "owned_by": "perilune"} | _version(run)
            for run in self.runs()
        ]
        return JSONResponse({"object": "list", "data": models})

    async def _completions(self, request: Request) -> Response:
        asked = _read(CompletionAsked, await read_body(request))
        served, engine = self._run(asked.model)
        ids = asked.prompt if isinstance(asked.prompt, list) else served.tokenizer(asked.prompt)["input_ids"]
        prompt = _checked(ids, engine.max_context, len(served.tokenizer))
        form = CompletionFormat(asked, served.tokenizer)
        return await _respond(request, Answer(served, asked, form, prompt, asked.max_tokens))

    async def _chat_completions(self, request: Request) -> Response:
        asked = _read(ChatAsked, await read_body(request))
        served, engine = self._run(asked.model)
        messages = [ChatMessage(role=message.role, content=message.text) for message in asked.messages]
        prompt = prompt_tokens(Prompt(id="of this request", messages=messages), served.tokenizer, engine.max_context)
        limit = asked.max_completion_tokens or asked.max_tokens or engine.max_context - len(prompt)
        return await _respond(request, Answer(served, asked, ChatFormat(asked, served.tokenizer), prompt, limit))

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


async def _respond(request: Request, answer: Answer) -> Response:
    if answer.asked.stream:
        return StreamingResponse(answer.events(), media_type="text/event-stream")
    whole, leaving = asyncio.create_task(answer.whole()), asyncio.create_task(_left(request))
    try:
        await asyncio.wait([whole, leaving], return_when=asyncio.FIRST_COMPLETED)
        return JSONResponse(whole.result()) if whole.done() else Response(status_code=499)
    finally:
        whole.cancel()
        leaving.cancel()
        await asyncio.gather(whole, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    """Returns when the caller has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _read(kind: type[Kind], body: bytes) -> Kind:
    """InvalidInputError names every field that is wrong."""
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors()]
        raise InvalidInputError("; ".join(lines)) from error


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
    return {"perilune": {"version": run.policy.number, "digest": run.policy.digest}}


def _status_of(error: PeriluneError) -> Any:
    return next(STATUS_OF_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_OF_ERROR)


def _error_body(error: PeriluneError) -> dict[str, Any]:
    kind = "invalid_request_error" if HTTP_STATUS[_status_of(error)] < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": None, "code": _status_of(error).name.lower()}}
