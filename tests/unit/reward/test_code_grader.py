"""The code grader's own decisions; what the sandbox finds is tested with the sandbox."""

from __future__ import annotations

import json

import pytest

from perilune.api.sandbox.v1 import sandbox_pb2 as api
from perilune.errors import InvalidInputError, UnavailableError
from services.reward.graders import find_grader
from services.reward.graders.code import CodeOptions, grade, program_of, request_of, verdict_of
from services.reward.graders.grader import Sample

ROW = json.dumps({"inputs": ["1"], "outputs": ["2"]})


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\nprint(1)\n```", "print(1)\n"),
        ("first\n```py\na\n```\nthen\n```\nb\n```\ndone", "b\n"),
        ("<think>```python\nwrong\n```</think>```python\nright\n```", "right\n"),
        ("```python\ncut off", "cut off"),
        ("    return 1\n", "    return 1\n"),
        ("  \n", ""),
        ("<think> a b </think> def f ( x ) : return x", "def f ( x ) : return x"),
        ("<think>a</think>\n    return x", "\n    return x"),
    ],
)
def test_the_last_program_of_the_answer(response: str, program: str) -> None:
    assert program_of(response) == program


def test_no_program_is_wrong_and_a_program_is_for_the_sandbox() -> None:
    verdict = grade(Sample("", ROW, " "), CodeOptions())
    assert verdict is not None
    assert verdict.value == 0.0
    assert grade(Sample("", ROW, "print(2)"), CodeOptions()) is None


def test_the_options_become_the_request() -> None:
    options = find_grader("code").read_options(
        {"format": "apps", "language": "c", "comparison": "exact", "partial": "true", "cpu_s": "2", "memory_mb": "64"}
    )
    request = request_of(Sample("", ROW, "```c\nint main(){}\n```"), options)
    assert (request.program.language, request.program.source) == ("c", "int main(){}\n")
    assert (request.run_all, request.limits.cpu_s, request.limits.memory_bytes) == (True, 2.0, 64 << 20)
    assert request.comparison.kind == api.Comparison.KIND_EXACT
    with pytest.raises(InvalidInputError, match="as JSON"):
        request_of(Sample("", "not a row", "x"), options)


def summary(verdict: int, passed: int, cases: int = 4) -> api.JudgeSummary:
    return api.JudgeSummary(verdict=verdict, num_passed=passed, num_judged=cases, num_cases=cases)  # type: ignore[arg-type]


def result(verdict: int) -> api.CaseResult:
    return api.CaseResult(id="c", verdict=verdict, difference="differs")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verdict", "passed", "partial", "value"),
    [
        (api.VERDICT_OK, 4, False, 1.0),
        (api.VERDICT_OK, 4, True, 1.0),
        (api.VERDICT_WRONG_ANSWER, 3, False, 0.0),
        (api.VERDICT_WRONG_ANSWER, 3, True, 0.75),
        (api.VERDICT_TIME_LIMIT, 0, True, 0.0),
        (api.VERDICT_COMPILE_ERROR, 0, False, 0.0),
    ],
)
def test_what_a_summary_is_worth(verdict: int, passed: int, partial: bool, value: float) -> None:
    assert verdict_of([], summary(verdict, passed), partial).value == value


def test_the_sandboxs_own_failure_is_no_zero() -> None:
    broken = result(api.VERDICT_INFRASTRUCTURE_ERROR)
    for partial in (False, True):
        with pytest.raises(UnavailableError):
            verdict_of([broken], summary(api.VERDICT_INFRASTRUCTURE_ERROR, 0), partial)
    # One case is known to be wrong: all or nothing is nothing, but the share is unknown.
    results = [result(api.VERDICT_WRONG_ANSWER), broken]
    assert verdict_of(results, summary(api.VERDICT_WRONG_ANSWER, 2), partial=False).value == 0.0
    with pytest.raises(UnavailableError):
        verdict_of(results, summary(api.VERDICT_WRONG_ANSWER, 2), partial=True)
