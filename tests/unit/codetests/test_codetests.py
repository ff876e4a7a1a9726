"""Rows of datasets as requests to the sandbox."""

from __future__ import annotations

import base64
import json
import pickle
import sys
import zlib

import pytest

from perilune.api.sandbox.v1 import sandbox_pb2
from perilune.api.sandbox.v1.sandbox_pb2 import Comparison, JudgeRequest
from perilune.errors import InvalidInputError
from perilune.grading.codetests import judge_request
from perilune.grading.codetests.row import method_of


def texts(request: JudgeRequest) -> list[tuple[bytes, bytes]]:
    return [(case.stdio.stdin, case.stdio.expected_stdout) for case in request.cases]


def calls(request: JudgeRequest) -> list[tuple[str, object, object]]:
    found = [case.call for case in request.cases]
    return [(test.function, json.loads(test.arguments_json), json.loads(test.expected_json)) for test in found]


def asserts(request: JudgeRequest) -> list[tuple[str, str]]:
    return [(case.assertion.source, case.assertion.entry_point) for case in request.cases]


def test_apps_with_stdin() -> None:
    row = {"input_output": json.dumps({"inputs": ["1\n2\n", ["3", "4"]], "outputs": ["3\n", ["7"]]})}
    request = judge_request("apps", row, "print(1)", "cpp")
    assert texts(request) == [(b"1\n2\n", b"3\n"), (b"3\n4", b"7")]
    assert (request.program.language, request.program.source) == ("cpp", "print(1)")
    assert request.comparison.kind == Comparison.KIND_FLOATS


def test_apps_with_a_function() -> None:
    wrapped = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [[3], [7]]}
    assert calls(judge_request("apps", wrapped, "def add(a, b): ...")) == [("add", [1, 2], 3), ("add", [3, 4], 7)]
    plain = {"fn_name": "twice", "inputs": ["[1]\n", '"a"\n2'], "outputs": ["[1, 1]", '["a"]']}
    found = calls(judge_request("taco", plain, "class Solution: ..."))
    assert found == [("Solution.twice", [[1]], [1, 1]), ("Solution.twice", ["a", 2], ["a"])]


def test_livecodebench() -> None:
    row = {
        "public_test_cases": json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}]),
        "private_test_cases": [{"input": "3\n", "output": "4\n", "testtype": "stdin"}],
    }
    request = judge_request("livecodebench", row, "print(input())")
    assert texts(request) == [(b"1\n", b"2\n"), (b"3\n", b"4\n")]
    assert request.program.source.endswith("print(input())")
    functional = {
        "tests": [{"input": '[1, 2]\n"x"', "output": "true", "testtype": "functional"}],
        "metadata": json.dumps({"func_name": "has"}),
    }
    assert calls(judge_request("livecodebench", functional, "class Solution: ...")) == [
        ("Solution.has", [[1, 2], "x"], True)
    ]


