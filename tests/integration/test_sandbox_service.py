"""The sandbox through its API: a real service, real jails, real compilers."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from perilune.api.sandbox.v1 import sandbox_pb2 as api
from perilune.api.sandbox.v1.sandbox_pb2 import Comparison
from perilune.client import AsyncSandboxClient, SandboxClient
from perilune.client.sandbox import text
from perilune.errors import InvalidInputError, NotFoundError, OverloadedError, StateError
from perilune.grading.codetests import judge_request
from services.sandbox.languages import LANGUAGES
from services.sandbox.languages.language import SELF_TEST_STDIN, SELF_TEST_STDOUT

CASES = Path(__file__).parents[1] / "cases" / "sandbox"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One service for the whole file, as its ready file tells of it."""
    ready = tmp_path_factory.mktemp("sandbox") / "ready.json"
    settings = {
        "PERILUNE_LISTEN": "127.0.0.1:0",
        "PERILUNE_HTTP_LISTEN": "127.0.0.1:0",
        "PERILUNE_READY_FILE": str(ready),
        "PERILUNE_SANDBOX_NUM_SLOTS": "2",
        "PERILUNE_SANDBOX_MAX_WAITING": "16",
        "PERILUNE_MAX_SESSIONS": "2",
    }
    process = subprocess.Popen([sys.executable, "-m", "services.sandbox"], env=os.environ | settings)
    try:
        while not ready.exists():
            assert process.poll() is None, "the service ended before it was ready"
            try:
                process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
        yield json.loads(ready.read_text())
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def address(service: dict[str, str]) -> str:
    return service["address"]


@pytest.fixture
async def sandbox(address: str) -> AsyncIterator[AsyncSandboxClient]:
    async with AsyncSandboxClient(address) as client:
        yield client


def name(verdict: int) -> str:
    return api.Verdict.Name(verdict).removeprefix("VERDICT_")  # type: ignore[arg-type]


async def results(sandbox: AsyncSandboxClient, request: api.JudgeRequest) -> list[str]:
    """The verdicts of the cases, then that of the summary."""
    answers = [answer async for answer in sandbox.judge(request)]
    return [name(answer.result.verdict or answer.summary.verdict) for answer in answers]


def judged(source: str, *cases: api.TestCase, language: str = "python", run_all: bool = True) -> api.JudgeRequest:
    return api.JudgeRequest(program=api.Program(language=language, source=source), cases=cases, run_all=run_all)


def stdio(stdin: str, stdout: str) -> api.TestCase:
    return api.TestCase(stdio=api.StdioTest(stdin=stdin.encode(), expected_stdout=stdout.encode()))


def call(function: str, arguments: object, expected: object) -> api.TestCase:
    coded = api.CallTest(function=function, arguments_json=json.dumps(arguments), expected_json=json.dumps(expected))
    return api.TestCase(call=coded)


def assertion(source: str, entry_point: str = "") -> api.TestCase:
    return api.TestCase(assertion=api.AssertTest(source=source, entry_point=entry_point))


# --- Run ----------------------------------------------------------------------------------------------------------


async def test_every_language_that_is_here_passes_its_own_test(sandbox: AsyncSandboxClient) -> None:
    languages = await sandbox.languages()
    assert [language.name for language in languages] == list(LANGUAGES)
    available = [language for language in languages if language.available]
    assert {"python", "bash", "c"} <= {language.name for language in available}
    assert all(language.version for language in available)
    assert all(language.reason for language in languages if not language.available)
    for language in available:
        source = LANGUAGES[language.name].self_test
        answer = await sandbox.run(language.name, source, stdin=SELF_TEST_STDIN)
        assert (name(answer.verdict), answer.execution.stdout.content) == ("OK", SELF_TEST_STDOUT), answer
        assert answer.HasField("compilation") == language.compiled


