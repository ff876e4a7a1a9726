"""Shared by the adapters: graders and an address, as plain values that can be pickled and sent to any process."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import SecretStr

from perilune.api.reward.v1.reward_pb2 import (
    SCORE_STATUS_OK,
    SCORE_STATUS_UNDECIDED,
    GraderChoice,
    Score,
    ScoreRequest,
    ScoreStatus,
)
from perilune.channel import Credentials
from perilune.client.reward import AsyncRewardClient, Grader, RewardClient, read_graders
from perilune.errors import InvalidInputError, PeriluneError

DEADLINE_S = 120.0
# Some trainers decode a response with the tokens that end its turn.
_CLOSING_TOKENS = re.compile(r"(?:\s*(?:<\|[^|<>]*\|>|<｜[^｜]*｜>|</s>|<eos>|<end_of_turn>|\[EOS\]))+\s*$")


class UnscoredError(PeriluneError):
    """The service gave no score: a grader failed, or was late. This is no statement about the answer."""


@dataclass(frozen=True)
class Scorer:
    """Scores answers by a reward service."""

    graders: Grader | Sequence[Grader]
    address: str = ""  # PERILUNE_REWARD_ADDRESS if not given
    deadline_s: float = DEADLINE_S
    undecided: float | None = None  # the reward where the grader ran and could not decide; None: no reward
    token: str = ""  # PERILUNE_TOKEN if not given

    def scores(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores all requests, in their order. UnavailableError if the service does not answer."""
        client = _client(os.getpid(), self._where(), self.token)
        return client.score_all(requests, self._choices(), self.deadline_s)

    def value(self, request: ScoreRequest) -> float:
        """Scores one request. UnscoredError if there is no value."""
        return self._value(self.scores([request])[0])

    async def value_async(self, request: ScoreRequest) -> float:
        """See `value`."""
        clients = _ASYNC_CLIENTS.setdefault(asyncio.get_running_loop(), {})
        place = (self._where(), self.token)
        if place not in clients:
            clients[place] = AsyncRewardClient(self._where(), credentials=_credentials(self.token))
        (score,) = await clients[place].score_all([request], self._choices(), self.deadline_s)
        return self._value(score)

    def value_or_none(self, score: Score) -> float | None:
        """The reward; None where there is none."""
        if score.status == SCORE_STATUS_UNDECIDED:
            return self.undecided
        return score.value if score.status == SCORE_STATUS_OK else None

    def _value(self, score: Score) -> float:
        value = self.value_or_none(score)
        if value is None:
            raise UnscoredError(explain(score))
        return value

    def _choices(self) -> list[GraderChoice]:
        return read_graders(self.graders)

    def _where(self) -> str:
        address = self.address or os.environ.get("PERILUNE_REWARD_ADDRESS", "")
        if not address:
            raise InvalidInputError('where is the reward service? give address="HOST:PORT" or PERILUNE_REWARD_ADDRESS')
        return address


def explain(score: Score) -> str:
    """The reason for a missing value, in a line."""
    reasons = [
        f"{part.grader}: {part.evidence.get('error', ScoreStatus.Name(part.status))}"
        for part in score.components
        if part.status != SCORE_STATUS_OK
    ]
    return f"no score ({ScoreStatus.Name(score.status).removeprefix('SCORE_STATUS_')}): {'; '.join(reasons)}"


def text_of(completion: Any) -> str:
    """The text of a completion: a string, or a conversation whose last message of the assistant counts."""
    if isinstance(completion, str):
        return completion
    replies = [_text(message) for message in completion if _get(message, "role") == "assistant"]
    return replies[-1] if replies else ""


def question_of(prompt: Any) -> str:
    """The text of a prompt: a string, or a conversation whose messages of the user count."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(_text(message) for message in prompt if _get(message, "role") == "user")


def without_closing_tokens(response: str) -> str:
    """A response without the special tokens at its end."""
    return _CLOSING_TOKENS.sub("", response)


def _text(message: Any) -> str:
    content = _get(message, "content") or ""
    if isinstance(content, str):
        return content
    return "".join(_get(part, "text") or "" for part in content)


def _get(thing: Any, key: str) -> Any:
    return thing.get(key) if isinstance(thing, Mapping) else getattr(thing, key, None)


@cache  # by process: a channel does not survive a fork
def _client(pid: int, address: str, token: str) -> RewardClient:
    return RewardClient(address, credentials=_credentials(token))


_ASYNC_CLIENTS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], AsyncRewardClient]]
_ASYNC_CLIENTS = WeakKeyDictionary()


def _credentials(token: str) -> Credentials:
    return Credentials(token=SecretStr(token)) if token else Credentials()
