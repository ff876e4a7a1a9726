"""The code grader's own decisions; what the sandbox finds is tested with the sandbox."""

from __future__ import annotations

import json
import time

import pytest

from perilune.api.sandbox.v1 import sandbox_pb2 as api
from perilune.errors import InvalidInputError, UnavailableError
from services.reward.graders import find_grader
from services.reward.graders.code import CodeOptions, grade, program_of, request_of, verdict_of
from services.reward.graders.grader import GradingSample

ROW = json.dumps({"inputs": ["1"], "outputs": ["2"]})


F = "```"
DOCSTRING = f'def f():\n    """Doubles.\n\n    {F}\n    f(1)\n    {F}\n    """\n    return 2\n'
FLAT_DOCSTRING = f'"""Usage:\n\n{F}\nf(1)\n{F}\n"""\nx = 1\n'
TAG = 's = "</think>"\nprint(s)\n'


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\nprint(1)\n```", "print(1)\n"),
        ("first\n```py\na\n```\nthen\n```python\nb\n```\ndone", "b\n"),
        ("<think>```python\nwrong\n```</think>```python\nright\n```", "right\n"),
        ("```python\ncut off", "cut off"),
        ("    return 1\n", "    return 1\n"),
        ("  \n", ""),
        ("<think> a b </think> def f ( x ) : return x", "def f ( x ) : return x"),
        ("<think>a</think>\n    return x", "\n    return x"),
        # Which block.
        ("```python\na\n```\nIt prints:\n```\n42\n```", "a\n"),
        ("```python\na\n```\nRun it:\n```bash\npython main.py\n```", "a\n"),
        ("```Python3\na\n```\n```cpp\nint main(){}\n```", "a\n"),
        ("```\na\n```\n```bash\nls\n```", "a\n"),
        ("```\nfirst\n```\n```\nsecond\n```", "second\n"),
        ("```text\nonly\n```", "only\n"),
        ("```python\na\n```\n```python\n```", "a\n"),
        ("```python title=main.py\na\n```", "a\n"),
        ("```{.python}\na\n```", "a\n"),
        ("``` python\na\n``` \nend", "a\n"),
        # Which fences.
        ("~~~python\na\n~~~\nend", "a\n"),
        ("~~~\n```\nb\n```\n~~~", "```\nb\n```\n"),
        ("````python\nx = '''\n```\n'''\n````\nend", "x = '''\n```\n'''\n"),
        ("1. Do:\n   ```python\n   if a:\n       b\n\n   ```\n2. End", "if a:\n    b\n\n"),
        ("- ```python\n  a\n  ```\n- end", "a\n"),
        ("\t```py\n\ta\n\t```\nend", "a\n"),
        ("   ```python\na\n```\nend", "a\n"),
        ("> ```python\n> if a:\n>     b\n> ```\nend", "if a:\n    b\n"),
        ("Here it is: ```python\na\n```\nend", "a\n"),
        ("Use ```x``` or `y`:\n```python\na\n```\nend", "a\n"),
        ("```python\r\na\r\nb\r\n```\r\nend", "a\nb\n"),
        ("```python\na\u2028b = '\x0c'\n```", "a\u2028b = '\x0c'\n"),
        ("```python\na\n```<|im_end|>\n", "a\n"),
        (f"```python\n{DOCSTRING}```\nend", DOCSTRING),
        (f"```python\n{FLAT_DOCSTRING}```\nend\n```\n1\n```", FLAT_DOCSTRING),
        ('```python\n# an odd """\na\n```\nend', '# an odd """\na\n'),
        ("```python\na = '''never closed\n```\nend", "a = '''never closed\n"),
        # What is thinking.
        (f"```python\n{TAG}```", TAG),
        (f"<think>so</think>\n```python\n{TAG}```\nend", TAG),
        (TAG, TAG),
        ("```python\ns = '''\n<think>\n'''\n```\nend", "s = '''\n<think>\n'''\n"),
        ("I close it by `</think>`, so\n```python\na\n```", "a\n"),
        ("```python\ndraft\n```\nno\n</think>\n```python\na\n```", "a\n"),
        ("```python\ndraft\n</think>\nHere:\n```python\na\n```", "a\n"),
        ("<think>\n```python\ndraft\n```", ""),
    ],
)
def test_the_last_program_of_the_answer(response: str, program: str) -> None:
    assert program_of(response, "python") == program


def test_the_language_asked_for_chooses_the_block() -> None:
    response = "```py\na\n```\n```c++\nb\n```\n```javascript\nc\n```\n```\nd\n```"
    asked = {"python3": "a\n", "cpp": "b\n", "js": "c\n", "rust": "d\n"}
    assert {language: program_of(response, language) for language in asked} == asked
    row = json.dumps({"language": "cpp", "prompt": "int f() {", "tests": "}\nint main() {}"})
    options = find_grader("code").read_options({"format": "multipl-e"})
    assert "b\n" in request_of(GradingSample("", row, response), options).program.source


@pytest.mark.parametrize(
    "response",
    [
        "```\n" * 20_000,
        "```python\na\n" * 10_000,
        "  ```python\n```\n" * 10_000,
        "```python\n</think>\nx\n" * 10_000,
        "```python\n'''\n```\n" * 10_000,
        "~" * 100_000 + "x`",
        "`" * 100_000,
        " " * 100_000 + "x",
        '"' * 100_001,
        "'\"\\" * 20_000,
        "<think>" * 10_000,
        "- " * 50_000 + "```",
    ],
)
def test_reading_takes_linear_time(response: str) -> None:
    before = time.process_time()
    program_of(f"```python\n{response}", "python")
    program_of(response, "python")
    assert time.process_time() - before < 5.0


def test_no_program_is_wrong_and_a_program_is_for_the_sandbox() -> None:
    verdict = grade(GradingSample("", ROW, " "), CodeOptions())
    assert verdict is not None
    assert verdict.value == 0.0
    assert grade(GradingSample("", ROW, "print(2)"), CodeOptions()) is None


def test_the_options_become_the_request() -> None:
    options = find_grader("code").read_options(
        {"format": "apps", "language": "c", "comparison": "exact", "partial": "true", "cpu_s": "2", "memory_mb": "64"}
    )
    request = request_of(GradingSample("", ROW, "```c\nint main(){}\n```"), options)
    assert (request.program.language, request.program.source) == ("c", "int main(){}\n")
    assert (request.run_all, request.limits.cpu_s, request.limits.memory_bytes) == (True, 2.0, 64 << 20)
    assert request.comparison.kind == api.Comparison.KIND_EXACT
    with pytest.raises(InvalidInputError, match="as JSON"):
        request_of(GradingSample("", "not a row", "x"), options)


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