async def test_a_run_brings_back_what_the_program_said_and_left(sandbox: AsyncSandboxClient) -> None:
    source = """
import os, sys
print(sys.argv[1:], os.environ["COLOUR"], sys.stdin.read(), open("data/in.txt").read())
print("a word on the side", file=sys.stderr)
os.mkdir("out")
open("out/a.bin", "wb").write(bytes([0, 255]))
open("out/b.txt", "w").write("b")
sys.exit(7)
"""
    answer = await sandbox.run(
        "py",
        source,
        stdin="in",
        arguments=["-x", "ü"],
        files={"data/in.txt": "beside"},
        environment={"COLOUR": "blue"},
        return_files=["out/*.bin", "missing"],
    )
    done = answer.execution
    assert (name(answer.verdict), done.exit_code, done.signal) == ("RUNTIME_ERROR", 7, "")
    assert done.stdout.content.decode() == "['-x', 'ü'] blue in beside\n"
    assert done.stderr.content == b"a word on the side\n"
    assert [(file.path, file.content) for file in done.files] == [("out/a.bin", b"\x00\xff")]
    assert 0 < done.usage.wall_s < 30
    assert done.usage.peak_memory_bytes > 0
    assert answer.isolation.level


async def test_a_program_that_does_not_compile(sandbox: AsyncSandboxClient) -> None:
    answer = await sandbox.run("c", "int main(void) { return nothing; }")
    assert name(answer.verdict) == "COMPILE_ERROR"
    assert b"nothing" in answer.compilation.stderr.content
    assert not answer.HasField("execution")
    summary = await sandbox.verdict(judged("int main(", stdio("", ""), language="c"))
    assert (name(summary.verdict), summary.num_judged, summary.num_cases) == ("COMPILE_ERROR", 0, 1)


async def test_wrong_requests_say_what_to_do(sandbox: AsyncSandboxClient) -> None:
    with pytest.raises(InvalidInputError, match="did you mean 'python'"):
        await sandbox.run("pyton", "")
    with pytest.raises(InvalidInputError, match="no path in the work folder"):
        await sandbox.run("python", "", files={"../escape": ""})
    with pytest.raises(InvalidInputError, match="no path in the work folder"):
        await sandbox.run("python", "", return_files=["/etc/passwd"])
    with pytest.raises(InvalidInputError, match="allows"):
        await sandbox.run("python", "", limits=api.Limits(memory_bytes=1 << 60))
    with pytest.raises(InvalidInputError, match="positive"):
        await sandbox.run("python", "", limits=api.Limits(cpu_s=0))
    with pytest.raises(InvalidInputError, match="not 0"):
        await sandbox.verdict(judged("print(1)"))
    with pytest.raises(InvalidInputError, match="a case has no test"):
        await sandbox.verdict(judged("print(1)", api.TestCase(id="empty")))


async def test_more_than_it_can_take_is_busy_and_no_verdict(address: str) -> None:
    """Each call finds its own way: a right answer, or the word that the service is busy; afterwards it works."""

    async def one(sandbox: AsyncSandboxClient, i: int) -> str:
        try:
            answer = await sandbox.run("python", f"print({i} ** 2)")
        except OverloadedError as error:
            return f"busy for {'a while' if error.retry_after_s else 'ever'}"
        assert (name(answer.verdict), answer.execution.stdout.content) == ("OK", b"%d\n" % i**2)
        return "right"

    async with AsyncSandboxClient(address) as sandbox:
        said = await asyncio.gather(*(one(sandbox, i) for i in range(150)))
        assert set(said) <= {"right", "busy for a while"}
        assert said.count("right") >= 18
        assert (await sandbox.status()).num_busy <= 2
        assert await one(sandbox, 12) == "right"


def test_http_and_json(service: dict[str, str]) -> None:
    def post(method: str, body: object) -> bytes:
        url, data = f"{service['http']}/sandbox/v1/{method}", json.dumps(body).encode()
        call = urllib.request.Request(url, data, {"content-type": "application/json"})
        with urllib.request.urlopen(call, timeout=60) as answer:
            return answer.read()

    ran = json.loads(post("run", {"program": {"language": "python", "source": "print(6 * 7)"}}))
    assert (ran["verdict"], base64.b64decode(ran["execution"]["stdout"]["content"])) == ("VERDICT_OK", b"42\n")
    cases = [{"call": {"function": "f", "arguments": [2], "expected": wanted}} for wanted in (4, 5)]
    program = {"language": "python", "source": "def f(x): return x * x"}
    lines = [json.loads(line) for line in post("judge", {"program": program, "cases": cases}).splitlines()]
    assert [line["result"]["verdict"] for line in lines[:2]] == ["VERDICT_OK", "VERDICT_WRONG_ANSWER"]
    assert lines[2]["summary"]["numPassed"] == 1
    with pytest.raises(urllib.error.HTTPError, match="400"):
        post("run", {"program": {"language": "pyton"}})
    with urllib.request.urlopen(f"{service['http']}/openapi.json", timeout=60) as answer:
        assert "/sandbox/v1/judge" in json.loads(answer.read())["paths"]


