"""slime: the request that `--rm-type remote_rm --rm-url` posts, and its response. Follows slime's rm_hub of 2026.

    --rm-type remote_rm --rm-url 'http://127.0.0.1:7042/slime?grader=math'

With a token: `http://perilune:TOKEN@host:7042/…`, for slime sends no custom headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perilune.api.reward.v1.reward_pb2 import ScoreRequest
from perilune.client.reward import score_request
from perilune.errors import InvalidInputError
from perilune.integrations.scorer import question_of, without_closing_tokens


def read(body: Any) -> list[ScoreRequest]:
    """The request in `{"prompt", "response", "label"}`. InvalidInputError says what is wrong."""
    try:
        prompt, response, label = body["prompt"], body["response"], body["label"]
        question = question_of(prompt)
    except (KeyError, TypeError) as error:
        raise InvalidInputError('the body must be {"prompt": …, "response": …, "label": …}') from error
    reference = "" if label is None else str(label)
    return [score_request(without_closing_tokens(str(response)), reference, question=question)]


def answer(values: Sequence[float]) -> float:
    """The response that slime reads: the reward is the whole body."""
    return values[0]
