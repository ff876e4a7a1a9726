"""A run's teacher: what it says of a sample, what is made of it, and that one that is away is waited for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1.trajectory_pb2 import ENDING_STOP, PURPOSE_TRAIN, Segment
from perilune.codec import pack, unpack
from perilune.errors import InvalidInputError
from perilune.models.chat import vocabulary_digest
from perilune.recipe import TeacherTable
from perilune.runtime.service import Service
from services.rollout import standalone, teacher
from services.rollout.rollout import Rollout
from services.rollout.teacher import Teacher, divergence, note
from tests.unit.rollout.test_scoring import plain
from tests.unit.rollout.tiny import Caller, tiny_llama, tiny_tokenizer

PROMPT, RESPONSE = [1, 5, 9], [31, 40, 7, 2]
TOKENS = np.array(PROMPT + RESPONSE, dtype=np.int32)


def test_the_divergence_over_a_few_ids_by_hand() -> None:
    policy, other = np.log([[0.5, 0.25], [0.3, 0.3]]), np.log([[0.1, 0.1], [0.3, 0.1]])
    first = 2 / 3 * math.log((2 / 3) / 0.5) + 1 / 3 * math.log((1 / 3) / 0.5)
    second = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    found = divergence(policy.astype(np.float32), other.astype(np.float32))
    assert found.tolist() == pytest.approx([first, second], abs=1e-6)


def test_what_an_environment_said_gets_nothing() -> None:
    segments = [Segment(tokens=pack(np.array([5, 6], np.int32))), Segment(environment=True)]
    segments[1].tokens.CopyFrom(pack(np.array([7], np.int32)))
    segments.append(Segment(tokens=pack(np.array([8], np.int32))))
    note(segments, np.array([-1, -2, -3, -4], np.float32), np.array([1, 2, 3, 4], np.float32))
    assert unpack(segments[0].teacher_logprobs).tolist() == [-1, -2]
    assert not segments[1].HasField("teacher_logprobs")
    assert unpack(segments[2].teacher_kl).tolist() == [4]


@asynccontextmanager
async def served(folder: Path, listen: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """The address of a teacher that is served, with other weights than the student."""
    tiny_llama(1).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    service = Service("teacher", standalone.StandaloneSettings(model=str(folder), http_listen=None, listen=listen))
    running = asyncio.create_task(standalone.run(service))
    while not service.address:
        assert not running.done(), running.result()
        await asyncio.sleep(0.02)
    yield service.address
    service.stopping.set()
    await running
    await service.server.stop(0)


@dataclass
class Warned:
    """The warnings that came."""

    texts: list[str] = field(default_factory=list)

    async def __call__(self, text: str) -> None:
        self.texts.append(text)


def ended() -> Rollout:
    rollout = Rollout(RolloutTask(purpose=PURPOSE_TRAIN), 0, TOKENS[: len(PROMPT)], tiny_tokenizer(), 128)
    for part in (RESPONSE[:1], RESPONSE[1:]):  # two versions wrote it
        rollout._append(Segment(tokens=pack(np.array(part, dtype=np.int32))))
    rollout.ending = ENDING_STOP
    return rollout


async def test_a_sample_gets_the_teachers_word_at_every_token(tmp_path: Path) -> None:
    student, warn, rollout = Caller(tiny_llama(0)), Warned(), ended()
    assert rollout.is_trained_on
    async with served(tmp_path) as address:
        asked = Teacher(TeacherTable(model="elsewhere", top_k=1000), address, warn)
        await asked.check(vocabulary_digest(tiny_tokenizer()))
        await asked.judge(rollout, student.engine, student.policy, 64)
        await asked.close()
        strange = Teacher(TeacherTable(model="strange"), address, warn)
        with pytest.raises(InvalidInputError, match="the teacher 'strange' has another tokenizer than the policy"):
            await strange.check("0" * 64)
        await strange.close()
    student.engine.close()
    own, other = plain(tiny_llama(0), TOKENS)[2:-1], plain(tiny_llama(1), TOKENS)[2:-1]
    logprobs = np.concatenate([unpack(segment.teacher_logprobs) for segment in rollout.segments])
    kl = np.concatenate([unpack(segment.teacher_kl) for segment in rollout.segments])
    assert np.allclose(logprobs, other[range(4), RESPONSE], atol=1e-4)
    assert np.allclose(kl, (own.exp() * (own - other)).sum(-1), atol=1e-4)  # exact: top_k is all of the vocabulary
    assert warn.texts == []


async def test_a_teacher_that_is_away_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unused_tcp_port: int
) -> None:
    monkeypatch.setattr(teacher, "FIRST_WAIT_S", 0.05)
    warn, address = Warned(), f"127.0.0.1:{unused_tcp_port}"
    asked = Teacher(TeacherTable(model="elsewhere"), address, warn)
    checking = asyncio.create_task(asked.check(vocabulary_digest(tiny_tokenizer())))
    await asyncio.sleep(0.5)
    assert not checking.done()
    assert len(warn.texts) == 1  # however often it was tried
    assert f"the teacher at {address} does not answer" in warn.texts[0]
    async with served(tmp_path, address):
        await asyncio.wait_for(checking, 30)
    await asked.close()
