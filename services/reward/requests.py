"""Says what a request asks for, checked before anything is graded."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from perilune.api.reward.v1.reward_pb2 import ScoreRequest
from perilune.errors import InvalidInputError, StateError
from services.reward.graders.grader import GradingSample
from services.reward.scoring import Choice, read_choices

MAX_KEY_CHARS = 256
WAY_BACK_S = 0.1  # kept of a deadline for the answer to arrive; of a short one, a tenth


@dataclass(frozen=True)
class Limits:
    """Describes what one request may ask of the service."""

    text_bytes: int  # question, reference, response, conversation and images together
    deadline_s: float


@dataclass(frozen=True)
class Asked:
    """One request, checked: what to grade, by which graders, and until when (`time.monotonic`)."""

    request: ScoreRequest
    sample: GradingSample
    choices: list[Choice]
    deadline: float


def read_request(request: ScoreRequest, limits: Limits, remaining_s: float | None = None) -> Asked:
    """Checks a request; `remaining_s` is what is left of the call's own deadline.

    InvalidInputError or StateError say what is wrong, and name the nearest right thing.
    """
    num_bytes = request.ByteSize()
    if num_bytes > limits.text_bytes:
        raise InvalidInputError(
            f"the texts and images of one request are {num_bytes:,} bytes, and may be {limits.text_bytes:,}"
        )
    if len(request.idempotency_key) > MAX_KEY_CHARS:
        raise InvalidInputError(f"the idempotency key is longer than {MAX_KEY_CHARS} characters")
    choices = read_choices(request.graders)
    for asked, choice in zip(request.graders, choices, strict=True):
        if asked.version and asked.version != choice.grader.version:
            raise StateError(
                f"grader {asked.name!r} is at version {choice.grader.version!r} here, not {asked.version!r}; "
                "leave the version out to take what there is"
            )
    deadline_s = read_deadline(request, limits, remaining_s)
    return Asked(request, _sample(request), choices, time.monotonic() + deadline_s)


def read_deadline(request: Any, limits: Limits, remaining_s: float | None) -> float:
    """Seconds until the score must be on its way, to be there by the deadline of the request and of the call."""
    given = request.deadline_s if request.HasField("deadline_s") else math.inf
    if not given > 0:  # NaN as well
        raise InvalidInputError(f"deadline_s must be above 0, not {given:g}")
    wanted = min(given, math.inf if remaining_s is None else remaining_s)
    return min(wanted - min(WAY_BACK_S, 0.1 * wanted), limits.deadline_s)


def _sample(request: ScoreRequest) -> GradingSample:
    question = request.question or "\n".join(message.content for message in request.conversation)
    return GradingSample(
        question,
        request.reference,
        request.response,
        tuple(request.conversation),
        tuple(request.images),
        request.outcome if request.HasField("outcome") else None,
    )
