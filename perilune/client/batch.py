"""The requests of a batch that are still to be scored: shared by both reward clients."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence

from perilune.api.reward.v1.reward_pb2 import (
    SCORE_STATUS_UNAVAILABLE,
    GraderChoice,
    Score,
    ScoreBatchRequest,
    ScoreRequest,
)
from perilune.client.messages import check_deadline
from perilune.errors import OverloadedError, PeriluneError, UnavailableError

CALL_REQUESTS, CALL_BYTES = 2000, 16 << 20  # at most, in one call
PATIENCE_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


class Batch:
    """Requests that wait for their score. A call that breaks off leaves some waiting, and a grader whose sandbox or
    judge was away leaves others: both are asked for again, with growing pauses, until the deadline."""

    def __init__(self, requests: Iterable[ScoreRequest], graders: Sequence[GraderChoice], deadline_s: float) -> None:
        self._waiting = dict(enumerate(requests))
        check_deadline(deadline_s)
        self._graders = graders
        self._until = time.monotonic() + deadline_s
        self._pause_s = _FIRST_PAUSE_S

    def calls(self) -> list[tuple[list[int], ScoreBatchRequest]]:
        """The next calls: the indexes of the requests, and the message that holds them."""
        calls: list[tuple[list[int], ScoreBatchRequest]] = []
        num_bytes = 0
        for index, request in self._waiting.items():
            num_bytes += request.ByteSize()
            if not calls or len(calls[-1][0]) == CALL_REQUESTS or num_bytes > CALL_BYTES:
                calls.append(([], ScoreBatchRequest(graders=self._graders, deadline_s=self.asked_s())))
                num_bytes = request.ByteSize()
            calls[-1][0].append(index)
            calls[-1][1].requests.append(request)
        return calls

    def asked_s(self) -> float:
        """The deadline that the service is given: a busy one takes up a batch late, and its scores have a way to go."""
        remaining_s = self._until - time.monotonic()
        return max(0.001, remaining_s - min(1.0, 0.15 * remaining_s))

    def patience_s(self) -> float:
        """The timeout of a call, for a service that does not end it by itself at the deadline."""
        return max(0.0, self._until - time.monotonic()) + PATIENCE_S

    def is_final(self, index: int, score: Score) -> bool:
        """Takes a score; False if there is time to ask for a better one."""
        if score.status == SCORE_STATUS_UNAVAILABLE and self._until - time.monotonic() > self._pause_s:
            return False
        self._waiting.pop(index, None)
        return True

    def pause_s(self, failure: PeriluneError | None) -> float | None:
        """The pause before the next calls; None if nothing is waiting. Raises the failure if there is no time
        left, or trying again cannot help."""
        if failure and not isinstance(failure, UnavailableError | OverloadedError):
            raise failure
        if not self._waiting:
            return None
        asked_s = failure.retry_after_s if isinstance(failure, OverloadedError) else None
        pause_s = asked_s or self._pause_s * random.uniform(0.5, 1.0)
        if failure and pause_s > self._until - time.monotonic():
            raise failure
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return pause_s