async def test_programs_find_time_zones(sandbox: AsyncSandboxClient) -> None:
    source = (
        "import datetime, os, time, zoneinfo\n"
        "moment = datetime.datetime(2024, 7, 1, 12, tzinfo=datetime.timezone.utc)\n"
        "zones = map(zoneinfo.ZoneInfo, ('UTC', 'Asia/Shanghai', 'America/New_York'))\n"
        "print(*(moment.astimezone(zone).hour for zone in zones))\n"
        "print(time.localtime(0).tm_hour, time.tzname[0])\n"
    )
    ran = await sandbox.run("python", source, environment={"TZ": "Asia/Shanghai"})
    assert text(ran.execution.stdout) == "12 20 8\n8 CST\n", ran
    ran = await sandbox.run("bash", "TZ=Asia/Tokyo date -d @0 +%H", environment={})
    assert text(ran.execution.stdout) == "09\n"


async def test_javas_heap_is_the_jobs_memory(sandbox: AsyncSandboxClient) -> None:
    if not next(language for language in await sandbox.languages() if language.name == "java").available:
        pytest.skip("there is no Java here")
    source = (
        "/* public class Other {} */ import java.util.*; @Deprecated public class Solution {\n"
        "public static void main(String[] a) { System.out.println(Runtime.getRuntime().maxMemory() >> 20); }}"
    )
    ran = await sandbox.run("java", source, limits=api.Limits(memory_bytes=128 << 20))
    assert ran.verdict == api.VERDICT_OK, ran
    assert 100 <= int(text(ran.execution.stdout)) <= 128


# --- Judge: stdin and stdout --------------------------------------------------------------------------------------


async def test_cases_are_judged_in_order_and_stop_at_the_first_failure(sandbox: AsyncSandboxClient) -> None:
    source = "n = int(input())\nprint(1 // n if n else 1 / n)"
    cases = [stdio("1", "1"), stdio("2", "0  \n\n"), stdio("3", "9"), stdio("0", "")]
    assert await results(sandbox, judged(source, *cases)) == [
        *("OK", "OK", "WRONG_ANSWER", "RUNTIME_ERROR"),
        "WRONG_ANSWER",
    ]
    assert await results(sandbox, judged(source, *cases, run_all=False)) == ["OK", "OK", "WRONG_ANSWER", "WRONG_ANSWER"]
    request = judged(source, *cases)
    summary = await sandbox.verdict(request)
    assert (summary.num_passed, summary.num_judged, summary.num_cases) == (2, 4, 4)
    assert [a.result.difference async for a in sandbox.judge(request)][2] == "line 1: expected '9', got '0'"


async def test_the_program_is_compiled_once_and_each_case_runs_in_a_fresh_place(sandbox: AsyncSandboxClient) -> None:
    source = r"""
#include <stdio.h>
int main(void) {
    FILE *left = fopen("left", "r");
    printf(left ? "seen\n" : "fresh\n");
    fopen("left", "w");
}
"""
    request = judged(source, *[stdio("", "fresh")] * 4, language="c")
    assert await results(sandbox, request) == ["OK"] * 5


async def test_a_checker_decides_and_its_own_failure_is_no_verdict(sandbox: AsyncSandboxClient) -> None:
    checker = """
import sys
given, said, wanted = (open(path).read().split() for path in sys.argv[1:])
if given == ["break"]:
    sys.exit(3)
if not (len(said) == 2 and sum(map(int, said)) == int(wanted[0])):
    sys.exit("no such sum")
"""
    request = judged("print(3, 4)", stdio("", "7"), stdio("", "8"), stdio("break", "7"))
    request.comparison.kind = Comparison.KIND_CHECKER
    request.comparison.checker.CopyFrom(api.Program(language="python", source=checker))
    answers = [answer async for answer in sandbox.judge(request)]
    found = [name(answer.result.verdict) for answer in answers[:-1]]
    assert found == ["OK", "WRONG_ANSWER", "INFRASTRUCTURE_ERROR"]
    assert answers[1].result.difference == "no such sum"
    assert "checker" in answers[2].result.execution.reason


