"""Seals: what was sent out comes back as it was sent, or is not believed.

A task carries a seal of its group, its prompt (the reference in it) and its graders, made with a secret of the run that
no other service has. A rollout worker sends it back with each trajectory, and the reward service grades what that
brings; here the seal says whether it is what was asked. It is also what shows that a sender was given the group: only
then can it finish its samples, or end them.

    seal   <SHA-256 of the task's content>.<HMAC-SHA256 of group and content>, in hex
"""

from __future__ import annotations

import hashlib
import hmac

from google.protobuf.message import DecodeError

from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1.trajectory_pb2 import DeadLetter, Trajectory
from perilune.errors import InvalidInputError
from perilune.runtime.subjects import is_prompt_subject


def seal_of(secret: bytes, sent: RolloutTask | Trajectory) -> str:
    """The seal of a task, or of a trajectory that came of it."""
    return _seal(secret, sent.group_id, _content(sent))


def check_seal(secret: bytes, sample: Trajectory) -> None:
    """InvalidInputError if a trajectory is not of a task of this run, or says otherwise than its task how it is to be
    graded."""
    group, seal = sample.group_id[:200], sample.prompt.seal
    if not seal:
        raise InvalidInputError(
            f"sample {sample.sample_index} of group {group!r} has no seal: its rollout worker was not given the group, "
            "or a version before sealed tasks sent it out; it is asked for again"
        )
    if not is_seal(secret, sample.group_id, seal):
        raise InvalidInputError(f"sample {sample.sample_index} of group {group!r} has the seal of another group")
    if not hmac.compare_digest(seal, seal_of(secret, sample)):
        raise InvalidInputError(
            f"sample {sample.sample_index} of group {group!r} brings another prompt, reference, purpose "
            "or other graders than its task; it is asked for again"
        )


def is_seal(secret: bytes, group_id: str, seal: str) -> bool:
    """Tests whether a seal is one of a task of this group."""
    return hmac.compare_digest(seal.encode(), _seal(secret, group_id, seal.partition(".")[0]).encode())


def letter_seal(letter: DeadLetter) -> str:
    """The seal that a letter brings; empty for none. Letters of versions before have it in the message they hold."""
    if letter.seal:
        return letter.seal
    message = RolloutTask() if is_prompt_subject(letter.subject) else Trajectory()
    try:
        message.MergeFromString(letter.payload)
    except DecodeError:
        return ""
    return message.prompt.seal


def _seal(secret: bytes, group_id: str, content: str) -> str:
    mark = hmac.digest(secret, f"{group_id}\n{content}".encode(errors="replace"), "sha256").hex()
    return f"{content}.{mark}"


def _content(sent: RolloutTask | Trajectory) -> str:
    """A digest of all that decides how samples are graded and counted."""
    content = Trajectory(purpose=sent.purpose, iteration=sent.iteration, prompt=sent.prompt, graders=sent.graders)
    content.prompt.ClearField("seal")
    return hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest()
