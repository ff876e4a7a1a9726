"""Requests of the endpoint, as OpenAI writes them, and what is ours beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic_core
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from perilune.errors import InvalidInputError
from perilune.images.sources import image_bytes
from services.rollout.openai.fields import FieldError, sort_out

DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's
MAX_CHOICES = 4096  # of one request, all prompts together
MAX_ALTERNATIVES = 20  # to a token; OpenAI's

IMAGE_PART = "image_url"  # the type of a part that shows an image, and its key

StopText = Annotated[str, Field(min_length=1, max_length=256)]
NumAlternatives = Annotated[int, Field(ge=0, le=MAX_ALTERNATIVES)]
TokenIds = list[NonNegativeInt]


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    include_usage: bool = False


class ResponseFormat(BaseModel):
    """Describes what an answer must look like: like anything, since no engine here can hold to more."""

    type: Literal["text"]


class BaseRequest(BaseModel):
    """Fields that the two kinds of request have in common."""

    model: Annotated[str, Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=128)] = 1
    temperature: Annotated[float, Field(ge=0, le=10)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] = 0  # -1 means 0, as in vLLM
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None
    seed: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False
    response_format: ResponseFormat | None = None
    prompt_logprobs: NumAlternatives | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts, of which there may be none."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def num_samples(self) -> int:
        """Samples to draw for each prompt."""
        return self.n

    @property
    def num_alternatives(self) -> int:
        """Most likely tokens to name at each drawn one."""
        return 0

    @property
    def whole_only(self) -> list[str]:
        """The fields given that a streamed answer has no room for."""
        return ["prompt_logprobs"] if self.prompt_logprobs is not None else []

    @model_validator(mode="after")
    def _check_stream(self) -> BaseRequest:
        if self.stream and self.whole_only:
            raise ValueError(f"{self.whole_only[0]} comes with whole answers only; leave out stream")
        return self


class Score(BaseModel):
    """Describes where in a prompt which log-probabilities are wanted, in one call for all positions."""

    model_config = ConfigDict(extra="forbid")

    positions: TokenIds | None = None  # 1 to the prompt's length, which is where its continuation begins; ascending
    token_ids: list[TokenIds] | TokenIds = []  # to score at each position: the same ones, or a list for each position
    top: NonNegativeInt = 0  # most likely ids at each position


def _prompts(value: Any) -> list[Any]:
    """The prompts of a request, one by one: texts, or lists of token ids."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise ValueError("give a text, a list of token ids, or a list of either that is not empty")
    if all(type(item) is int for item in value):
        return [value]
    for number, item in enumerate(value):
        is_ids = isinstance(item, list) and all(type(token) is int for token in item)
        if not (isinstance(item, str) or is_ids):
            raise ValueError(f"prompt {number} of the list is neither a text nor a list of token ids")
    return value


class CompletionRequest(BaseRequest):
    """A request to continue texts, or token ids, or to score them."""

    prompt: Annotated[list[Any], BeforeValidator(_prompts)]
    max_tokens: NonNegativeInt = DEFAULT_COMPLETION_TOKENS
    logprobs: NumAlternatives | None = None
    echo: bool = False
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    score: Score | list[Score] | None = None

    @property
    def num_samples(self) -> int:
        """Samples to draw for each prompt, of which the n likeliest are answered with."""
        return self.best_of or self.n

    @property
    def num_alternatives(self) -> int:
        """Most likely tokens to name at each token."""
        return self.logprobs or 0

    @property
    def whole_only(self) -> list[str]:
        """The fields given that a streamed answer has no room for."""
        given = {
            "logprobs above 0": self.num_alternatives,
            "echo with logprobs": self.echo and self.logprobs is not None,
            "best_of": self.num_samples > self.n,
            "score": self.score,
        }
        return [*super().whole_only, *(name for name, value in given.items() if value)]

    def score_of(self, index: int) -> Score | None:
        """Returns what is to be scored in the prompt of that index."""
        return self.score[index] if isinstance(self.score, list) else self.score

    @model_validator(mode="after")
    def _check_counts(self) -> CompletionRequest:
        if self.num_samples < self.n:
            raise ValueError(f"best_of is {self.best_of}, and must be at least n, which is {self.n}")
        if len(self.prompt) * self.num_samples > MAX_CHOICES:
            raise ValueError(f"{len(self.prompt)} prompts by {self.num_samples}: at most {MAX_CHOICES} in one request")
        if isinstance(self.score, list) and len(self.score) != len(self.prompt):
            raise ValueError(f"score has {len(self.score)} entries for {len(self.prompt)} prompts")
        return self


