"""Messages that no service can read, for every subject of a run."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1.trajectory_pb2 import (
    DeadLetter,
    Event,
    PackedArray,
    ScoredTrajectory,
    Segment,
    Trajectory,
)
from perilune.runtime.subjects import (
    DEAD_SUBJECT,
    event_subject,
    finished_subject,
    partial_subject,
    prompt_subject,
    sample_subject,
    scored_subject,
)

SUBJECTS = (prompt_subject, finished_subject, partial_subject, scored_subject, sample_subject, event_subject)
LARGE_BYTES = 1 << 20
NAMED_NOWHERE = "chaos"  # the id of a run and of groups that nothing asked for


@dataclass(frozen=True)
class Malformed:
    """A message to be published as it is."""

    subject: str
    payload: bytes
    headers: dict[str, str] = field(default_factory=dict)


def malformed(number: int, run_id: str) -> list[Malformed]:
    """Messages for every subject of a run, and for the dead letters; the same for the same number.

    None names a sample that there is: that would be a forgery, and no damage.
    """
    source = random.Random(f"malformed/{number}")
    subjects = [*(subject(run_id) for subject in SUBJECTS), DEAD_SUBJECT]
    return [Malformed(subject, source.choice(PAYLOADS)(source), source.choice(HEADERS)(number)) for subject in subjects]


PAYLOADS: tuple[Callable[[random.Random], bytes], ...] = (
    lambda source: b"",
    lambda source: source.randbytes(source.randint(1, 200)),
    lambda source: b"\xff" * LARGE_BYTES,
    lambda source: RolloutTask(run_id=NAMED_NOWHERE, group_id=f"{NAMED_NOWHERE}.0.0").SerializeToString(),
    lambda source: Trajectory(run_id=NAMED_NOWHERE, group_id="", sample_index=1 << 31).SerializeToString(),
    lambda source: Trajectory(segments=[Segment(tokens=PackedArray(data=b"\1\2\3"))]).SerializeToString(),
    lambda source: ScoredTrajectory(trajectory=Trajectory(id="\0" * 100)).SerializeToString()[:-3],
    lambda source: DeadLetter(trajectory_ids=["/", "\0", f"{NAMED_NOWHERE}.0.0/0"]).SerializeToString(),
    lambda source: Event(run_id=NAMED_NOWHERE, kind="rollout_failed").SerializeToString(),
)
HEADERS: tuple[Callable[[int], dict[str, str]], ...] = (
    lambda number: {},
    lambda number: {"Nats-Msg-Id": f"{NAMED_NOWHERE}/{number}"},
    lambda number: {"traceparent": "00-zz-zz-zz", "Status": "404"},
    lambda number: {"Perilune-Blob": "../../etc/passwd"},
)
