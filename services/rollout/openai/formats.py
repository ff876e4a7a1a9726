"""Says how the two kinds of answer are written, and errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import STATUS_OF_ERROR, PeriluneError
from perilune.models.vision import PlacedImage
from perilune.policies import version_as_json
from perilune.runtime.http.problems import HTTP_STATUS
from services.rollout.engines.base import Span, TokensToScore
from services.rollout.openai.fields import FieldError
from services.rollout.openai.request import ChatRequest, CompletionRequest
from services.rollout.openai.scoring import TokenDetails, prompt_logprobs_as_json
from services.rollout.openai.tools import CallForm
from services.rollout.stream_text import StreamText


@dataclass(eq=False)
class GivenPrompt:
    """A prompt of a request, and what was found out about it."""

    tokens: NDArray[np.int32]
    images: tuple[PlacedImage, ...] = ()  # where they lie in the tokens
    text: str = ""  # that is shown for it
    to_score: TokensToScore | None = None
    known: list[TokenDetails] = field(default_factory=list)  # from its second token on, to the first that is drawn
    scored_by: PolicyVersion | None = None
    scores: dict[str, Any] | None = None


@dataclass(eq=False)
class Choice:
    """One of the answers to a prompt, as far as it came."""

    prompt: GivenPrompt
    index: int  # among the prompt's
    number: int  # among all
    text: StreamText
    tokenizer: Any
    spans: list[Span] = field(default_factory=list)
    finish_reason: str | None = None
    written: str = ""  # its text so far
    known: list[TokenDetails] = field(default_factory=list)  # of its tokens, where alternatives to them are wanted
    scored_by: PolicyVersion | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of this answer so far."""
        return sum(len(span.tokens) for span in self.spans)

    @property
    def tokens(self) -> list[int]:
        """Its token ids so far."""
        return [token for span in self.spans for token in span.tokens.tolist()]

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of its tokens under the whole distribution, in nats."""
        logprobs = [value for span in self.spans for value in span.full_logprobs.tolist()]
        return sum(logprobs) / len(logprobs) if logprobs else 0.0

    def whole(self) -> Part:
        """All of it as one part."""
        return Part(self, self.spans, self.written, begins=True)


@dataclass(frozen=True)
class Part:
    """Tokens that came to a choice: all at once, or piece by piece."""

    choice: Choice
    spans: Sequence[Span]
    text: str
    begins: bool = False  # the choice

    @property
    def token_ids(self) -> list[int]:
        """The tokens of all spans."""
        return [token for span in self.spans for token in span.tokens.tolist()]


class Format(Protocol):
    """Describes how one of the two endpoints writes its answers."""

    @property
    def kind(self) -> str:
        """OpenAI's name for a whole answer."""

    @property
    def chunk_kind(self) -> str:
        """OpenAI's name for a piece of a streamed answer."""

    @property
    def num_prompt_alternatives(self) -> int | None:
        """Most likely tokens to find at each token of a prompt; None if prompts are not scored."""

    @property
    def waits_for_all(self) -> bool:
        """Tests whether a streamed choice is written at its end, since only then it can be read."""

    def choice(self, part: Part) -> dict[str, Any]:
        """Writes a choice of a whole answer."""

    def chunk_choice(self, part: Part) -> dict[str, Any]:
        """Writes a piece of a choice."""

    def beside_choices(self, prompts: Sequence[GivenPrompt]) -> dict[str, Any]:
        """Returns what a whole answer has beside its choices."""


