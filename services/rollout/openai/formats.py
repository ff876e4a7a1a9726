"""How the two kinds of answer are written, and errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from perilune.errors import STATUS_OF_ERROR, PeriluneError
from perilune.policies import version_as_json
from perilune.runtime.http.problems import HTTP_STATUS
from services.rollout.engines.base import Span
from services.rollout.openai.request import ChatRequest, CompletionRequest
from services.rollout.stream_text import StreamText


@dataclass
class Choice:
    """One of the n answers, as far as it came."""

    index: int
    text: StreamText
    spans: list[Span] = field(default_factory=list)
    finish_reason: str | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of this answer so far."""
        return sum(len(span.tokens) for span in self.spans)


@dataclass(frozen=True)
class Part:
    """Tokens that came to a choice: all at once, or piece by piece."""

    choice: Choice
    spans: Sequence[Span]
    text: str

    @property
    def token_ids(self) -> list[int]:
        """The tokens of all spans."""
        return [token for span in self.spans for token in span.tokens.tolist()]


class Format(Protocol):
    """How one of the two endpoints writes its answers."""

    @property
    def kind(self) -> str:
        """OpenAI's name for a whole answer."""

    @property
    def chunk_kind(self) -> str:
        """OpenAI's name for a piece of a streamed answer."""

    def choice(self, part: Part, prompt: Sequence[int]) -> dict[str, Any]:
        """Writes a choice of a whole answer."""

    def chunk_choice(self, part: Part, prompt: Sequence[int]) -> dict[str, Any]:
        """Writes a piece of a choice."""


@dataclass(frozen=True)
class CompletionFormat:
    """The form of `/v1/completions`."""

    request: CompletionRequest
    tokenizer: Any
    kind: str = "text_completion"
    chunk_kind: str = "text_completion"

    def choice(self, part: Part, prompt: Sequence[int]) -> dict[str, Any]:
        """Writes a choice, whole or a piece: text, and log-probabilities if they are wanted."""
        ids = {"prompt_token_ids": list(prompt), "token_ids": part.token_ids} if self.request.return_token_ids else {}
        logprobs = self._logprobs(part) if self.request.logprobs is not None else None
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
    """The form of `/v1/chat/completions`."""

    request: ChatRequest
    tokenizer: Any
    kind: str = "chat.completion"
    chunk_kind: str = "chat.completion.chunk"

    def choice(self, part: Part, prompt: Sequence[int]) -> dict[str, Any]:
        """Writes a message."""
        return {"message": {"role": "assistant", "content": part.text}, **self._details(part, prompt)}

    def chunk_choice(self, part: Part, prompt: Sequence[int]) -> dict[str, Any]:
        """Writes a piece of a message."""
        return {"delta": {"role": "assistant", "content": part.text}, **self._details(part, prompt)}

    def _details(self, part: Part, prompt: Sequence[int]) -> dict[str, Any]:
        ids = {"prompt_token_ids": list(prompt), "token_ids": part.token_ids} if self.request.return_token_ids else {}
        content = {"content": list(self._logprobs(part)), "refusal": None} if self.request.logprobs else None
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
        version = version_as_json(span.policy)
        if merged and merged[-1] == version | {"num_tokens": merged[-1]["num_tokens"]}:
            merged[-1]["num_tokens"] += len(span.tokens)
        else:
            merged.append(version | {"num_tokens": len(span.tokens)})
    return merged


def error_body(error: PeriluneError) -> dict[str, Any]:
    """Writes an error in OpenAI's form."""
    kind = "invalid_request_error" if HTTP_STATUS[status_of(error)] < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": None, "code": status_of(error).name.lower()}}


def status_of(error: PeriluneError) -> Any:
    """The gRPC status of an error, by its nearest known class."""
    return next(STATUS_OF_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_OF_ERROR)
