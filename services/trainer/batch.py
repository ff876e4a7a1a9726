"""From what the master serves to what the learner trains on: groups of samples as arrays, checked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perilune.api.master.v1.master_pb2 import ScoredGroup
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, Score
from perilune.api.trajectory.v1.trajectory_pb2 import ScoredTrajectory, Segment
from perilune.codec import unpack
from perilune.errors import InvalidInputError


@dataclass(frozen=True)
class Sample:
    """One scored response. Arrays have shape (T,): the prompt's tokens, then the response's."""

    id: str
    tokens: NDArray[np.int64]
    in_loss: NDArray[np.bool_]  # true for the tokens that the policy wrote
    # The engine's log-probability of each token under the full distribution, in nats; NaN where it has none or
    # where another version than the batch's own wrote it.
    engine_logprobs: NDArray[np.float32]
    score: float
    correct: bool

    @property
    def num_response_tokens(self) -> int:
        return int(self.in_loss.sum())


@dataclass(frozen=True)
class Group:
    """All scored samples of one prompt."""

    id: str
    samples: list[Sample]


def read_group(message: ScoredGroup, current_digest: str, published_digests: Collection[str]) -> Group:
    """Unpacks and checks one group.

    Args:
        message: as the master serves it.
        current_digest: of the policy that opens this iteration.
        published_digests: of every version that this trainer published or found committed.

    Raises:
        InvalidInputError: a sample without a valid score, or written by a policy that was never published.
    """
    if not message.samples:
        raise InvalidInputError(f"group {message.group_id} has no samples; the master must leave empty groups out")
    return Group(
        message.group_id, [_read_sample(scored, current_digest, published_digests) for scored in message.samples]
    )


def _read_sample(scored: ScoredTrajectory, current_digest: str, published_digests: Collection[str]) -> Sample:
    trajectory, score = scored.trajectory, scored.score
    if score.status != SCORE_STATUS_OK or not score.HasField("value"):
        raise InvalidInputError(f"sample {trajectory.id} has no valid score; a failed grader is never a zero")
    prompt = unpack(trajectory.prompt_tokens)
    if not len(prompt):
        raise InvalidInputError(f"sample {trajectory.id} has an empty prompt; its first token has no probability")
    tokens, in_loss, logprobs = [prompt], [np.zeros(len(prompt), bool)], [np.full(len(prompt), np.nan, np.float32)]
    for segment in trajectory.segments:
        _check_published(trajectory.id, segment, published_digests)
        written = unpack(segment.tokens)
        tokens.append(written)
        in_loss.append(np.full(len(written), not segment.environment))
        logprobs.append(_engine_logprobs(segment, len(written), current_digest))
    return Sample(
        id=trajectory.id,
        tokens=np.concatenate(tokens).astype(np.int64),
        in_loss=np.concatenate(in_loss),
        engine_logprobs=np.concatenate(logprobs),
        score=score.value,
        correct=is_correct(score),
    )


def is_correct(score: Score) -> bool:
    """The recipe's first grader says whether an answer is right; the others, such as format, only shape the reward."""
    return bool(score.components) and score.components[0].value >= 1


def _check_published(trajectory_id: str, segment: Segment, published_digests: Collection[str]) -> None:
    if not segment.environment and segment.policy.digest not in published_digests:
        raise InvalidInputError(
            f"sample {trajectory_id} was written by version {segment.policy.number} with digest "
            f"{segment.policy.digest or 'unset'}, which this trainer never published; is a rollout worker of another "
            "run, or with weights from elsewhere, in the fleet?"
        )


def _engine_logprobs(segment: Segment, num_tokens: int, current_digest: str) -> NDArray[np.float32]:
    if segment.environment or segment.policy.digest != current_digest or not segment.HasField("full_logprobs"):
        return np.full(num_tokens, np.nan, np.float32)
    logprobs = unpack(segment.full_logprobs)
    if len(logprobs) != num_tokens:
        raise InvalidInputError(f"a segment has {num_tokens} tokens and {len(logprobs)} log-probabilities")
    return logprobs.astype(np.float32)