def packed(value: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def test_livecodebench_private_tests_are_read_and_never_unpickled() -> None:
    text = json.dumps([{"input": "5", "output": "ü6", "testtype": "stdin"}], ensure_ascii=False)
    request = judge_request("livecodebench", {"private_test_cases": packed(text)}, "", "c")
    assert texts(request) == [(b"5", "ü6".encode())]

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (pytest.fail, ("it was unpickled",))

    for evil in (packed(Evil()), packed([text]), packed(7), "bm90IHppcHBlZA==", "%%%"):
        with pytest.raises(InvalidInputError, match="private_test_cases"):
            judge_request("livecodebench", {"private_test_cases": evil}, "")


def test_humaneval_takes_completions_and_whole_programs() -> None:
    row = {
        "prompt": 'def one():\n    return 1\n\n\ndef two(n):\n    """Twice."""\n',
        "test": "def check(candidate):\n    assert candidate(2) == 4\n",
        "entry_point": "two",
    }
    for source in ("    return n * 2 * one()", "def two(n):\n    return n * 2 * one()"):
        request = judge_request("humaneval", row, source)
        assert asserts(request) == [(row["test"], "two")]
        names: dict[str, object] = {}
        exec(request.program.source, names)
        assert names["two"](2) == 4  # type: ignore[operator]


def test_mbpp_makes_a_case_of_every_assert() -> None:
    row = {
        "test_list": ["assert sum(1, 2) == 3", "assert set(sum(0, 0)) == set()"],
        "test_setup_code": "import math",
        "code": "def helper(): ...\ndef sum(a, b): ...",
    }
    found = asserts(judge_request("mbpp", row, "def sum(a, b): return a + b"))
    assert found == [(f"import math\n{test}", "sum") for test in row["test_list"]]
    without_reference = {"test_list": ["assert abs(area(1) - 3) < 1"]}
    assert asserts(judge_request("mbpp", without_reference, ""))[0][1] == "area"
    pytest_row = {"test": "from solution import f\ndef test_f(): assert f()"}
    assert judge_request("mbpp", pytest_row, "").cases[0].pytest.module == "solution"


def test_multipl_e_completes_cuts_and_closes() -> None:
    row = {
        "language": "js",
        "prompt": "//Adds.\nfunction add(a, b){\n",
        "tests": "}\nconst assert = require('node:assert');\nassert.equal(add(1, 2), 3);",
        "stop_tokens": ["\nfunction ", "\n// end"],
    }
    completed = judge_request("multipl-e", row, "  return a + b;\n// end of it")
    assert completed.program.source == "//Adds.\nfunction add(a, b){\n  return a + b;\n}"
    assert completed.program.language == "javascript"
    assert asserts(completed)[0][0].startswith("\nconst assert")
    whole = judge_request("multipl-e", row, "function add(a, b){ return a + b; }")
    assert whole.program.source == "function add(a, b){ return a + b; }"
    assert asserts(whole)[0][0].startswith("\nconst assert")


def test_sandboxfusion() -> None:
    row = {"test": [{"input": {"stdin": "1", "data.txt": "d"}, "output": {"stdout": "2"}}]}
    request = judge_request("sandboxfusion", row, "", "go")
    assert texts(request) == [(b"1", b"2")]
    assert [(file.path, file.content) for file in request.cases[0].stdio.files] == [("data.txt", b"d")]
    assert (request.comparison.ignore_case, request.comparison.relative_tolerance) == (True, 1e-5)


def test_native() -> None:
    row = {"cases": [{"id": "a", "stdio": {"stdin": "MQ==", "expectedStdout": "Mg=="}}], "comparison": {"kind": 3}}
    request = judge_request("native", row, "x", "rust")
    assert request.cases[0] == sandbox_pb2.TestCase(
        id="a", stdio=sandbox_pb2.StdioTest(stdin=b"1", expected_stdout=b"2")
    )
    assert (request.program.language, request.comparison.kind) == ("rust", Comparison.KIND_TOKENS)


def test_apps_outputs_of_one_element_may_be_wrapped_or_not() -> None:
    row = {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[3], [7]]}
    cases = [case.call for case in judge_request("apps", row, "def f(n): ...").cases]
    assert [(case.expected_json, list(case.also_expected_json)) for case in cases] == [("3", ["[3]"]), ("7", ["[7]"])]
    mixed = {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[3], [7, 8]]}
    assert [case.call.expected_json for case in judge_request("apps", mixed, "").cases] == ["[3]", "[7, 8]"]
    assert not judge_request("apps", mixed, "").cases[0].call.also_expected_json


@pytest.mark.parametrize(
    ("source", "language", "function"),
    [
        ("class Solution:\n    def f(self, n): ...", "python", "Solution.f"),
        ("class Solution(object):\n    def f(self, n): ...", "py", "Solution.f"),
        ("# class Solution\ndef f(n): ...", "python", "f"),
        ('"""\nclass Solution:\n"""\ndef f(n): ...', "python", "f"),
        ("class SolutionHelper:\n    def f(self): ...\n\ndef f(n): ...", "python", "f"),
        ("class Solution:\n    def g(self): ...\n\ndef f(n): ...", "python", "f"),
        ("class Solution:\n    def f(self, n): ...\n\ndef f(n): return Solution().f(n)", "python", "Solution.f"),
        ("class Solution(Base): ...", "python", "Solution.f"),
        ("f = lambda n: n", "python", "f"),
        ("not python at all (", "python", "f"),
        ("class Solution {\npublic:\n int f(int n) { return n; }\n};", "cpp", "Solution.f"),
        ("// class Solution\nint f(int n) { return n; }", "cpp", "f"),
        ("class SolutionHelper {};\nint f(int n) { return n; }", "cpp", "f"),
    ],
)
def test_a_function_is_looked_for_where_the_program_keeps_it(source: str, language: str, function: str) -> None:
    assert method_of(source, "f", language) == function


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations\ndef two(n: unknown): return n * 2\n",
        '"""Doubles."""\n\n# so\nfrom __future__ import (\n    annotations,\n)\nfrom __future__ import division\n'
        "def two(n: unknown): return n * 2\n",
        "from __future__ import annotations; import sys\ndef two(n: unknown): return n * 2\n",
        "from __future__ import annotations\r\ndef two(n: unknown):\r\n    return n * 2\r\n",
        "\ufefffrom __future__ import annotations\ndef two(n: unknown): return n * 2\n",
        "\ufeffdef two(n): return n * 2\n",
        's = "from __future__ import nothing"\ndef two(n): return n * 2\n',
    ],
)
def test_what_must_be_first_in_a_program_stays_first(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "setrecursionlimit", lambda _: None)  # the benchmark's prelude sets it
    test = {"test": "def check(candidate): ...", "entry_point": "two"}
    livecodebench = {
        "tests": [{"input": "1", "output": "2", "testtype": "functional"}],
        "metadata": {"func_name": "two"},
    }
    for format, row in (
        ("humaneval", {"prompt": "import math\n\ndef two(n):\n", **test}),
        ("livecodebench", livecodebench),
    ):
        program = judge_request(format, row, source).program.source
        names: dict[str, object] = {"__name__": "solution"}
        exec(compile(program, "solution.py", "exec", dont_inherit=True), names)
        assert names["two"](2) == 4  # type: ignore[operator]
        assert "math" in names


