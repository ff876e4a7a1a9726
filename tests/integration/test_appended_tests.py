"""Assertions that run in the program's own process: whoever leaves before they came to their end has not passed.

A row is a language: a right program, and what else it does when it is loaded or called, in words of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from perilune.api.sandbox.v1 import sandbox_pb2 as api
from services.sandbox.builds import Builds
from services.sandbox.config import JailSettings
from services.sandbox.images.store import ImageStore
from services.sandbox.images.toolchains import Images
from services.sandbox.jail.levels import open_pool
from services.sandbox.job import Limits
from services.sandbox.judge import Judge
from services.sandbox.languages import Toolchains, detect
from services.sandbox.languages.language import Toolchain

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Row:
    """`program` doubles; `{at_start}` and `{when_called}` are where it may do something else. `wrong` is a value."""

    program: str
    tests: str
    leaves: str
    # Statements at its top that make an exit of the tests, or of the process, look good.
    covers_up: str = ""

    def source(self, at_start: str = "", when_called: str = "", factor: str = "2") -> str:
        return self.program.replace("AT_START", at_start).replace("WHEN_CALLED", when_called).replace("FACTOR", factor)


ROWS = {
    "c": Row(
        "#include <stdlib.h>\n#include <unistd.h>\nAT_START\nint twice(int n) { WHEN_CALLED return FACTOR * n; }",
        "#include <assert.h>\nint main() { assert(twice(2) == 4); assert(twice(-3) == -6); }",
        "exit(0);",
        "#include <signal.h>\nstatic void out(int s) { exit(0); }\n"
        "__attribute__((constructor)) static void before(void) { signal(SIGABRT, out); }",
    ),
    "go": Row(
        'package main\nimport "os"\nAT_START\nfunc twice(n int) int { if os.Args == nil { return 0 }\nWHEN_CALLED\n'
        "return FACTOR * n }",
        'func main() { if twice(2) != 4 || twice(-3) != -6 { panic("wrong") } }',
        "os.Exit(0)",
    ),
    "rust": Row(
        "AT_START\n#[allow(unreachable_code)] fn twice(n: i32) -> i32 { WHEN_CALLED return FACTOR * n; }",
        "fn main() { assert_eq!(twice(2), 4); assert_eq!(twice(-3), -6); }",
        "std::process::exit(0);",
    ),
    "java": Row(
        "class Problem {\nstatic { AT_START }\nstatic int twice(int n) { WHEN_CALLED return FACTOR * n; }",
        "public static void main(String[] arguments) { assert twice(2) == 4; assert twice(-3) == -6; }\n}",
        "System.exit(0);",
        "Thread.setDefaultUncaughtExceptionHandler((thread, error) -> Runtime.getRuntime().halt(0));",
    ),
    "csharp": Row(
        "using System;\nclass Problem {\nstatic Problem() { AT_START }\n"
        "static int Twice(int n) { WHEN_CALLED return FACTOR * n; }",
        "static void Check(int a, int b) { if (a != b) throw new Exception(); }\n"
        "static void Main() { Check(Twice(2), 4); Check(Twice(-3), -6); }\n}",
        "Environment.Exit(0);",
        "AppDomain.CurrentDomain.UnhandledException += (sender, error) => Environment.Exit(0);",
    ),
    "ocaml": Row(
        "AT_START\nlet twice n = WHEN_CALLED FACTOR * n",
        "let () = assert (twice 2 = 4); assert (twice (-3) = -6)",
        "exit 0;",
        "let () = at_exit (fun () -> Unix._exit 0)",
    ),
    "bash": Row(
        "AT_START\ntwice() { WHEN_CALLED echo $((FACTOR * $1)); }",
        "set -e\nrun_test() { twice 0; [[ $(twice 2) = 4 ]]; [[ $(twice -3) = -6 ]]; }\nrun_test",
        "exit 0;",
        "trap 'exit 0' EXIT",
    ),
    "php": Row(
        "<?php\nAT_START\nfunction twice($n) { WHEN_CALLED return FACTOR * $n; }",
        'if (twice(2) !== 4 || twice(-3) !== -6) { throw new Exception("wrong"); }',
        "exit(0);",
        "set_exception_handler(function ($error) { exit(0); });",
    ),
    "perl": Row(
        "AT_START\nsub twice { WHEN_CALLED return FACTOR * $_[0]; }",
        "sub check { if (twice(2) != 4 || twice(-3) != -6) { exit 1; } }\ncheck();",
        "exit 0;",
        "END { $? = 0; }",
    ),
    "ruby": Row(
        "AT_START\ndef twice(n)\n WHEN_CALLED\n FACTOR * n\nend",
        "require 'test/unit'\nclass TestTwice < Test::Unit::TestCase\n def test_twice\n  candidate = method(:twice)\n"
        "  assert_equal(4, candidate.call(2))\n  assert_equal(-6, candidate.call(-3))\n end\nend",
        "exit 0",
        "at_exit { exit!(0) }",
    ),
    "lua": Row(
        "AT_START\nlocal function twice(n) WHEN_CALLED return FACTOR * n end",
        "local failed = 0\nif twice(2) ~= 4 or twice(-3) ~= -6 then failed = 1 end\nos.exit(failed)",
        "os.exit(0)",
        "os.exit = function() end",
    ),
    "r": Row(
        "AT_START\ntwice <- function(n) { WHEN_CALLED return(FACTOR * n) }",
        "check <- function() if (!identical(twice(2), 4) || !identical(twice(-3), -6)) quit(status = 1)\ncheck()",
        "quit(status = 0);",
        ".Last <- function() { quit(status = 0, runLast = FALSE) }",
    ),
    "typescript": Row(
        "declare function require(name: string): any; declare const process: any;\nAT_START\n"
        "function twice(n: number): number { WHEN_CALLED return FACTOR * n; }",
        "let assert = require('node:assert');\nassert.deepEqual(twice(2), 4); assert.deepEqual(twice(-3), -6);",
        "process.exit(0);",
        "process.on('uncaughtException', () => process.exit(0));",
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def toolchains() -> Toolchains:
    return await detect()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def judge(toolchains: Toolchains) -> AsyncIterator[Judge]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:  # a job sees a /tmp of its own
        folder = Path(name)
        folder.chmod(0o755)  # other uids run what was built
        pool = await open_pool(JailSettings(num_slots=2))
        most = Limits(cpu_s=60.0, wall_s=120.0)
        builds = Builds(pool, toolchains, Images(ImageStore(folder / "images"), pool), folder, 1 << 28)
        yield Judge(pool, builds, most, most, 2)
        await pool.close()


async def _verdict(judge: Judge, language: str, source: str, tests: str) -> tuple[str, str, bytes]:
    """The verdict, why, and what was said."""
    program = api.Program(language=language, source=source)
    case = api.TestCase(assertion=api.AssertTest(source=tests))
    answers = [answer async for answer in judge.judge(api.JudgeRequest(program=program, cases=[case]))]
    execution = answers[0].result.execution
    if not execution.ByteSize():
        execution = answers[-1].summary.compilation
    said = execution.stdout.content + execution.stderr.content
    return api.Verdict.Name(answers[-1].summary.verdict).removeprefix("VERDICT_"), execution.reason, said


@pytest.mark.parametrize("language", ROWS)
async def test_only_who_comes_to_the_end_of_the_tests_passes(
    language: str, judge: Judge, toolchains: Toolchains
) -> None:
    if not isinstance(toolchains.found[language], Toolchain):  # its text can be looked at all the same
        assert "WORD" in toolchains.found[language].language.with_tests("", "", "WORD")  # type: ignore[misc]
        return
    row = ROWS[language]
    verdict, why, said = await _verdict(judge, language, row.source(), row.tests)
    assert verdict == "OK", (why, said)
    cheats = {
        "a wrong value": row.source(factor="3"),
        "leaves when it is called": row.source(when_called=row.leaves, factor="3"),
        "leaves when it is called, with a right value before": row.source(when_called=row.leaves),
    }
    if row.covers_up:
        cheats["covers up"] = row.source(at_start=row.covers_up, factor="3")
    for what, source in cheats.items():
        verdict, why, said = await _verdict(judge, language, source, row.tests)
        assert verdict == "RUNTIME_ERROR", (what, verdict, why, said)
        assert "leaves" not in what or why == "it ended before its tests did"
