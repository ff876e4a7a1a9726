"""Environments' answers, checked: environments are programs of their own, and may return anything."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

from perilune.api.reward.v1 import reward_pb2
from perilune.data.rows import ROLES
from perilune.errors import InvalidInputError
from services.rollout.environments.base import Observation, Outcome

ANSWERING_ROLES = tuple(role for role in ROLES if role != "assistant")
MAX_REASON_CHARS = 500


def checked(observation: Any) -> Observation:
    """The answer to a turn. InvalidInputError says what is wrong with it."""
    if not isinstance(observation, Observation):
        raise InvalidInputError(f"answered with {_kind(observation)}, and not with an Observation")
    if not isinstance(observation.text, str):
        raise InvalidInputError(f"answered with a text that is {_kind(observation.text)}")
    if not isinstance(observation.messages, list | tuple):
        raise InvalidInputError(f"answered with messages that are {_kind(observation.messages)}, and no list of them")
    if observation.text and observation.messages:
        raise InvalidInputError("answered with text and with messages; it must be either")
    for message in observation.messages:
        _check_message(message)
    return observation


def outcome_message(outcome: Any) -> reward_pb2.Outcome:
    """An outcome as it travels. InvalidInputError: it has no finite value and no error either."""
    if not isinstance(outcome, Outcome):
        raise InvalidInputError(f"gave an outcome that is {_kind(outcome)}, and no Outcome")
    if not isinstance(outcome.reason, str) or not isinstance(outcome.error, str):
        raise InvalidInputError("gave an outcome whose reason or error is no text")
    if outcome.correct is not None and not isinstance(outcome.correct, bool):
        raise InvalidInputError(f"gave an outcome whose `correct` is {_kind(outcome.correct)}")
    reason, error = outcome.reason[:MAX_REASON_CHARS], outcome.error[:MAX_REASON_CHARS]
    if error:
        return reward_pb2.Outcome(reason=reason, error=error)
    if not isinstance(outcome.value, numbers.Real) or not math.isfinite(outcome.value):
        raise InvalidInputError(f"gave an outcome of {outcome.value!r:.80}; its value must be a finite number")
    return reward_pb2.Outcome(value=float(outcome.value), correct=outcome.correct, reason=reason)


def _check_message(message: Any) -> None:
    if not isinstance(message, Mapping) or message.keys() != {"role", "content"}:
        raise InvalidInputError(f"answered with a message that is no {{role, content}}: {message!r:.80}")
    if message["role"] not in ANSWERING_ROLES:
        known = ", ".join(ANSWERING_ROLES)
        raise InvalidInputError(f"answered with a message of the role {message['role']!r:.80}; it may be {known}")
    if not isinstance(message["content"], str):
        raise InvalidInputError(f"answered with a message whose content is {_kind(message['content'])}")


def _kind(value: Any) -> str:
    return f"{value!r:.80} ({type(value).__name__})"
