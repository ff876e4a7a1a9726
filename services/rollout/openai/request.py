"""What is asked of the endpoint."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from perilune.errors import InvalidInputError

DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's

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


def read(kind: type[Kind], body: bytes) -> Kind:
    """InvalidInputError names every field that is wrong."""
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors()]
        raise InvalidInputError("; ".join(lines)) from error
