"""A finished trajectory on its way in two messages: whole to the master, its text to the graders.

Tokens and log-probabilities are most of a trajectory, and no grader reads them. A rollout worker stores the trajectory
whole on the bus, then sends its text, with where the whole lies; the score comes back alone, and the master fetches the
whole that it belongs to. So a whole is there before its score can be, and a score can be joined with no other: it
brings a digest of what was graded, which must be that of the whole.

Workers of a version before send all in one message, and are understood.
"""

from __future__ import annotations

import hashlib

from perilune.api.reward.v1.reward_pb2 import Score
from perilune.api.trajectory.v1.trajectory_pb2 import ScoredTrajectory, StoredMessage, Trajectory


def text_of(sample: Trajectory, whole: StoredMessage) -> Trajectory:
    """The part that graders read of a trajectory that was stored whole."""
    text = Trajectory(whole=whole)
    text.MergeFrom(sample)
    for tokens in ("prompt_tokens", "segments"):
        text.ClearField(tokens)
    return text


def with_score(sample: Trajectory, score: Score) -> ScoredTrajectory:
    """The message about a trajectory that was scored: score and name, or all of it where it lies nowhere else."""
    if not sample.HasField("whole"):
        return ScoredTrajectory(trajectory=sample, score=score)
    named = Trajectory(
        id=sample.id,
        run_id=sample.run_id,
        group_id=sample.group_id,
        sample_index=sample.sample_index,
        round=sample.round,
        whole=sample.whole,
    )
    return ScoredTrajectory(trajectory=named, score=score, graded=graded_digest(sample))


def digest_of(sample: Trajectory) -> str:
    """SHA-256, in hex, of all of a trajectory."""
    return hashlib.sha256(sample.SerializeToString(deterministic=True)).hexdigest()


def graded_digest(sample: Trajectory) -> str:
    """SHA-256, in hex, of the part of a trajectory that decides its score, and of which sample it is."""
    graded = Trajectory(
        group_id=sample.group_id,
        sample_index=sample.sample_index,
        round=sample.round,
        prompt=sample.prompt,
        graders=sample.graders,
        response=sample.response,
        outcome=sample.outcome if sample.HasField("outcome") else None,
    )
    return digest_of(graded)
