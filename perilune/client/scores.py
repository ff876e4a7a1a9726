"""Scores as the clients give them: the service's messages, whose statuses print their names."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, cast

from google.protobuf.message import Message

from perilune.api.reward.v1 import reward_pb2
from perilune.api.reward.v1.reward_pb2 import Component, Score


class ScoreStatus(IntEnum):
    """The status of a score; equal to the number that the message has."""

    SCORE_STATUS_UNSPECIFIED = reward_pb2.SCORE_STATUS_UNSPECIFIED
    SCORE_STATUS_OK = reward_pb2.SCORE_STATUS_OK
    SCORE_STATUS_GRADER_ERROR = reward_pb2.SCORE_STATUS_GRADER_ERROR
    SCORE_STATUS_TIMEOUT = reward_pb2.SCORE_STATUS_TIMEOUT
    SCORE_STATUS_UNAVAILABLE = reward_pb2.SCORE_STATUS_UNAVAILABLE
    SCORE_STATUS_UNDECIDED = reward_pb2.SCORE_STATUS_UNDECIDED

    def __str__(self) -> str:
        return self.name

    __format__ = object.__format__  # type: ignore[assignment]


_KNOWN = frozenset(map(int, ScoreStatus))


def named(score: Score) -> Score:
    """A score whose status, and whose components' statuses, print their names."""
    return cast(Score, _Named(score))


class _Named(dict[str, Any]):
    """Stands for a message. It is a table of the message's fields too: as such, other messages take it for one of
    their fields (`ScoredAnswer(score=…)`); `message` is the message itself."""

    def __init__(self, message: Message) -> None:
        super().__init__({field.name: value for field, value in message.ListFields()})
        self.message = message

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self.message)

    @property
    def status(self) -> int:
        number = int(cast(Score, self.message).status)
        return ScoreStatus(number) if number in _KNOWN else number

    @property
    def components(self) -> list[Component]:
        return [cast(Component, _Named(component)) for component in cast(Score, self.message).components]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.message, name)

    def __eq__(self, other: object) -> bool:
        return self.message == (other.message if type(other) is _Named else other)

    __hash__ = None

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return repr(self.message)

    __str__ = __repr__

    def __reduce__(self) -> Any:
        return _Named, (self.message,)