# --- Judge: calls and asserts -------------------------------------------------------------------------------------


async def test_functions_are_called_with_json(sandbox: AsyncSandboxClient) -> None:
    source = """
class Solution:
    def pair(self, a, b):
        print("to be ignored")
        return (a, {b: [a, None, True]})
def third(n): return n / 3
def big(n): return n ** 3
def boom(): raise KeyError("x")
def leave(): import os; os._exit(0)
def odd(): return object()
"""
    cases = [
        call("Solution.pair", [1, "k"], [1, {"k": [1, None, True]}]),
        call("third", [1], 0.3333333333333),
        call("big", [10**20], 10**60),
        call("big", [10**20], 10**60 + 1),
        *(call(function, [], None) for function in ("boom", "leave", "odd", "missing")),
    ]
    found = await results(sandbox, judged(source, *cases))
    assert found[:4] == ["OK", "OK", "OK", "WRONG_ANSWER"]
    assert found[4:8] == ["RUNTIME_ERROR"] * 4


RICH_PROGRAM = """
import math as m
from collections import Counter
class Stack:
    kind = "lifo"
    def __init__(self, *items): self.items = list(items)
    def push(self, item): self.items.append(item); return self
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __eq__(self, other): return self.items == other.items
class EmptyError(ValueError): pass
def sort_in_place(xs): xs.sort()
def apply(f, xs): return [f(x) for x in xs]
def fail(kind):
    raise EmptyError("nothing") if kind == "own" else KeyError("k")
def numbers():
    yield from (1, 2, 3)
def count(text): return Counter(text)
def parts(): return (1, {2, 3}, b"\\0", 1.5 + 2j, float("inf"), "\\ud800")
"""
ITS_TESTS = """
s = Stack(1, 2)
assert isinstance(s, Stack) and s.push(5) is not None
assert s.pop() == 5 and len(s) == 2 and s.items == [1, 2] and Stack.kind == "lifo"
assert Stack(1) == Stack(1) and Stack(1) != Stack(2)
xs = [3, 1, 2]
assert sort_in_place(xs) is None and xs == [1, 2, 3]
assert apply(lambda x: x * 2, (1, 2)) == [2, 4]
for kind, error in (("own", EmptyError), ("own", ValueError), ("key", KeyError)):
    try:
        fail(kind)
    except error:
        pass
    else:
        assert False
assert list(numbers()) == [1, 2, 3]
assert count("aab") == {"a": 2, "b": 1}
assert parts() == (1, {2, 3}, b"\\0", 1.5 + 2j, float("inf"), "\\ud800") and type(parts()) is tuple
assert m.sqrt(4) == 2
"""


async def test_asserts_reach_the_program_by_calls(sandbox: AsyncSandboxClient) -> None:
    assert await results(sandbox, judged(RICH_PROGRAM, assertion(ITS_TESTS))) == ["OK", "OK"]
    wrong = judged(RICH_PROGRAM, assertion("assert count('aab') == {'a': 1}"), assertion("assert fail('own') is None"))
    assert await results(sandbox, wrong) == ["WRONG_ANSWER", "RUNTIME_ERROR", "WRONG_ANSWER"]


async def test_unittest_and_pytest_files(sandbox: AsyncSandboxClient) -> None:
    pytest_file = """
import pytest
from solution import half, Odd
@pytest.mark.parametrize(("given", "wanted"), [(2, 1), (10, 5)])
def test_half(given, wanted):
    assert half(given) == wanted
def test_odd():
    with pytest.raises(Odd, match="3"):
        half(3)
"""
    unittest_file = """
import unittest
class TestHalf(unittest.TestCase):
    def test_half(self):
        self.assertEqual(half(4), 2)
    def test_odd(self):
        with self.assertRaises(Odd):
            half(5)
"""
    right = "class Odd(ValueError): pass\ndef half(n):\n    if n % 2: raise Odd(n)\n    return n // 2"
    wrong = right.replace("n // 2", "n // 3")
    cases = [api.TestCase(pytest=api.PytestTest(source=pytest_file, module="solution")), assertion(unittest_file)]
    assert await results(sandbox, judged(right, *cases)) == ["OK"] * 3
    assert await results(sandbox, judged(wrong, *cases)) == ["WRONG_ANSWER"] * 3