def test_livecodebench_needs_tests_of_one_kind_alone() -> None:
    public = json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}])
    for private in ("", None, [], "[]", packed("[]"), "null"):
        row = {"public_test_cases": public, "private_test_cases": private, "metadata": "null"}
        assert texts(judge_request("livecodebench", row, "", "c")) == [(b"1\n", b"2\n")]
    with pytest.raises(InvalidInputError, match="none of"):
        judge_request("livecodebench", {"public_test_cases": "[]", "private_test_cases": ""}, "")


@pytest.mark.parametrize(
    ("tests", "more", "entry_point"),
    [
        (["assert isclose(area(1), 2)"], {}, "area"),
        (["assert isclose(area(1), 2)"], {"test_imports": ["from math import isclose"]}, "area"),
        (["assert near(area(1), 2)"], {"test_setup_code": "def near(a, b): return abs(a - b) < 1"}, "area"),
        (["from helpers import near\nassert near(area(1), 2)"], {}, "area"),
        (["close = lambda a, b: a == b\nassert close(area(1), 2)"], {}, "area"),
        (["assert [same(x) for same in [area] for x in [1]] == [1] and area(2)"], {}, "area"),
        (["assert isclose(1, 2)"], {"code": "isclose = lambda a, b: True"}, "isclose"),
        (["assert median([1]) == 1"], {}, "median"),
        (["assert Counter(words('a')) == Counter('a')"], {}, "words"),
        (["assert sum([1]) == 1"], {}, ""),
    ],
)
def test_mbpp_asserts_are_about_the_programs_function(
    tests: list[str], more: dict[str, object], entry_point: str
) -> None:
    assert asserts(judge_request("mbpp", {"test_list": tests, **more}, ""))[0][1] == entry_point


@pytest.mark.parametrize(
    ("format", "row", "what"),
    [
        ("aps", {}, "did you mean 'apps'"),
        ("apps", {"x": 1}, "no 'inputs'"),
        ("apps", {"inputs": [], "outputs": []}, "at least one"),
        ("apps", {"inputs": ["1"], "outputs": []}, "one length"),
        ("apps", {"input_output": "{"}, "no JSON"),
        ("apps", {"input_output": "[]"}, "an object"),
        ("apps", {"input_output": ""}, "no 'inputs'"),
        ("apps", {"fn_name": "f", "inputs": ["[" * 100_000], "outputs": [1]}, "no JSON"),
        ("livecodebench", {"tests": [{"input": "1", "output": "1", "testtype": "f"}], "metadata": "[]"}, "metadata"),
        ("livecodebench", {}, "none of"),
        ("livecodebench", {"tests": [{"input": "1", "output": "1", "testtype": "functional"}]}, "func_name"),
        ("humaneval", {"prompt": "", "entry_point": "f"}, "no 'test'"),
        ("humaneval", {"prompt": 3, "test": "", "entry_point": "f"}, "must be text"),
        ("mbpp", {"test_list": []}, "at least one"),
        ("mbpp", {"test_list": ["assert f("]}, "no Python"),
        ("sandboxfusion", {"test": []}, "at least one"),
        ("sandboxfusion", {"test": [{"input": {}, "output": {"file": ""}}]}, "stdout"),
        ("native", {"cases": []}, "no 'cases'"),
        ("native", {"case": []}, "no JudgeRequest"),
    ],
)
def test_rows_that_are_none_of_the_format(format: str, row: dict[str, object], what: str) -> None:
    with pytest.raises(InvalidInputError, match=what):
        judge_request(format, row, "")
