"""OpenRLHF: the request that `--reward.remote_url` posts, and its response. Follows OpenRLHF 0.11.

    --reward.remote_url 'http://127.0.0.1:7042/openrlhf?grader=math'

With a token: `http://perilune:TOKEN@host:7042/…`, for OpenRLHF sends no custom headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perilune.api.reward.v1.reward_pb2 import ScoreRequest
from perilune.client.reward import score_request
from perilune.errors import InvalidInputError
from perilune.integrations.scorer import without_closing_tokens


def read(body: Any) -> list[ScoreRequest]:
    """The requests in `{"query": […], "prompts": […], "labels": […]}`. InvalidInputError says what is wrong."""
    try:
        rows = list(zip(body["query"], body["prompts"], body["labels"], strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            'the body must be {"query": […], "prompts": […], "labels": […]}, all as long'
        ) from error
    return [_request(str(query), str(prompt), label) for query, prompt, label in rows]


def answer(values: Sequence[float]) -> dict[str, Any]:
    """The response that OpenRLHF reads."""
    return {"rewards": list(values), "scores": list(values), "extra_logs": {}}


def _request(query: str, prompt: str, label: Any) -> ScoreRequest:
    _, found, response = query.partition(prompt)
    if not found:
        raise InvalidInputError("the query does not hold its prompt, so that its response cannot be told apart")
    return score_request(without_closing_tokens(response), "" if label is None else str(label), question=prompt)
