"""A request on its way: its samples in the engine, and what comes of them, as it comes or all at once."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import numpy as np

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.errors import InvalidInputError, PeriluneError, UnavailableError
from perilune.policies import version_as_json
from services.rollout.engines.base import Engine, Generated, SampleRequest, Sampling, Span, TokenScores, TokensToScore
from services.rollout.openai import scoring
from services.rollout.openai.formats import Choice, Format, GivenPrompt, Part, error_body, segments
from services.rollout.openai.request import BaseRequest
from services.rollout.served import Served, scored
from services.rollout.stream_text import StreamText

FINISH_REASONS = {
    trajectory.ENDING_STOP: "stop",
    trajectory.ENDING_LENGTH: "length",
    trajectory.ENDING_REPETITION: "repetition",
    trajectory.ENDING_ABORTED: "abort",
}


@dataclass(frozen=True)
class Answer:
    """A request on its way: its samples in the engine, and the answer's form."""

    served: Served
    request: BaseRequest
    form: Format
    prompts: Sequence[GivenPrompt]
    max_tokens: int
    id: str = field(default_factory=lambda: f"perilune-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    async def parts(self) -> AsyncGenerator[Part]:
        """Gives what is drawn as it comes; the last part of each choice has its finish reason.

        The samples end where they are when the caller has gone. UnavailableError if the engine breaks;
        InvalidInputError if it cannot take a sample.
        """
        arrived: asyncio.Queue[tuple[Choice, Span | Generated]] = asyncio.Queue()
        num, tokenizer = self.request.num_samples, self.served.tokenizer
        choices = [
            Choice(prompt, index, number * num + index, StreamText(tokenizer, self.request.stops), tokenizer)
            for number, prompt in enumerate(self.prompts)
            for index in range(num)
        ]
        samples = list(self._samples(choices, arrived))
        engine = self._engine
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

    @property
    def _engine(self) -> Engine:
        assert self.served.engine is not None
        return self.served.engine

    def _samples(
        self, choices: Sequence[Choice], arrived: asyncio.Queue[tuple[Choice, Span | Generated]]
    ) -> Iterator[SampleRequest]:
        """A prompt's samples are the same alone and beside others: each has a random stream by seed and index."""
        loop, request = asyncio.get_running_loop(), self.request
        sampling = Sampling(request.temperature, request.top_p, max(0, request.top_k), request.stops)
        seed = secrets.randbits(63) if request.seed is None else request.seed
        for choice in choices:

            def watch(span: Span, choice: Choice = choice) -> None:
                loop.call_soon_threadsafe(arrived.put_nowait, (choice, span))

            yield SampleRequest(
                f"{self.id}/{choice.number}",
                choice.prompt.tokens,
                self.max_tokens,
                sampling,
                seed,
                choice.index,
                images=choice.prompt.images,
                watch=watch,
            )

    async def _finish(
        self, sample: SampleRequest, choice: Choice, arrived: asyncio.Queue[tuple[Choice, Span | Generated]]
    ) -> None:
        arrived.put_nowait((choice, await self.served.generate(sample)))

    # Scores.

    async def _score(self, choices: Sequence[Choice]) -> None:
        """Looks up what is asked of log-probabilities beyond those of drawn tokens.

        A prompt's scores reach to the first drawn token; a response is read again for those behind.
        """
        await asyncio.gather(*(self._score_prompt(prompt) for prompt in self.prompts))
        if self.request.num_alternatives:
            await asyncio.gather(*(self._score_response(choice) for choice in choices))

    async def _score_prompt(self, prompt: GivenPrompt) -> None:
        if (num_top := self.form.num_prompt_alternatives) is not None:
            end = len(prompt.tokens) + bool(self.max_tokens)
            scores = await self._scored(scoring.to_score(prompt.tokens, 1, end, num_top), prompt)
            prompt.known, prompt.scored_by = scoring.details(scores), scores.policy
        if prompt.to_score is not None:
            prompt.scores = scoring.scores_as_json(prompt.to_score, await self._scored(prompt.to_score, prompt))

    async def _score_response(self, choice: Choice) -> None:
        start, num_top = len(choice.prompt.tokens), self.request.num_alternatives
        if choice.num_tokens == 1 and len(choice.prompt.known) == start:
            choice.known, choice.scored_by = choice.prompt.known[-1:], choice.prompt.scored_by
            return
        tokens = np.concatenate([choice.prompt.tokens, *(span.tokens for span in choice.spans)])
        scores = await self._scored(scoring.to_score(tokens, start, len(tokens), num_top), choice.prompt)
        choice.known, choice.scored_by = scoring.details(scores), scores.policy

    async def _scored(self, wanted: TokensToScore, prompt: GivenPrompt) -> TokenScores:
        assert self.served.policy is not None
        return await scored(self._engine, replace(wanted, images=prompt.images), self.served.policy)

    def _likeliest(self, choices: Sequence[Choice]) -> list[Choice]:
        """The n likeliest samples of each prompt, by the mean of their tokens' log-probabilities; all, if n are."""
        kept: list[Choice] = []
        for number, prompt in enumerate(self.prompts):
            own = sorted((each for each in choices if each.prompt is prompt), key=lambda each: each.index)
            if self.request.num_samples > self.request.n:
                own = sorted(own, key=lambda each: each.mean_logprob, reverse=True)[: self.request.n]
            for place, choice in enumerate(own):
                choice.number = number * self.request.n + place
            kept += own
        return kept

    # As JSON.

    async def whole(self) -> dict[str, Any]:
        """The answer as one object, when all choices have ended."""
        ended: list[Choice] = []
        async with aclosing(self.parts()) as parts:
            async for part in parts:
                part.choice.written += part.text
                if part.choice.finish_reason:
                    ended.append(part.choice)
        choices = self._likeliest(ended)
        await self._score(choices)
        written = [self._ended(self.form.choice(each.whole()), each) for each in choices]
        frame = self._frame(self.form.kind, written) | self.form.beside_choices(self.prompts)
        return frame | {"usage": self._usage(ended)}

    async def events(self) -> AsyncGenerator[str]:
        """Server-sent events."""
        ended: list[Choice] = []
        try:
            async with aclosing(self.parts()) as parts:
                async for part in parts:
                    if part.choice.finish_reason:
                        ended.append(part.choice)
                    if chunk := self._chunk(part):
                        yield _event(self._frame(self.form.chunk_kind, [chunk]))
        except PeriluneError as error:
            yield _event(error_body(error))
            return
        if self.request.stream_options and self.request.stream_options.include_usage:
            yield _event(self._frame(self.form.chunk_kind, []) | {"usage": self._usage(ended)})
        yield "data: [DONE]\n\n"

    def _chunk(self, part: Part) -> dict[str, Any] | None:
        """A piece of a choice; None if there is nothing in it, or the form waits for the whole."""
        choice = part.choice
        choice.written += part.text
        if choice.finish_reason:
            return self._ended(self.form.chunk_choice(choice.whole() if self.form.waits_for_all else part), choice)
        if self.form.waits_for_all:
            return None
        written = self.form.chunk_choice(part)
        is_news = part.text or self.request.return_token_ids or written["logprobs"]
        return {"index": choice.number, "finish_reason": None} | written if is_news else None

    def _ended(self, written: dict[str, Any], choice: Choice) -> dict[str, Any]:
        by = {"scored_by": version_as_json(choice.scored_by)} if choice.scored_by else {}
        return {
            "index": choice.number,
            "finish_reason": choice.finish_reason,
            "perilune": {"segments": segments(choice.spans)} | by,
        } | written

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
        num_prompt = sum(len(prompt.tokens) for prompt in self.prompts)
        num_completion = sum(choice.num_tokens for choice in choices)
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_completion,
            "total_tokens": num_prompt + num_completion,
        }


def _part(choice: Choice, news: Span | Generated) -> Part:
    if isinstance(news, Span):
        begins = not choice.spans
        choice.spans.append(news)
        return Part(choice, [news], choice.text.add(news.tokens.tolist()), begins)
    if news.error:
        raise InvalidInputError(news.error)
    choice.finish_reason = FINISH_REASONS[news.ending]
    return Part(choice, [], choice.text.end(), begins=not choice.spans)


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