class Message(BaseModel):
    """A message of a conversation; what it has beside role and content is the chat template's."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[dict[str, Any]] | None = None

    def for_template(self, sees: bool = False) -> dict[str, Any]:
        """The message as chat templates take it: one text, and arguments of tool calls as objects.

        With images its content is a list of parts. FieldError: it has parts that the model cannot read.
        """
        extra = {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        if "tool_calls" in extra:
            extra["tool_calls"] = [_with_parsed_arguments(call) for call in _listed(extra["tool_calls"])]
        content = [_part_of(part) for part in self._parts] if sees and self.images else self._text()
        return {"role": self.role, "content": content, **extra}

    @property
    def images(self) -> list[bytes]:
        """The encoded images of its parts. FieldError: one is not given as a data URL."""
        return [_image_of(part) for part in self._parts if part.get("type") == IMAGE_PART]

    @property
    def _parts(self) -> list[dict[str, Any]]:
        return self.content if isinstance(self.content, list) else []

    def _text(self) -> str:
        if isinstance(self.content, list):
            return "".join(_text_of(part) for part in self.content)
        return self.content or ""


class ChatRequest(BaseRequest):
    """A request to answer messages."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    logprobs: bool = False
    top_logprobs: NumAlternatives | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: Literal["none", "auto"] = "auto"
    chat_template_kwargs: dict[str, Any] = {}
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @property
    def num_alternatives(self) -> int:
        """Most likely tokens to name at each drawn one."""
        return self.top_logprobs or 0

    @property
    def whole_only(self) -> list[str]:
        """The fields given that a streamed answer has no room for."""
        return [*super().whole_only, *(["top_logprobs"] if self.num_alternatives else [])]

    @property
    def offered_tools(self) -> list[dict[str, Any]]:
        """The tools that the model is to know of."""
        return [] if self.tool_choice == "none" else self.tools

    @model_validator(mode="after")
    def _check_logprobs(self) -> ChatRequest:
        if self.num_alternatives and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        return self


Kind = TypeVar("Kind", bound=BaseRequest)


def read(kind: type[Kind], body: bytes) -> tuple[Kind, list[str]]:
    """Reads a request; returns it, and the names of the fields that were ignored.

    InvalidInputError names every field that is wrong.
    """
    given, ignored = sort_out(_object(body), kind.model_fields)
    if isinstance(options := given.get("stream_options"), dict):
        unknown = [name for name in options if name not in StreamOptions.model_fields]
        ignored += [f"stream_options.{name}" for name in unknown]
    try:
        return kind.model_validate(given), ignored
    except ValidationError as error:
        problems = [(".".join(map(str, each["loc"])), _in_words(each)) for each in error.errors()]
        text = "; ".join(f"{place}: {problem}" if place else problem for place, problem in problems)
        first = next((str(each["loc"][0]) for each in error.errors() if each["loc"]), "")
        raise FieldError(first, text) from error


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = pydantic_core.from_json(body or b"{}")
    except ValueError as error:
        raise InvalidInputError(f"the body is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInputError("the body is no JSON object")
    return value


def _in_words(problem: Any) -> str:
    """A problem as pydantic found it; a check of our own speaks for itself."""
    return str(problem["msg"]).removeprefix("Value error, ")


def _part_of(part: Mapping[str, Any]) -> dict[str, str]:
    """A part as chat templates of models that see take it."""
    return {"type": "image"} if part.get("type") == IMAGE_PART else {"type": "text", "text": _text_of(part)}


def _image_of(part: Mapping[str, Any]) -> bytes:
    given = part.get(IMAGE_PART)
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str) or not url.startswith("data:"):
        raise FieldError(
            "messages",
            "an image is given as a data URL, data:image/png;base64,…: this server fetches no URLs and reads no files",
        )
    try:
        return image_bytes(url, Path(), "the image")
    except InvalidInputError as error:
        raise FieldError("messages", str(error)) from error


def _text_of(part: Mapping[str, Any]) -> str:
    kind, text = part.get("type"), part.get("text")
    if kind not in ("text", "input_text"):
        raise FieldError("messages", f"a part of the type {kind!r} cannot be read: the model is given text only")
    if not isinstance(text, str):
        raise FieldError("messages", "a part of the type 'text' has no text")
    return text


def _listed(calls: Any) -> list[Any]:
    if not isinstance(calls, list):
        raise FieldError("messages", "tool_calls must be a list")
    return calls


def _with_parsed_arguments(call: Any) -> Any:
    """OpenAI writes arguments as JSON in a text, and chat templates take the object."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        parsed = pydantic_core.from_json(function["arguments"])
    except ValueError:
        return call  # as the model wrote it
    return {**call, "function": {**function, "arguments": parsed}}
