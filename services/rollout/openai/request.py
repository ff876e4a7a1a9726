"""Requests of the endpoint, as OpenAI writes them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from perilune.errors import InvalidInputError

DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's

StopText = Annotated[str, Field(min_length=1, max_length=256)]


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False


class BaseRequest(BaseModel):
    """Fields that the two kinds of request have in common; one that is in neither is refused."""

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
        """The stop texts, of which there may be none."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class CompletionRequest(BaseRequest):
    """A request to continue a text, or token ids."""

    prompt: str | list[int]
    max_tokens: PositiveInt = DEFAULT_COMPLETION_TOKENS
    logprobs: Annotated[int, Field(ge=0, le=0)] | None = None  # 0: of the tokens that were drawn, and no others
    echo: Literal[False] = False


class ContentPart(BaseModel):
    """A part of a message; text is the only kind that the engines read."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: str
    content: str | list[ContentPart]

    @property
    def text(self) -> str:
        """The message's text, its parts joined."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(BaseRequest):
    """A request to answer messages."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None


Kind = TypeVar("Kind", bound=BaseRequest)


def read(kind: type[Kind], body: bytes) -> Kind:
    """Reads a request. InvalidInputError names every field that is wrong."""
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors()]
        raise InvalidInputError("; ".join(lines)) from error