async def test_a_test_that_cannot_run_says_nothing_about_the_program(sandbox: AsyncSandboxClient) -> None:
    cases = [
        assertion("assert f( == 1"),
        assertion("import no_such_module_anywhere"),
        api.TestCase(pytest=api.PytestTest(source="from solution import f\n", module="solution")),
    ]
    request = judged("def f(): return 1", *cases)
    answers = [answer.result async for answer in sandbox.judge(request)][:-1]
    assert [name(answer.verdict) for answer in answers] == ["INFRASTRUCTURE_ERROR"] * 3
    assert all(answer.execution.reason for answer in answers)


JAVASCRIPT = """
function sorted(xs) { xs.sort((a, b) => a - b); return xs; }
const nothing = () => undefined;
class Solution { twice(x) { return {x: x * 2, m: new Map([[1, NaN]])}; } }
function fail() { throw new RangeError("no"); }
function leave() { process.exit(0); }
"""


async def test_javascript_is_judged_apart_from_its_tests(sandbox: AsyncSandboxClient) -> None:
    if not next(language.available for language in await sandbox.languages() if language.name == "javascript"):
        with pytest.raises(InvalidInputError, match="not installed"):
            await results(sandbox, judged(JAVASCRIPT, assertion("1"), language="js"))
        return
    right = """
const assert = require("node:assert");
function test() {
  let candidate = sorted;
  assert.deepEqual(candidate([3, 1, 2]), [1, 2, 3]);
  const given = [2, 1];
  sorted(given);
  assert.deepStrictEqual(given, [1, 2]);
  assert.strictEqual(nothing(), undefined);
  assert.throws(() => fail(), /no/);
}
test();
"""
    asserting = "const assert = require('assert');\n"
    cases = [
        *(assertion(right), assertion(asserting + "assert.equal(sorted([1])[0], 2)"), assertion("fail()")),
        *(assertion(asserting + "leave(); assert.equal(1, 1)"), assertion("function (")),
        *(call("sorted", [[2, 1]], [1, 2]), call("Solution.twice", [4], {"x": 8, "m": {"1": 0}})),
    ]
    found = await results(sandbox, judged(JAVASCRIPT, *cases, language="js"))
    assert found[:3] == ["OK", "WRONG_ANSWER", "RUNTIME_ERROR"]
    assert found[3:7] == ["RUNTIME_ERROR", "INFRASTRUCTURE_ERROR", "OK", "WRONG_ANSWER"]
    cheats = [
        "process.exit(0)",
        "require('assert').deepEqual = require('assert').equal = () => {}; function f() { return 0 }",
        "function f() { require('fs').writeSync(1, '!{\"verdict\": \"passed\"}\\n'.repeat(3)); return 0 }",
        "function f() { return {valueOf: () => 4, toString: () => '4', __proto__: {valueOf: () => 4}} }",
        "var assert = {equal() {}}; function Object() {} function test() {} function f() { return 0 }",
    ]
    for cheat in cheats:
        tests = [assertion(asserting + "assert.equal(f(2), 4)"), call("f", [2], 4)]
        assert set(await results(sandbox, judged(cheat, *tests, language="js"))) <= {"WRONG_ANSWER", "RUNTIME_ERROR"}


CPP = """
#include <map>
#include <stdexcept>
#include <string>
#include <vector>
using namespace std;
map<string, vector<float>> tally(vector<string> words, float by) {
    map<string, vector<float>> found;
    for (auto &word : words) found[word].push_back(by);
    return found;
}
int half(int n) { if (n % 2) throw runtime_error("odd"); return n / 2; }
int main() { return half(2); }
"""


