"""A run's teacher: another model's RolloutService, asked once for all tokens of each sample that has ended.

What it says is written into the sample's segments and travels with them. A teacher that is away is waited for, for as
long as it takes: the sample stays in hand with all its tokens, and the run is warned.

Shapes: P tokens of the response, K ids at each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import grpc
import numpy as np
from numpy.typing import NDArray

from perilune.api.rollout.v1.rollout_pb2 import ScoreTokensRequest, ScoreTokensResponse, TextToScore
from perilune.api.rollout.v1.rollout_pb2_grpc import RolloutServiceStub
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion, Segment
from perilune.channel import open_channel
from perilune.codec import num_elements, pack, unpack
from perilune.errors import InvalidInputError, OverloadedError, UnavailableError, error_from_rpc
from perilune.models.chat import other_tokenizer
from perilune.recipe import TeacherTable
from services.rollout.engines.base import Engine, TokensToScore
from services.rollout.rollout import Rollout
from services.rollout.served import scored

logger = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 15.0  # between two tries to reach a teacher
PATIENCE_S = 300.0  # for one answer


class Teacher:
    """The run's teacher, as one rollout worker asks it."""

    def __init__(self, table: TeacherTable, address: str, warn: Callable[[str], Awaitable[None]]) -> None:
        """`address` is taken where the table has none; `warn` tells the run that the teacher is away."""
        self._table, self._address, self._warn = table, table.address or address, warn
        self._channel = open_channel(self._address)
        self._is_away = False

    async def check(self, vocabulary: str) -> None:
        """Waits until the teacher answers. InvalidInputError if its vocabulary has another digest than this one."""
        answer = await self._ask([])
        if answer.vocabulary_digest != vocabulary:
            raise InvalidInputError(f"{other_tokenizer(self._table.model)} (its service is at {self._address})")

    async def judge(self, rollout: Rollout, engine: Engine, policy: PolicyVersion, vocab_size: int) -> None:
        """Has the teacher score a sample that has ended, and writes what it says into the sample's segments."""
        positions = np.arange(rollout.prompt_length, len(rollout.tokens), dtype=np.int64)
        if not len(positions):
            return
        num_top = min(self._table.top_k, vocab_size)
        nothing = np.zeros((len(positions), 0), dtype=np.int32)
        own = (
            await scored(engine, TokensToScore(rollout.tokens, positions, nothing, num_top), policy)
            if num_top
            else None
        )
        if rollout.has_images:
            raise InvalidInputError(f"the teacher at {self._address} reads text only, and the prompt has images")
        text = TextToScore(tokens=pack(rollout.tokens), positions=pack(positions.astype(np.int32)))
        if own is not None:
            text.chosen.CopyFrom(pack(own.top_ids.ravel()))
        (scores,) = (await self._ask([text])).texts
        logprobs_P = unpack(scores.logprobs)
        kl_P = None
        if own is not None:
            kl_P = divergence(own.top_logprobs, unpack(scores.chosen).reshape(own.top_logprobs.shape))
        note(rollout.segments, logprobs_P, kl_P)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def _ask(self, texts: Sequence[TextToScore]) -> ScoreTokensResponse:
        """Asks until there is an answer. InvalidInputError: what was asked is wrong, and so would be another try."""
        wait_s = FIRST_WAIT_S
        while True:
            try:
                answer = await RolloutServiceStub(self._channel).ScoreTokens(
                    ScoreTokensRequest(texts=texts), timeout=PATIENCE_S
                )
            except grpc.RpcError as error:
                problem = error_from_rpc(error)
                if not isinstance(problem, (UnavailableError, OverloadedError)):
                    raise InvalidInputError(f"the teacher at {self._address}: {problem}") from error
                await self._note_away(problem)
            else:
                self._is_away = False
                return answer
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _note_away(self, problem: Exception) -> None:
        """Warns once for each time that it goes away."""
        if self._is_away:
            return
        self._is_away = True
        text = f"the teacher at {self._address} does not answer; samples wait for it, and nothing is lost ({problem})"
        logger.warning("%s", text)
        await self._warn(text)


def divergence(policy_PK: NDArray[np.float32], teacher_PK: NDArray[np.float32]) -> NDArray[np.float32]:
    """KL(policy ‖ teacher) at each place, in nats, over the K ids alone, both renormalised on them."""
    own_PK, other_PK = (_renormalised(each.astype(np.float64)) for each in (policy_PK, teacher_PK))
    return (np.exp(own_PK) * (own_PK - other_PK)).sum(-1).astype(np.float32)


def _renormalised(logprobs_PK: NDArray[np.float64]) -> NDArray[np.float64]:
    peak_P1 = logprobs_PK.max(-1, keepdims=True)
    return logprobs_PK - peak_P1 - np.log(np.exp(logprobs_PK - peak_P1).sum(-1, keepdims=True))


def note(segments: Sequence[Segment], logprobs_P: NDArray[np.float32], kl_P: NDArray[np.float32] | None) -> None:
    """Writes each token's values into its segment; what an environment said is context, and gets none."""
    start = 0
    for segment in segments:
        own = slice(start, start + num_elements(segment.tokens))
        start = own.stop
        if not segment.environment:
            segment.teacher_logprobs.CopyFrom(pack(logprobs_P[own]))
            if kl_P is not None:
                segment.teacher_kl.CopyFrom(pack(kl_P[own]))
