"""From components to a Score, and graders that hang, eat memory or die."""

from __future__ import annotations

import os
import time

import pytest

from perilune.api.reward.v1.reward_pb2 import (
    SCORE_STATUS_GRADER_ERROR,
    SCORE_STATUS_OK,
    SCORE_STATUS_TIMEOUT,
    SCORE_STATUS_UNDECIDED,
    Component,
    GraderChoice,
    Score,
)
from perilune.errors import InvalidInputError
from services.reward.graders import GRADERS
from services.reward.graders.grader import GradingSample
from services.reward.processes import Processes, WorkerDiedError
from services.reward.scoring import read_choices, score, total

with_processes = pytest.mark.asyncio(loop_scope="session")  # the loop of the session's pool

OK = SCORE_STATUS_OK


def component(value: float, weight: float) -> Component:
    return Component(status=OK, value=value, weight=weight)


async def grade(response: str, reference: str, processes: Processes, *choices: GraderChoice) -> Score:
    return await score(GradingSample("", reference, response), read_choices(choices), processes)


def test_the_total_is_the_weighted_sum() -> None:
    assert total([component(1.0, 2.0), component(0.5, 0.5), component(1.0, -1.0)]).value == 1.25


@pytest.mark.parametrize("status", [SCORE_STATUS_GRADER_ERROR, SCORE_STATUS_TIMEOUT, SCORE_STATUS_UNDECIDED])
def test_a_failed_component_leaves_no_total(status: int) -> None:
    failed = total([component(1.0, 1.0), Component(status=status, weight=1.0)])  # type: ignore[arg-type]
    assert failed.status == status
    assert not failed.HasField("value")


@with_processes
async def test_a_weight_that_is_not_given_is_one_and_zero_is_zero(processes: Processes) -> None:
    found = await grade("42", "42", processes, GraderChoice(name="exact"), GraderChoice(name="numeric", weight=0.0))
    assert (found.status, found.value) == (OK, 1.0)
    assert [part.weight for part in found.components] == [1.0, 0.0]
    assert [part.version for part in found.components] == [GRADERS[name].version for name in ("exact", "numeric")]


@with_processes
async def test_a_wrong_answer_is_a_zero_that_says_so(processes: Processes) -> None:
    found = await grade("41", "42", processes, GraderChoice(name="numeric"))
    assert found.HasField("value")
    assert (found.status, found.value) == (OK, 0.0)
    assert dict(found.components[0].evidence) == {"answer": "41", "reference": "42"}


@with_processes
async def test_a_reference_that_cannot_be_read_is_an_error_and_no_zero(processes: Processes) -> None:
    found = await grade("41", "many", processes, GraderChoice(name="numeric"))
    assert (found.status, found.HasField("value")) == (SCORE_STATUS_GRADER_ERROR, False)
    assert "is no number" in found.components[0].evidence["error"]
    assert (await grade("41", "", processes, GraderChoice(name="math"))).status == SCORE_STATUS_GRADER_ERROR


def test_choices_are_checked() -> None:
    with pytest.raises(InvalidInputError, match="no grader was chosen"):
        read_choices([])
    with pytest.raises(InvalidInputError, match="finite"):
        read_choices([GraderChoice(name="exact", weight=float("nan"))])


@pytest.mark.slow
@with_processes
@pytest.mark.parametrize(
    "answer",
    ["9^{9^{9^{9}}}", "(10^7)!", r"\frac{1}{(9^9)!}", r"\sum_{n=1}^{10^{9}} \sin(n!)", r"10^{10^{10}} \cdot x"],
)
async def test_an_answer_that_takes_for_ever_is_stopped_and_the_next_works(answer: str, processes: Processes) -> None:
    math = GraderChoice(name="math")
    start = time.monotonic()
    stuck = await grade(rf"\boxed{{{answer}}}", "2x+1", processes, math)
    assert time.monotonic() - start < processes.timeout_s + 4
    assert stuck.status != SCORE_STATUS_OK or stuck.value == 0.0  # told apart in time is as good
    following = await grade(r"\boxed{2(x+1)}", "2x+2", processes, math)
    assert (following.status, following.value) == (OK, 1.0)


@pytest.mark.slow
@with_processes
async def test_time_memory_and_death_are_told_apart(processes: Processes) -> None:
    with pytest.raises(TimeoutError):
        await processes.run(time.sleep, 60)
    with pytest.raises(MemoryError):
        await processes.run(bytearray, 4 << 30)
    with pytest.raises(WorkerDiedError, match="died"):
        await processes.run(os._exit, 3)
    assert await processes.run(len, "still here") == 10


@pytest.mark.slow
@with_processes
async def test_an_expression_that_may_backtrack_for_ever_is_stopped(processes: Processes) -> None:
    choice = GraderChoice(name="format", options={"pattern": "(a+)+b"})
    found = await grade("a" * 40, "", processes, choice)
    assert found.status == SCORE_STATUS_TIMEOUT
    assert not found.HasField("value")