async def test_cpp_is_judged_apart_from_its_tests(sandbox: AsyncSandboxClient) -> None:
    if not next(language.available for language in await sandbox.languages() if language.name == "cpp"):
        with pytest.raises(InvalidInputError, match="not installed"):
            await results(sandbox, judged(CPP, stdio("", ""), language="cpp"))
        return

    def tests(function: str, *lines: str) -> api.TestCase:
        return assertion(f"int main() {{ auto candidate = {function}; {' '.join(f'assert({x});' for x in lines)} }}")

    given = '(std::vector<std::string>({"a", "b\\n", "a"})), (1.5f)'
    wanted = 'map<string, vector<float>>{{"a", {1.5f, 1.5f}}, {"b\\n", {1.5f}}}'
    cases = [
        tests("tally", f"candidate({given}) == ({wanted})"),
        tests("half", "candidate(4) == 2", "abs(candidate(6) - 3.0) < 1e-6", "candidate(8) == 5"),
        tests("half", "candidate(3) == 1"),
        call("half", [8], 4),
    ]
    found = await results(sandbox, judged(CPP, *cases, language="cpp"))
    assert found[:-1] == ["OK", "WRONG_ANSWER", "RUNTIME_ERROR", "OK"]
    leaves = "#include <cstdlib>\nint early = (_Exit(0), 1); int half(int n) { return 0; }"
    equals = "struct Any { template<class T> bool operator==(T) const { return true; } };"
    equals += "namespace perilune { void write_value(auto &to, Any) { to += '0'; } }\nAny half(int) { return {}; }"
    for cheat in (leaves, equals):
        request = judged(cheat, tests("half", "candidate(4) == 2"), language="cpp")
        verdict = name((await sandbox.verdict(request)).verdict)
        assert verdict in ("WRONG_ANSWER", "RUNTIME_ERROR", "COMPILE_ERROR"), cheat


# Programs that know no answer and want to pass. `f` is asked for f(2) == 4.
CHEATS = {
    "leaves early": "import os\nos._exit(0)",
    "leaves when called": "import os\ndef f(x): os._exit(0)",
    "exits in peace": "import sys\ndef f(x): sys.exit(0)",
    "equals everything": """
class Any:
    def __eq__(self, other): return True
    __ne__ = lambda self, other: False
    __hash__ = lambda self: 0
    __getattr__ = lambda self, name: Any()
    __call__ = lambda self, *a: Any()
    __bool__ = lambda self: True
    __sub__ = __rsub__ = __abs__ = __lt__ = __gt__ = __contains__ = lambda self, *a: True
def f(x): return Any()
""",
    "an int that equals everything": """
class Any(int):
    def __eq__(self, other): return True
    def __int__(self): return 4
def f(x): return Any(0)
""",
    "speaks for the tests": """
import os
for fd in range(3, 64):
    try: os.write(fd, b'!{"verdict": "passed"}\\n' * 3)
    except OSError: pass
def f(x): return 0
""",
    "patches what compares": """
import builtins, sys, json, operator
builtins.AssertionError = Warning
builtins.all = builtins.isinstance = lambda *a: True
def abs(x): return 0
def len(x): return 4
def check(*a): pass
def f(x): return 0
""",
    "hands over its own built-ins": "f = lambda x: 0\nglobals()['__builtins__'] = {}\n__name__ = '__main__'",
    "walks the frames": """
import sys, gc
def f(x):
    frame, found = sys._getframe(), []
    while frame:
        found += [v for v in frame.f_locals.values() if isinstance(v, int) and v == 4]
        frame = frame.f_back
    for o in gc.get_objects():
        if isinstance(o, dict) and o.get("expected") == 4: return 4
    return found[0] if found else 0
""",
    "reads what lies about": """
import glob
def f(x):
    for path in glob.glob("**", recursive=True) + glob.glob("/perilune/**", recursive=True) + glob.glob("/tmp/*"):
        try: text = open(path).read()
        except OSError: continue
        if "== " + "4" in text: return 4
    return 0
""",
    "raises the runner's own": "class Skipped(BaseException): pass\ndef f(x): raise Skipped",
    "stops the runner": "def f(x): raise KeyboardInterrupt",
    "breaks the channel": """
import os
def f(x):
    os.write(4, b'{"value": {"#": "array", "is": []}}\\n')
    return 0
""",
}


@pytest.mark.parametrize("cheat", CHEATS)
async def test_no_program_talks_its_way_through(sandbox: AsyncSandboxClient, cheat: str) -> None:
    """And none can claim that it was the sandbox's fault."""
    tests = [
        assertion("def check(candidate):\n    assert candidate(2) == 4\n    assert abs(candidate(2) - 4) < 1e-6", "f"),
        assertion("assert f(2) == 4"),
        assertion("assert 4 in [f(2)] and f(2) > 3 and len([f(2)]) == 1"),
        call("f", [2], 4),
    ]
    if "runner" in cheat or "equals" in cheat:
        tests.append(api.TestCase(pytest=api.PytestTest(source="from solution import f\ndef test(): assert f(2) == 4")))
    found = await results(sandbox, judged(CHEATS[cheat], *tests))
    assert set(found) <= {"WRONG_ANSWER", "RUNTIME_ERROR"}, found


