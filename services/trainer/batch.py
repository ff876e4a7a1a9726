"""From what the master serves to what the learner trains on: groups of samples as arrays, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perilune.api.master.v1.master_pb2 import ScoredGroup
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK
from perilune.api.trajectory.v1.trajectory_pb2 import (
    ENDING_REPETITION,
    PolicyVersion,
    ScoredTrajectory,
    Segment,
    Trajectory,
)
from perilune.codec import num_elements, unpack
from perilune.errors import InvalidInputError
from perilune.grading.correct import is_correct
from perilune.models.vision import PlacedImage
from perilune.recipe import Recipe
from services.trainer.images import BatchImages

TextOf = Callable[[list[int]], str]
TeacherField = Literal["teacher_logprobs", "teacher_kl"]


@dataclass(frozen=True)
class TrainingSample:
    """One scored response. Arrays have shape (T,): the prompt's tokens, then the response's."""

    id: str
    tokens: NDArray[np.int64]
    in_loss: NDArray[np.bool_]  # true for the tokens that are trained on
    # The engine's log-probability of each token under the batch's own version, of the distribution that the trainer
    # computes, in nats; NaN where it has none and for tokens that another version wrote.
    current_logprobs: NDArray[np.float32]
    score: float
    correct: bool
    # The log-probability each token was drawn with, whichever version drew it, in nats; NaN where it is unknown.
    behaviour_logprobs: NDArray[np.float32] | None = None
    teacher_logprobs: NDArray[np.float32] | None = None  # of the run's teacher, in nats; NaN where it was not asked
    teacher_kl: NDArray[np.float32] | None = None  # the writing version's KL divergence from it there, in nats; or NaN
    num_written: int | None = None  # tokens that the policy wrote, in any iteration; else those in the loss
    staleness: int = 0  # versions between the oldest token in the loss and the batch's own
    repeated: bool = False  # it was ended for repeating itself
    images: tuple[PlacedImage, ...] = ()  # of its prompt, where they lie in the tokens

    @property
    def drawn_logprobs(self) -> NDArray[np.float32]:
        """`behaviour_logprobs`; NaN for every token where they were not kept, shape (T,)."""
        known = self.behaviour_logprobs
        return np.full(len(self.tokens), np.nan, np.float32) if known is None else known

    @property
    def num_response_tokens(self) -> int:
        """Tokens that the policy wrote, in any iteration."""
        return int(self.in_loss.sum()) if self.num_written is None else self.num_written


@dataclass(frozen=True)
class Refused:
    """A sample that cannot be trained on. The run goes on without it."""

    group_id: str
    sample_index: int
    reason: str


@dataclass(frozen=True)
class TrainingGroup:
    """All scored samples of one prompt."""

    id: str
    samples: list[TrainingSample]
    refused: tuple[Refused, ...] = ()
    budget_tokens: int | None = None  # of its prompt, while `[reward.toggle]` holds it to one


@dataclass(frozen=True)
class Ages:
    """Limits on the age of tokens, which decide those that a batch trains on."""

    current: PolicyVersion  # that opens this iteration
    max_staleness: int = 0
    skips_older: bool = True  # older tokens are only context; if not, they must not occur
    # The segment's field with the log-probabilities of the distribution that the trainer computes: at temperature 1
    # that is the whole one.
    logprobs_field: Literal["logprobs", "full_logprobs"] = "full_logprobs"

    @staticmethod
    def of(recipe: Recipe, current: PolicyVersion) -> Ages:
        """The recipe's limits for the batch of this version."""
        return Ages(
            current,
            recipe.rollout.max_staleness,
            skips_older=recipe.trainer.segments == "current",
            logprobs_field="full_logprobs" if recipe.rollout.temperature == 1 else "logprobs",
        )


def read_group(
    message: ScoredGroup,
    ages: Ages,
    published_digests: Collection[str],
    vocab_size: int | None = None,
    images: BatchImages | None = None,
    text_of: TextOf | None = None,
) -> TrainingGroup:
    """Unpacks and checks one group. What comes over the network is refused sample by sample.

    Refused is a sample without a valid score, written by a policy that was never published, older than the recipe
    allows, graded for another text than that of its tokens, or damaged.

    Args:
        message: as the master serves it.
        ages: how old tokens may be.
        published_digests: of every version that this trainer published or found committed.
        vocab_size: of the policy; token ids are not checked without it.
        images: of the batch; without them a sample with images is refused.
        text_of: decodes a response as the rollout service does; its text is not checked without it.

    Raises:
        InvalidInputError: the group has no samples.
    """
    if not message.samples:
        raise InvalidInputError(f"group {message.group_id} has no samples; the master must leave empty groups out")
    samples, refused = [], []
    for scored in message.samples:
        try:
            shown = (images or BatchImages()).placed(scored.trajectory)
            sample = _read_sample(scored, ages, published_digests, vocab_size)
            _check_text(scored.trajectory, text_of)
            samples.append(replace(sample, images=shown))
        except InvalidInputError as error:
            refused.append(Refused(message.group_id, scored.trajectory.sample_index, str(error)))
    budget_tokens = message.budget_tokens if message.HasField("budget_tokens") else None
    return TrainingGroup(message.group_id, samples, tuple(refused), budget_tokens)