@dataclass(frozen=True)
class CompletionFormat:
    """The form of `/v1/completions`."""

    request: CompletionRequest
    tokenizer: Any
    kind: str = "text_completion"
    chunk_kind: str = "text_completion"
    waits_for_all: bool = False

    @property
    def num_prompt_alternatives(self) -> int | None:
        """Most likely tokens to find at each token of a prompt; None if prompts are not scored."""
        request = self.request
        wanted = [request.prompt_logprobs, request.logprobs if request.echo else None]
        given = [number for number in wanted if number is not None]
        return max(given) if given else None

    def choice(self, part: Part) -> dict[str, Any]:
        """Writes a choice, whole or a piece: text, and log-probabilities if they are wanted."""
        is_echo, prompt = self.request.echo and part.begins, part.choice.prompt
        logprobs = self._logprobs(part, is_echo) if self.request.logprobs is not None else None
        text = prompt.text + part.text if is_echo else part.text
        return {"text": text, "logprobs": logprobs} | _ids(self.request, part) | self._of_prompt(prompt)

    chunk_choice = choice

    def beside_choices(self, prompts: Sequence[GivenPrompt]) -> dict[str, Any]:
        """Nothing: what is known of a prompt stands in its choices."""
        return {}

    def _of_prompt(self, prompt: GivenPrompt) -> dict[str, Any]:
        scores = {"scores": prompt.scores} if prompt.scores is not None else {}
        return _prompt_logprobs(self.request, prompt, self.tokenizer) | scores

    def _logprobs(self, part: Part, is_echo: bool) -> dict[str, Any]:
        rows = [*(self._prompt_rows(part.choice.prompt) if is_echo else ()), *self._drawn_rows(part)]
        tokens = [row[0] for row in rows]
        start = 0 if is_echo or not self.request.echo else len(part.choice.prompt.text)
        return {
            "tokens": [self.tokenizer.decode([token]) for token in tokens],
            "token_logprobs": [row[1] for row in rows],
            "full_logprobs": [row[2] for row in rows],
            "top_logprobs": [row[3] for row in rows] if self.request.logprobs else None,
            "text_offset": offsets(self.tokenizer, tokens, start) if part.begins else [],
        }

    def _prompt_rows(self, prompt: GivenPrompt) -> Iterator[tuple[int, float | None, float | None, Any]]:
        tokens = prompt.tokens.tolist()
        yield tokens[0], None, None, None
        for token, known in zip(tokens[1:], prompt.known, strict=False):
            assert known.logprob is not None
            yield token, known.logprob, known.logprob, self._top(known, token, known.logprob)

    def _drawn_rows(self, part: Part) -> Iterator[tuple[int, float | None, float | None, Any]]:
        for token, logprob, full_logprob, known in _drawn(part):
            yield token, logprob, full_logprob, self._top(known, token, full_logprob) if known else None

    def _top(self, known: TokenDetails, token: int, logprob: float) -> dict[str, float]:
        """Texts and log-probabilities of the likeliest tokens and of the one that is there, likeliest first."""
        top: dict[str, float] = {}
        for each, value in _likeliest(known, token, logprob, self.request.logprobs or 0):
            top.setdefault(self.tokenizer.decode([each]), value)  # several tokens may show as one text
        return top


