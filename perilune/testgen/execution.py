"""Programs in the sandbox: a generator's run, a program on many inputs, a finished request; what became of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, Unpack

from perilune.api.sandbox.v1.sandbox_pb2 import (
    VERDICT_CANCELLED,
    VERDICT_COMPILE_ERROR,
    VERDICT_INFRASTRUCTURE_ERROR,
    VERDICT_OK,
    VERDICT_RUNTIME_ERROR,
    VERDICT_WRONG_ANSWER,
    Comparison,
    Execution,
    File,
    JudgeRequest,
    JudgeSummary,
    Limits,
    StdioTest,
    TestCase,
    Verdict,
)
from perilune.api.sandbox.v1.sandbox_pb2 import Program as SandboxProgram
from perilune.client import AsyncSandboxClient
from perilune.client.sandbox import RunOptions
from perilune.errors import OverloadedError, UnavailableError
from perilune.testgen.packages import files_beside
from perilune.testgen.problem import Program

_ENDED = (VERDICT_OK, VERDICT_WRONG_ANSWER)
_NO_VERDICT = (VERDICT_INFRASTRUCTURE_ERROR, VERDICT_CANCELLED)
MAX_BATCH_BYTES = 16 << 20  # of the inputs in one request
T = TypeVar("T")

NUM_TRIES = 3  # of what the sandbox itself failed at, or was too busy for
RETRY_S = 0.5
MAX_REASON_CHARS = 300
_CHECKER_FAILED = "the checker failed"  # as the sandbox says it
MB = 1 << 20

# Seeds what a generator draws from, so that the same settings give the same inputs.
_SEEDED = """\
import random, runpy, sys
random.seed("/".join(sys.argv[1:]))
sys.argv[0] = "generator.py"
runpy.run_path("generator.py", run_name="__main__")
"""
# Calls a function with the arguments of its stdin. What the program prints goes to stderr.
_CALLED = """\
import json, sys

def plain(value):
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=lambda item: (str(type(item)), item))
    if hasattr(value, "__iter__"):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no value of JSON")

arguments, answers = json.loads(sys.stdin.read()), sys.stdout
sys.stdout = sys.stderr
import perilune_submission as program
*outer, name = ENTRY_POINT.split(".")
for part in outer:
    program = getattr(program, part)
if isinstance(program, type):
    program = program()