def _read_sample(
    scored: ScoredTrajectory, ages: Ages, published_digests: Collection[str], vocab_size: int | None
) -> TrainingSample:
    trajectory, score = scored.trajectory, scored.score
    if score.status != SCORE_STATUS_OK or not score.HasField("value") or not math.isfinite(score.value):
        raise InvalidInputError(f"sample {trajectory.id} has no valid score; a failed grader is never a zero")
    prompt = unpack(trajectory.prompt_tokens)
    if not len(prompt):
        raise InvalidInputError(f"sample {trajectory.id} has an empty prompt; its first token has no probability")
    unknown = np.full(len(prompt), np.nan, np.float32)
    tokens, in_loss, engine, behaviour = [prompt], [np.zeros(len(prompt), bool)], [unknown], [unknown]
    num_written, staleness = 0, 0
    for segment in trajectory.segments:
        _check_published(trajectory.id, segment, published_digests)
        written = unpack(segment.tokens)
        is_trained, age = _is_trained(trajectory.id, segment, ages)
        tokens.append(written)
        in_loss.append(np.full(len(written), is_trained))
        is_current = segment.policy.digest == ages.current.digest
        engine.append(_logprobs(segment, ages.logprobs_field if is_current else "", len(written)))
        behaviour.append(_logprobs(segment, "logprobs", len(written)))
        num_written += 0 if segment.environment else len(written)
        staleness = max(staleness, age if is_trained else 0)
    teacher, teacher_kl = (_of_teacher(trajectory, name, unknown) for name in ("teacher_logprobs", "teacher_kl"))
    tokens_T = np.concatenate(tokens).astype(np.int64)
    if vocab_size is not None and not 0 <= tokens_T.min() <= tokens_T.max() < vocab_size:
        raise InvalidInputError(f"sample {trajectory.id} has tokens that are not in the vocabulary of {vocab_size}")
    return TrainingSample(
        id=trajectory.id,
        tokens=tokens_T,
        in_loss=np.concatenate(in_loss),
        current_logprobs=np.concatenate(engine),
        score=score.value,
        correct=is_correct(score),
        behaviour_logprobs=np.concatenate(behaviour),
        teacher_logprobs=teacher,
        teacher_kl=teacher_kl,
        num_written=num_written,
        staleness=staleness,
        repeated=trajectory.ending == ENDING_REPETITION,
    )


def _of_teacher(trajectory: Trajectory, name: TeacherField, unknown: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Returns what the teacher said of each token, shape (T,), NaN where it said nothing; None if it was not asked
    at all."""
    if not any(segment.HasField(name) for segment in trajectory.segments):
        return None
    sizes = [num_elements(segment.tokens) for segment in trajectory.segments]
    parts = [_logprobs(segment, name, size) for segment, size in zip(trajectory.segments, sizes, strict=True)]
    return np.concatenate([unknown, *parts])


def _is_trained(trajectory_id: str, segment: Segment, ages: Ages) -> tuple[bool, int]:
    """Returns if a segment enters the loss, and how many versions old it is."""
    if segment.environment:
        return False, 0
    age = ages.current.number - segment.policy.number
    if age > ages.max_staleness and not ages.skips_older:
        raise InvalidInputError(
            f"sample {trajectory_id} has tokens of version {segment.policy.number} in the batch of version "
            f"{ages.current.number}, and rollout.max_staleness is {ages.max_staleness}"
        )
    return age <= ages.max_staleness, age


def _check_published(trajectory_id: str, segment: Segment, published_digests: Collection[str]) -> None:
    if not segment.environment and segment.policy.digest not in published_digests:
        raise InvalidInputError(
            f"sample {trajectory_id} was written by version {segment.policy.number} with digest "
            f"{segment.policy.digest or 'unset'}, which this trainer never published; is a rollout worker of another "
            "run, or with weights from elsewhere, in the fleet?"
        )


def _check_text(trajectory: Trajectory, text_of: TextOf | None) -> None:
    """InvalidInputError if graders read another text than the tokens say: a worker can write any."""
    if text_of is None:
        return
    tokens = [token for segment in trajectory.segments for token in unpack(segment.tokens).tolist()]
    if text_of(tokens) != trajectory.response:
        raise InvalidInputError(
            f"sample {trajectory.id} was graded for another text than that of its tokens; is a rollout worker that "
            "forges, or one with another tokenizer, in the fleet?"
        )


def _logprobs(
    segment: Segment, name: Literal["logprobs", "full_logprobs", ""] | TeacherField, num_tokens: int
) -> NDArray[np.float32]:
    """A segment's log-probabilities of one kind; NaN where it has none."""
    if segment.environment or not name or not segment.HasField(name):
        return np.full(num_tokens, np.nan, np.float32)
    logprobs = unpack(getattr(segment, name))
    if len(logprobs) != num_tokens:
        raise InvalidInputError(f"a segment has {num_tokens} tokens and {len(logprobs)} log-probabilities")
    if not np.isfinite(logprobs).all():
        raise InvalidInputError(f"a segment has {name} that are not finite")
    return logprobs.astype(np.float32)
