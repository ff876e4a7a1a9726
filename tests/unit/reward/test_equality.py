"""The math grader against labelled pairs, hostile input, and what is true for all answers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from perilune.api.reward.v1.reward_pb2 import (
    SCORE_STATUS_OK,
    SCORE_STATUS_TIMEOUT,
    SCORE_STATUS_UNDECIDED,
    GraderChoice,
)
from services.reward.graders import find_grader
from services.reward.graders.grader import GradingSample, Verdict
from services.reward.processes import Processes
from services.reward.scoring import read_choices, score
from tests.unit.reward.conftest import read_cases

MATH = find_grader("math")
OPTIONS = MATH.read_options({})


def verdict_of(case: dict[str, Any]) -> float | None:
    sample = GradingSample("", case["reference"], case["response"])
    verdict = MATH.grade(sample, OPTIONS)
    if verdict is None:
        assert MATH.work
        verdict = MATH.work(sample, OPTIONS)
    return verdict.value


def hostile_response(case: dict[str, Any]) -> str:
    if "response" in case:
        return case["response"]
    before, unit, times, after = case["repeat"]
    return before + unit * times + after


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least_accuracy", "most_false_positives"),
    [("math", 0.995, 0), ("math_hard", 0.98, 0), ("math_heldout", 0.98, 1), ("math_kinds", 0.995, 0)],
)
def test_labelled_pairs(name: str, least_accuracy: float, most_false_positives: int) -> None:
    """math_heldout is not to be tuned on: if it falls, look for the reason in pairs of your own."""
    cases = read_cases(f"reward/{name}")
    verdicts = [(case, verdict_of(case)) for case in cases]
    wrong = [(case, value) for case, value in verdicts if value != float(case["equal"])]
    false_positives = [case for case, value in wrong if value == 1.0]
    assert len(false_positives) <= most_false_positives, false_positives
    assert 1 - len(wrong) / len(cases) >= least_accuracy, wrong


def test_few_pairs_need_a_process() -> None:
    cases = read_cases("reward/math")
    open_ones = [
        case for case in cases if MATH.grade(GradingSample("", case["reference"], case["response"]), OPTIONS) is None
    ]
    assert len(open_ones) < len(cases) / 20


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["42", "x^2+1", r"\begin{pmatrix}1\\2\end{pmatrix}"])
def test_nothing_hostile_holds_up_the_service(reference: str) -> None:
    """Whatever runs in the service itself ends soon, without an exception."""
    for case in read_cases("reward/hostile"):
        start = time.process_time()
        verdict = MATH.grade(GradingSample("", reference, hostile_response(case)), OPTIONS)
        assert time.process_time() - start < 3, case
        assert verdict is None or isinstance(verdict, Verdict)


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
async def test_hostile_work_ends_at_its_deadline_and_the_next_works(processes: Processes) -> None:
    samples = [GradingSample("", "x^2+1", hostile_response(case)) for case in read_cases("reward/hostile")]
    stuck = [sample for sample in samples if MATH.grade(sample, OPTIONS) is None][::8]
    choices = read_choices([GraderChoice(name="math")])
    scores = await asyncio.gather(*(score(sample, choices, processes) for sample in stuck))
    answered = (SCORE_STATUS_OK, SCORE_STATUS_TIMEOUT, SCORE_STATUS_UNDECIDED)
    assert all(found.status in answered or not found.HasField("value") for found in scores)
    assert not any(found.value == 1.0 for found in scores)
    following = await score(GradingSample("", r"\int_0^1 x\,dx", r"\boxed{\frac12}"), choices, processes)
    assert (following.status, following.value) == (SCORE_STATUS_OK, 1.0)


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("5", "1 2 3 4 5 6 7 8 9"),  # numbers until one is right
        ("5", r"\boxed{5} or \boxed{6}"),
        ("5", "The answer is 5 or 6."),
        ("5", r"<think>\boxed{5}</think>"),
        ("5", r"The reference is \boxed{5}. I answer \boxed{6}."),
        ("5", "print(5)"),
        ("yes", "yesterday"),
        ("correct", "not correct"),
        ("0.75", "3/5"),
        ("5", "nan"),
        ("5", r"\boxed{}"),
        ("5", r"\boxed{x}"),
        (r"\infty", "nan"),
        ("1", r"\boxed{x/x + 1}"),
    ],
)
def test_no_known_hack_earns_anything(reference: str, response: str) -> None:
    assert verdict_of({"reference": reference, "response": response}) != 1.0