@dataclass(frozen=True)
class ChatFormat:
    """The form of `/v1/chat/completions`."""

    request: ChatRequest
    tokenizer: Any
    calls: CallForm | None = None  # how the model writes calls of the tools that it is offered
    kind: str = "chat.completion"
    chunk_kind: str = "chat.completion.chunk"

    @property
    def num_prompt_alternatives(self) -> int | None:
        """Most likely tokens to find at each token of a prompt; None if prompts are not scored."""
        return self.request.prompt_logprobs

    @property
    def waits_for_all(self) -> bool:
        """A call of a tool can be read when it is complete."""
        return self.calls is not None

    def choice(self, part: Part) -> dict[str, Any]:
        """Writes a message."""
        message = {"role": "assistant", "content": part.text}
        called = self._called(part)
        return {"message": message | called, **self._details(part)} | self._finish(called)

    def chunk_choice(self, part: Part) -> dict[str, Any]:
        """Writes a piece of a message."""
        delta = {"role": "assistant", "content": part.text}
        called = self._called(part)
        for index, call in enumerate(called.get("tool_calls", ())):
            call["index"] = index
        return {"delta": delta | called, **self._details(part)} | self._finish(called)

    def beside_choices(self, prompts: Sequence[GivenPrompt]) -> dict[str, Any]:
        """The prompt's log-probabilities, where they are wanted."""
        return _prompt_logprobs(self.request, prompts[0], self.tokenizer)

    def _called(self, part: Part) -> dict[str, Any]:
        """Content and tool calls of a message that calls tools."""
        if self.calls is None:
            return {}
        text, calls = self.calls.read(self.tokenizer, part.token_ids)
        return {"content": text or None, "tool_calls": calls} if calls else {}

    def _finish(self, called: Mapping[str, Any]) -> dict[str, Any]:
        return {"finish_reason": "tool_calls"} if called else {}

    def _details(self, part: Part) -> dict[str, Any]:
        content = {"content": list(self._logprobs(part)), "refusal": None} if self.request.logprobs else None
        return {"logprobs": content} | _ids(self.request, part)

    def _logprobs(self, part: Part) -> Iterator[dict[str, Any]]:
        for token, logprob, full_logprob, known in _drawn(part):
            top = _likeliest(known, token, full_logprob, self.request.num_alternatives) if known else []
            yield {
                **self._token(token, logprob),  # of the distribution that was sampled from
                "full_logprob": full_logprob,  # of the whole distribution at temperature 1, as those of alternatives
                "top_logprobs": [self._token(*each) for each in top[: self.request.num_alternatives]],
            }

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.tokenizer.decode([token])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def offsets(tokenizer: Any, tokens: Sequence[int], start: int) -> list[int]:
    """Returns where each token's text begins, counted in characters; the text of the first begins at `start`."""
    text, places, place = StreamText(tokenizer, ()), [], start
    for token in tokens:
        places.append(place)
        place += len(text.add([token]))
    return places


def _drawn(part: Part) -> Iterator[tuple[int, float, float, TokenDetails | None]]:
    """Each token of a part, its two log-probabilities, and what more is known of its place."""
    known = iter(part.choice.known)
    for span in part.spans:
        columns = (span.tokens.tolist(), span.logprobs.tolist(), span.full_logprobs.tolist())
        for row in zip(*columns, strict=True):
            yield *row, next(known, None)


def _likeliest(known: TokenDetails, token: int, logprob: float, num: int) -> list[tuple[int, float]]:
    """The likeliest ids at a place, and the one that is there if it is none of them."""
    top = dict(list(known.top.items())[:num])
    return list((top if token in top else top | {token: logprob}).items())


def _ids(request: CompletionRequest | ChatRequest, part: Part) -> dict[str, Any]:
    if not request.return_token_ids:
        return {}
    return {"prompt_token_ids": part.choice.prompt.tokens.tolist(), "token_ids": part.token_ids}


def _prompt_logprobs(request: CompletionRequest | ChatRequest, prompt: GivenPrompt, tokenizer: Any) -> dict[str, Any]:
    if request.prompt_logprobs is None:
        return {}
    rows = prompt_logprobs_as_json(prompt.tokens.tolist(), prompt.known, request.prompt_logprobs, tokenizer)
    return {"prompt_logprobs": rows}


def segments(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Returns which version wrote how many tokens, in order."""
    merged: list[dict[str, Any]] = []
    for span in spans:
        version = version_as_json(span.policy)
        if merged and merged[-1] == version | {"num_tokens": merged[-1]["num_tokens"]}:
            merged[-1]["num_tokens"] += len(span.tokens)
        else:
            merged.append(version | {"num_tokens": len(span.tokens)})
    return merged


def error_body(error: PeriluneError) -> dict[str, Any]:
    """Writes an error in OpenAI's form."""
    kind = "invalid_request_error" if HTTP_STATUS[status_of(error)] < 500 else "server_error"
    param = error.field if isinstance(error, FieldError) else None
    return {"error": {"message": str(error), "type": kind, "param": param, "code": status_of(error).name.lower()}}


def status_of(error: PeriluneError) -> Any:
    """The gRPC status of an error, by its nearest known class."""
    return next(STATUS_OF_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_OF_ERROR)