async def test_canonical_humaneval_solutions_pass_and_broken_ones_fail(sandbox: AsyncSandboxClient) -> None:
    with gzip.open(CASES / "humaneval_sample.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        right = judge_request("humaneval", row, row["canonical_solution"])
        wrong = judge_request("humaneval", row, f"    return {row['entry_point']}\n")
        assert await results(sandbox, right) == ["OK", "OK"], row["task_id"]
        assert (await results(sandbox, wrong))[-1] in ("WRONG_ANSWER", "RUNTIME_ERROR"), row["task_id"]


# --- Sessions -----------------------------------------------------------------------------------------------------


def test_a_session_keeps_its_state(address: str) -> None:
    with SandboxClient(address) as sandbox, sandbox.session(files={"in.txt": "seen"}) as session:
        assert session.execute("x = open('in.txt').read()").result == ""
        answer = session.execute("print(x)\nx * 2")
        assert (answer.result, answer.execution.stdout.content, answer.alive) == ("'seenseen'", b"seen\n", True)
        failed = session.execute("def f(): return 1 / 0\nf()")
        assert (name(failed.execution.verdict), failed.execution.reason) == (
            "RUNTIME_ERROR",
            "ZeroDivisionError: division by zero",
        )
        assert b"def f(): return 1 / 0" in failed.execution.stderr.content
        assert b"perilune" not in failed.execution.stderr.content
        session.put({"a/b.txt": "put"})
        session.execute("open('a/c.txt', 'w').write(open('a/b.txt').read() + '!')")
        assert session.get("a/*.txt") == {"a/b.txt": b"put", "a/c.txt": b"put!"}
        with pytest.raises(NotFoundError, match="nowhere"):
            session.get("nowhere.txt")
        assert name(session.execute("exit(3)").execution.verdict) == "RUNTIME_ERROR"
        assert session.execute("import subprocess; subprocess.run(['echo', 'child']); _").result == "4"
        session.close()
        with pytest.raises(NotFoundError):
            session.execute("1")


async def test_a_session_is_interrupted_and_lives_or_dies_of_it(sandbox: AsyncSandboxClient) -> None:
    async with await sandbox.session() as session:
        await session.execute("n = 1")
        late = await session.execute("n = 2\nwhile True: pass", wall_s=0.5)
        assert (name(late.execution.verdict), late.alive) == ("TIME_LIMIT", True)
        assert (await session.execute("n")).result == "2"
        stubborn = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
        dead = await session.execute(stubborn, wall_s=0.5)
        assert (name(dead.execution.verdict), dead.alive) == ("TIME_LIMIT", False)
        with pytest.raises(NotFoundError):
            await session.execute("n")


async def test_sessions_end_expire_and_are_counted(sandbox: AsyncSandboxClient) -> None:
    first = await sandbox.session()
    second = await sandbox.session(idle_s=0.2)
    async with asyncio.timeout(30):
        while (await sandbox.status()).num_sessions > 1:
            await asyncio.sleep(0.05)
    with pytest.raises(NotFoundError):
        await second.execute("1")
    with pytest.raises(InvalidInputError, match="no sessions"):
        await sandbox.session("c")
    died = await first.execute("import os; os._exit(5)")
    assert (name(died.execution.verdict), died.alive, died.execution.exit_code) == ("RUNTIME_ERROR", False, 5)
    greedy = await sandbox.session(limits=api.Limits(memory_bytes=128 << 20))
    assert name((await greedy.execute("x = b'x' * (1 << 30)")).execution.verdict) in ("MEMORY_LIMIT", "RUNTIME_ERROR")
    await greedy.close()
    await greedy.close()


async def test_a_session_does_one_thing_at_a_time(sandbox: AsyncSandboxClient) -> None:
    async with await sandbox.session() as session:
        await session.execute("import os, time")
        wait = "while not os.path.exists('go'): time.sleep(0.01)"
        both = await asyncio.gather(*(session.execute(wait, wall_s=1.0) for _ in range(2)), return_exceptions=True)
        refused = [found for found in both if isinstance(found, StateError)]
        assert len(refused) == 1
        assert "something else" in str(refused[0])
