"""Names on the bus: subjects, streams, consumers, message ids."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from nats.js import api

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import InvalidInputError
from perilune.policies import own_name

MAX_NAME_BYTES = 512  # of a subject, and of a message's id
PROMPTS, TRAJECTORIES, EVENTS, DEAD, ADVISORIES = "PROMPTS", "TRAJECTORIES", "EVENTS", "DEAD", "ADVISORIES"
TRIALS, SAMPLES = "TRIALS", "SAMPLES"
DEAD_SUBJECT = "perilune.dead"
MAX_EVENTS = 100_000  # that are kept. A bound in bytes would be set aside on the disk before there is anything to keep
MAX_DELIVERIES_ADVISORY = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES"


def prompt_subject(run_id: str, policy: PolicyVersion | None = None) -> str:
    """Prompts to be sampled by a run's policy, of which this is any version; by the default one if none is given."""
    name = own_name(policy) if policy else ""
    return f"perilune.{run_id}.prompt.{name}" if name else f"perilune.{run_id}.prompt"


def is_prompt_subject(subject: str) -> bool:
    """Tests whether prompts are published there, of any run and policy."""
    match subject.split("."):
        case ["perilune", _, "prompt"] | ["perilune", _, "prompt", _]:
            return True
    return False


def finished_subject(run_id: str) -> str:
    """The subject of a run's finished trajectories."""
    return f"perilune.{run_id}.trajectory.finished"


def sample_subject(run_id: str) -> str:
    """Returns where finished trajectories lie whole, until the master has stored them with their scores."""
    return f"perilune.{run_id}.sample"


def partial_subject(run_id: str) -> str:
    """The subject of a run's interrupted trajectories."""
    return f"perilune.{run_id}.trajectory.partial"


def scored_subject(run_id: str) -> str:
    """The subject of a run's scored trajectories."""
    return f"perilune.{run_id}.trajectory.scored"


def event_subject(run_id: str) -> str:
    """The subject of a run's events."""
    return f"perilune.{run_id}.event"


def trial_subject(run_id: str, number: int) -> str:
    """Returns where trials of one message are counted, by its number in its stream."""
    return f"perilune.{run_id}.trial.{number}"


def run_of(subject: str) -> str:
    """The run that a subject belongs to; empty for one of no run."""
    match subject.split("."):
        case ["perilune", run_id, _, *_]:
            return run_id
    return ""


def check_subject(subject: str) -> None:
    """InvalidInputError if no message can be published there: an id in it is empty, too long, or has characters that
    mean something else to the server."""
    is_plain = subject.isprintable() and not set(subject) & set(" *>") and all(subject.split("."))
    if not is_plain or len(subject.encode(errors="replace")) > MAX_NAME_BYTES:
        raise InvalidInputError(
            f"{subject[:200]!r} is no subject to publish on: a run's id has printable characters other than space, "
            f"'*' and '>', and the whole has at most {MAX_NAME_BYTES} bytes"
        )


def safe_id(message_id: str) -> str:
    """A message's id as its header can carry it; what is long or not plain ASCII ends in a digest of the whole."""
    if message_id.isascii() and message_id.isprintable() and len(message_id) <= MAX_NAME_BYTES:
        return message_id
    digest = hashlib.sha256(message_id.encode(errors="surrogatepass")).hexdigest()[:32]
    plain = "".join(c for c in message_id[:200] if c.isascii() and c.isprintable())
    return f"{plain}~{digest}"


@dataclass(frozen=True)
class Consumer:
    """A durable consumer of a stream; several workers that bind to one share its messages."""

    stream: str
    durable: str
    subject: str


REWARD_CONSUMER = Consumer(TRAJECTORIES, "reward", "perilune.*.trajectory.finished")
MASTER_CONSUMER = Consumer(TRAJECTORIES, "master", "perilune.*.trajectory.scored")
PARTIAL_CONSUMER = Consumer(TRAJECTORIES, "master-partial", "perilune.*.trajectory.partial")
DEAD_CONSUMER = Consumer(DEAD, "master-dead", DEAD_SUBJECT)
EVENT_CONSUMER = Consumer(EVENTS, "master-events", "perilune.*.event")
ADVISORY_CONSUMER = Consumer(ADVISORIES, "master-advisories", f"{MAX_DELIVERIES_ADVISORY}.>")


def rollout_consumer(run_id: str, policy: PolicyVersion | None = None) -> Consumer:
    """One a run and policy: a worker takes prompts only where it serves the policy."""
    name = own_name(policy) if policy else ""
    # A run's id may hold '-', but not '~': no two runs and policies have one consumer.
    return Consumer(
        PROMPTS, f"rollout-{run_id}~{name}" if name else f"rollout-{run_id}", prompt_subject(run_id, policy)
    )


STREAMS = [
    api.StreamConfig(
        PROMPTS, subjects=["perilune.*.prompt", "perilune.*.prompt.*"], retention=api.RetentionPolicy.WORK_QUEUE
    ),
    api.StreamConfig(TRAJECTORIES, subjects=["perilune.*.trajectory.*"], retention=api.RetentionPolicy.WORK_QUEUE),
    # Read and deleted by number. The age is for what was sampled twice, or whose text was given up.
    api.StreamConfig(SAMPLES, subjects=["perilune.*.sample"], max_age=7 * 24 * 3600, allow_direct=True),
    api.StreamConfig(EVENTS, subjects=["perilune.*.event"], max_age=24 * 3600, max_msgs=MAX_EVENTS),
    api.StreamConfig(DEAD, subjects=[DEAD_SUBJECT], max_age=30 * 24 * 3600),
    # How often a message was tried alone and ended the worker that tried it, by its number: the last count of each.
    api.StreamConfig(TRIALS, subjects=["perilune.*.trial.*"], max_msgs_per_subject=1, max_age=24 * 3600),
    # The server says only once that it gave a message up; without this stream it could be missed.
    api.StreamConfig(ADVISORIES, subjects=[f"{MAX_DELIVERIES_ADVISORY}.>"], max_age=7 * 24 * 3600),
]
STANDING_CONSUMERS = [
    *(REWARD_CONSUMER, MASTER_CONSUMER, PARTIAL_CONSUMER),
    *(DEAD_CONSUMER, EVENT_CONSUMER, ADVISORY_CONSUMER),
]
