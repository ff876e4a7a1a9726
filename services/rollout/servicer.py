"""RolloutService: how busy this worker is, and log-probabilities of given tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from perilune.api.rollout.v1.rollout_pb2 import (
    GetStatusRequest,
    GetStatusResponse,
    ScoreTokensRequest,
    ScoreTokensResponse,
    TextScores,
    TextToScore,
)
from perilune.api.rollout.v1.rollout_pb2_grpc import RolloutServiceServicer
from perilune.api.trajectory.v1.trajectory_pb2 import DTYPE_INT32, PackedArray
from perilune.codec import pack, unpack
from perilune.errors import InvalidInputError, rpc_errors
from perilune.models.chat import vocabulary_digest
from services.rollout.engines.base import TokenScores, TokensToScore
from services.rollout.served import Served, find_engine, scored

MAX_VALUES = 1 << 23  # of one answer: 64 MiB, ids and log-probabilities


class RolloutServicer(RolloutServiceServicer):
    """RolloutService, as the proto documents it."""

    def __init__(self, worker_id: str, runs: Callable[[], Sequence[Served]]) -> None:
        self._worker_id = worker_id
        self._runs = runs

    async def GetStatus(
        self, request: GetStatusRequest, context: grpc.aio.ServicerContext[GetStatusRequest, GetStatusResponse]
    ) -> GetStatusResponse:
        """Says how busy each run's engine is."""
        return GetStatusResponse(worker_id=self._worker_id, runs=[run.status() for run in self._runs()])

    async def ScoreTokens(
        self, request: ScoreTokensRequest, context: grpc.aio.ServicerContext[ScoreTokensRequest, ScoreTokensResponse]
    ) -> ScoreTokensResponse:
        """Has the engine read the texts."""
        async with rpc_errors(context):
            served, engine, policy = find_engine(self._runs(), request.model)
            wanted = read_texts(request.texts, len(served.tokenizer), engine.max_context)
            scores = await asyncio.gather(*(scored(engine, each, policy) for each in wanted))
        return ScoreTokensResponse(
            texts=[_as_message(each) for each in scores], vocabulary_digest=vocabulary_digest(served.tokenizer)
        )


def read_texts(texts: Sequence[TextToScore], vocab_size: int, max_context: int) -> list[TokensToScore]:
    """The texts as engines take them. InvalidInputError says which is wrong, and how."""
    wanted = []
    for number, text in enumerate(texts):
        try:
            wanted.append(_read_text(text, vocab_size, max_context))
        except InvalidInputError as error:
            raise InvalidInputError(f"texts[{number}]: {error}") from error
    num_values = sum(len(each.positions) * (1 + each.chosen.shape[1] + 2 * each.num_top) for each in wanted)
    if num_values > MAX_VALUES:
        raise InvalidInputError(f"{num_values} values are asked for, and {MAX_VALUES} fit one answer; ask in parts")
    return wanted


def _read_text(text: TextToScore, vocab_size: int, max_context: int) -> TokensToScore:
    tokens, chosen = _ids(text.tokens, "tokens", vocab_size), _ids(text.chosen, "chosen", vocab_size)
    if not 0 < len(tokens) <= max_context:
        raise InvalidInputError(f"has {len(tokens)} tokens; the model reads 1 to {max_context}")
    positions: NDArray[Any] = _int32(text.positions, "positions")
    if not len(positions):
        positions = np.arange(1, len(tokens))
    elif positions[0] < 1 or positions[-1] > len(tokens) or (np.diff(positions) <= 0).any():
        raise InvalidInputError(f"positions must ascend, from 1 to {len(tokens)} at most")
    if len(chosen) % max(1, len(positions)):
        raise InvalidInputError(f"{len(chosen)} chosen ids are not as many for each of {len(positions)} positions")
    if text.num_top > vocab_size:
        raise InvalidInputError(f"num_top is {text.num_top}, and there are {vocab_size} ids")
    rows = chosen.reshape(len(positions), -1) if len(chosen) else np.zeros((len(positions), 0), dtype=np.int32)
    return TokensToScore(tokens, positions.astype(np.int64), rows, text.num_top)


def _ids(packed: PackedArray, name: str, vocab_size: int) -> NDArray[np.int32]:
    ids = _int32(packed, name)
    if len(ids) and not (ids.min() >= 0 and ids.max() < vocab_size):
        raise InvalidInputError(f"{name}: ids are 0 to {vocab_size - 1}")
    return ids


def _int32(packed: PackedArray, name: str) -> NDArray[np.int32]:
    if not packed.data:
        return np.zeros(0, dtype=np.int32)
    if packed.dtype != DTYPE_INT32:
        raise InvalidInputError(f"{name} must be int32")
    return unpack(packed)


def _as_message(scores: TokenScores) -> TextScores:
    return TextScores(
        policy=scores.policy,
        logprobs=pack(scores.logprobs),
        chosen=pack(scores.chosen.ravel()),
        top_ids=pack(scores.top_ids.ravel()),
        top_logprobs=pack(scores.top_logprobs.ravel()),
    )
