"""A request on its way: its samples in the engine, and what comes of them, as it comes or all at once."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import PeriluneError, UnavailableError
from perilune.policies import version_as_json
from services.rollout.engines.base import Engine, Generated, SampleRequest, Sampling, Span
from services.rollout.openai.formats import Choice, Format, Part, error_body, segments
from services.rollout.openai.request import BaseRequest
from services.rollout.stream_text import StreamText

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
    def engine(self) -> Engine | None:
        """The engine that draws its samples."""

    @property
    def tokenizer(self) -> Any:
        """The policy's tokenizer."""

    @property
    def policy(self) -> PolicyVersion | None:
        """The version that is served."""

    async def generate(self, sample: SampleRequest) -> Generated:
        """Has the engine draw a sample."""


@dataclass(frozen=True)
class Answer:
    """A request on its way: its samples in the engine, and the answer's form."""

    served: Served
    request: BaseRequest
    form: Format
    prompt: NDArray[np.int32]
    max_tokens: int
    id: str = field(default_factory=lambda: f"perilune-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    async def parts(self) -> AsyncGenerator[Part]:
        """Gives what is drawn as it comes; the last part of each choice has its finish reason.

        The samples end where they are when the caller has gone. UnavailableError if the engine breaks.
        """
        arrived: asyncio.Queue[tuple[Choice, Span | Generated]] = asyncio.Queue()
        choices = [
            Choice(index, StreamText(self.served.tokenizer, self.request.stops)) for index in range(self.request.n)
        ]
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
    ) -> Iterator[SampleRequest]:
        loop, request = asyncio.get_running_loop(), self.request
        sampling = Sampling(request.temperature, request.top_p, request.top_k, request.stops)
        seed = secrets.randbits(63) if request.seed is None else request.seed
        for choice in choices:

            def watch(span: Span, choice: Choice = choice) -> None:
                loop.call_soon_threadsafe(arrived.put_nowait, (choice, span))

            yield SampleRequest(
                f"{self.id}/{choice.index}", self.prompt, self.max_tokens, sampling, seed, choice.index, watch=watch
            )

    async def _finish(
        self, sample: SampleRequest, choice: Choice, arrived: asyncio.Queue[tuple[Choice, Span | Generated]]
    ) -> None:
        arrived.put_nowait((choice, await self.served.generate(sample)))

    # As JSON.

    async def whole(self) -> dict[str, Any]:
        """The answer as one object, when all choices have ended."""
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
                    elif part.text or self.request.return_token_ids or chunk["logprobs"]:
                        running = {"index": part.choice.index, "finish_reason": None}
                        yield _event(self._frame(self.form.chunk_kind, [running | chunk]))
        except PeriluneError as error:
            yield _event(error_body(error))
            return
        if self.request.stream_options and self.request.stream_options.include_usage:
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
            "perilune": version_as_json(policy),
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