print(json.dumps(getattr(program, name)(*arguments), default=plain), file=answers)
"""


@dataclass(frozen=True)
class Outcome:
    """Describes what a program did with one input. `output` is None where it did not end well, and `reason` says
    why."""

    output: bytes | None
    reason: str = ""
    crashed: bool = False  # it ended by itself with another exit code than 0; no limit was exceeded


@dataclass(frozen=True)
class Written:
    """Describes what a run of a generator wrote: inputs, or the reason why there are none."""

    inputs: tuple[bytes, ...]
    reason: str = ""


class Sandbox:
    """A sandbox service as test generation uses it. Every method raises UnavailableError where it gives no verdict."""

    def __init__(self, client: AsyncSandboxClient, at_once: int) -> None:
        """`at_once`: requests that are under way at a time, from all problems together."""
        self._client, self._room = client, asyncio.Semaphore(at_once)

    async def generate(self, program: Program, arguments: Sequence[str], limits: Limits) -> Written:
        """Runs a generator. It prints one input, or writes files `*.in` that hold one each, as CYaRon's IO does."""
        is_python = program.language == "python"
        files: dict[str, bytes | str] = (
            {"generator.py": program.source, **files_beside(program.source)} if is_python else {}
        )
        source = _SEEDED if is_python else program.source

        verdict, execution = await self._run(
            program.language, source, arguments=arguments, files=files, limits=limits, return_files=["*.in"]
        )
        if verdict != VERDICT_OK:
            return Written((), reason_of(verdict, execution))
        if execution.files:
            return Written(tuple(file.content for file in sorted(execution.files, key=_place)))
        if execution.stdout.truncated:
            return Written((), f"its input is longer than {len(execution.stdout.content)} bytes")
        return Written((execution.stdout.content,) if execution.stdout.content.strip() else (), "it wrote nothing")

    async def checks(self, checker: SandboxProgram, texts: Mapping[str, bytes], limits: Limits) -> bool | str:
        """Returns what a checker says to an `input`, an `output` and the `expected` one; a text where it fails
        itself."""
        verdict, execution = await self._run(
            checker.language, checker.source, arguments=list(texts), files=texts, limits=limits
        )
        if verdict in (VERDICT_OK, VERDICT_RUNTIME_ERROR) and execution.exit_code in (0, 1) and not execution.signal:
            return execution.exit_code == 0
        return f"{_CHECKER_FAILED}: {reason_of(verdict, execution)}"

    async def _run(
        self, language: str, source: str, **options: Unpack[RunOptions]
    ) -> tuple[Verdict.ValueType, Execution]:
        async def run() -> tuple[Verdict.ValueType, Execution]:
            answer = await self._client.run(language, source, **options)
            last = answer.execution if answer.HasField("execution") else answer.compilation
            _check(answer.verdict, last.reason)
            return answer.verdict, last

        return await self._persistently(run)

    async def outcomes(
        self, program: Program, inputs: Sequence[bytes], limits: Limits, entry_point: str = ""
    ) -> list[Outcome]:
        """Runs a program on each input; with an entry point, calls its function with the input's arguments."""
        ready = sandbox_program(program, entry_point)
        found: list[Outcome] = []
        for batch in batches(inputs, MAX_BATCH_BYTES):
            found += await self._persistently(lambda batch=batch: self._batch(ready, batch, limits))  # type: ignore[misc]
        return found

    async def _batch(self, program: SandboxProgram, inputs: Sequence[bytes], limits: Limits) -> list[Outcome]:
        cases = [TestCase(stdio=StdioTest(stdin=stdin)) for stdin in inputs]
        exact = Comparison(kind=Comparison.KIND_EXACT)
        request = JudgeRequest(program=program, cases=cases, comparison=exact, limits=limits, run_all=True)
        found = []
        summary = JudgeSummary()
        async for answer in self._client.judge(request, _deadline_s(len(inputs), limits)):
            if answer.HasField("result"):
                _check(answer.result.verdict, answer.result.execution.reason)
                found.append(_outcome(answer.result.verdict, answer.result.execution))
            else:
                summary = answer.summary
        if summary.verdict == VERDICT_COMPILE_ERROR:
            return [Outcome(None, reason_of(summary.verdict, summary.compilation))] * len(inputs)
        _check(summary.verdict, "the sandbox gave up")
        return found

    async def passes(self, request: JudgeRequest) -> bool | None:
        """Tests whether a program passes every case; None where the checker fails at what it gave."""

        async def judge() -> bool | None:
            async for answer in self._client.judge(request, _deadline_s(len(request.cases), request.limits)):
                if answer.HasField("result"):
                    reason = answer.result.execution.reason
                    if request.comparison.kind == Comparison.KIND_CHECKER and reason.startswith(_CHECKER_FAILED):
                        return None
                    _check(answer.result.verdict, reason)
            _check(answer.summary.verdict, "the sandbox gave up")
            return answer.summary.verdict == VERDICT_OK

        return await self._persistently(judge)

    async def _persistently(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        for attempt in range(1, NUM_TRIES + 1):
            try:
                async with self._room:
                    return await ask()
            except (UnavailableError, OverloadedError) as error:
                if attempt == NUM_TRIES:
                    raise UnavailableError(str(error)) from error
                await asyncio.sleep(RETRY_S * 2**attempt)
        raise AssertionError("unreachable")


def sandbox_program(program: Program, entry_point: str = "") -> SandboxProgram:
    """The program as the sandbox takes it; with an entry point, one that calls it."""
    if not entry_point:
        return SandboxProgram(language=program.language, source=program.source)
    beside = File(path="perilune_submission.py", content=program.source.encode("utf-8", "surrogatepass"))
    return SandboxProgram(language="python", source=f"ENTRY_POINT = {entry_point!r}\n{_CALLED}", files=[beside])


def limits_of(cpu_s: float, memory_mb: int, output_bytes: int) -> Limits:
    """Limits for one run, with as much time by the clock again as a busy machine may take."""
    disk = max(4 * output_bytes, 16 * MB)
    return Limits(
        cpu_s=cpu_s, wall_s=3 * cpu_s + 2, memory_bytes=memory_mb * MB, output_bytes=output_bytes, disk_bytes=disk
    )


def batches(inputs: Sequence[bytes], max_bytes: int) -> list[list[bytes]]:
    """Cuts inputs into runs of at most so many bytes, in their order; one that is larger stands alone.

    >>> batches([b"aa", b"b", b"cccc", b"d"], 3)
    [[b'aa', b'b'], [b'cccc'], [b'd']]
    """
    found: list[list[bytes]] = []
    room = 0
    for stdin in inputs:
        if not found or len(stdin) > room:
            found.append([])
            room = max_bytes
        found[-1].append(stdin)
        room -= len(stdin)
    return found


def reason_of(verdict: Verdict.ValueType, execution: Execution) -> str:
    """Returns what became of a program, in words: the verdict, the sandbox's reason, the last line that it said."""
    name = Verdict.Name(verdict).removeprefix("VERDICT_").lower().replace("_", " ")
    said = execution.stderr.content.decode("utf-8", "replace").strip().rpartition("\n")[2]
    parts = [name, execution.reason or execution.signal, said]
    return ": ".join(part for part in parts if part)[:MAX_REASON_CHARS]


def _outcome(verdict: Verdict.ValueType, execution: Execution) -> Outcome:
    if verdict not in _ENDED:
        return Outcome(None, reason_of(verdict, execution), crashed=verdict == VERDICT_RUNTIME_ERROR)
    if execution.stdout.truncated:
        return Outcome(None, f"its output is longer than {len(execution.stdout.content)} bytes")
    return Outcome(execution.stdout.content)


def _check(verdict: Verdict.ValueType, reason: str) -> None:
    """UnavailableError for a verdict that says nothing about the program."""
    if verdict in _NO_VERDICT:
        raise UnavailableError(f"the sandbox gave no verdict: {reason}")


def _deadline_s(num_cases: int, limits: Limits) -> float:
    return 60.0 + num_cases * limits.wall_s


def _place(file: File) -> tuple[int, str]:
    """Orders data2.in before data10.in."""
    return len(file.path), file.path
