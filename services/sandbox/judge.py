"""A program against its tests. The program is compiled once; each case runs as a fresh job; we compare.

What decides never lies where the program runs. Expected outputs stay here; for tests that are code, they stay in a job
of the tests' own, which calls the program in its job over two conversations that this module joins. So a program that
exits early, prints what it likes, patches what it imports, or returns an object that equals everything has said
nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from perilune.api.sandbox.v1 import sandbox_pb2 as api
from perilune.api.sandbox.v1.sandbox_pb2 import Comparison
from perilune.errors import InvalidInputError
from perilune.grading import comparison as comparisons
from services.sandbox.builds import Builds, Runnable
from services.sandbox.harness import HARNESSES, Harness
from services.sandbox.jail.slot import KeeperError
from services.sandbox.job import BusyError, Conversation, File, Jail, Job, JobOutcome, Limits, Output, Verdict
from services.sandbox.languages import language_named
from services.sandbox.languages.language import COMPILE_LIMITS
from services.sandbox.messages import read_files, read_limits, wider, write_execution, write_isolation
from services.sandbox.test_values import also_right, call_values, plain

MAX_CASES = 10_000
# Of each stream, in a case's result; the full length is reported.
MAX_RESULT_BYTES = 16 << 10
# The tests' own time and memory are not the program's: their job gets more of both. By the clock, the program's limit
# is that of the pair.
_TESTS_MORE_S = 10.0
_TESTS_WALL_S = 3600.0
_TESTS_MEMORY_BYTES = 512 << 20
_TESTS_LINE_BYTES = 64 << 20
_WORD_DIGITS = 32
_LIMITS = (Verdict.TIME_LIMIT, Verdict.MEMORY_LIMIT, Verdict.OUTPUT_LIMIT, Verdict.PROCESS_LIMIT, Verdict.DISK_LIMIT)
_VERDICTS = {
    "passed": Verdict.OK,
    "failed": Verdict.WRONG_ANSWER,
    "raised": Verdict.RUNTIME_ERROR,
    "broken": Verdict.INFRASTRUCTURE_ERROR,
}


@dataclass(frozen=True)
class CaseVerdict:
    """The verdict on one case; `difference` is for the caller, and never for the program."""

    verdict: Verdict
    outcome: JobOutcome
    difference: str = ""


@dataclass
class Judge:
    """Judges by a jail.

    `default` and `largest` are the service's limits, `num_parallel` is how many cases of one program run at a time.
    """

    jail: Jail
    builds: Builds
    default: Limits
    largest: Limits
    num_parallel: int
    # A program and its tests hold a slot each: taken one pair at a time, none waits for another's half.
    pairing: asyncio.Lock = field(default_factory=asyncio.Lock)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    async def judge(self, request: api.JudgeRequest) -> AsyncGenerator[api.JudgeResponse, None]:
        """The cases' results in their order, as they come, then the summary.

        Raises:
            InvalidInputError: the request makes no sense.
            BusyError: nothing could be started; never after the first result.
        """
        cases = [_Case(self, request, case, i) for i, case in enumerate(request.cases)]
        _check(request)
        found: list[CaseVerdict] = []
        compilation = await cases[0].compile()
        if compilation is None or compilation.verdict == Verdict.OK:
            in_order = _in_order([case.judge for case in cases], self.num_parallel, stop=not request.run_all)
            async for case_verdict in in_order:
                yield api.JudgeResponse(result=_result(cases[len(found)].id, case_verdict))
                found.append(case_verdict)
        yield api.JudgeResponse(summary=self._summary(request, compilation, found))

    def _summary(
        self, request: api.JudgeRequest, compilation: JobOutcome | None, found: list[CaseVerdict]
    ) -> api.JudgeSummary:
        return api.JudgeSummary(
            verdict=(verdict_of(found) if found or compilation is None else compile_verdict(compilation)).value,
            compilation=write_execution(compilation) if compilation else None,
            num_passed=sum(case_verdict.verdict == Verdict.OK for case_verdict in found),
            num_judged=len(found),
            num_cases=len(request.cases),
            isolation=write_isolation(self.jail.isolation),
        )


def verdict_of(found: Sequence[CaseVerdict]) -> Verdict:
    """The program's first fault if it has one, else the sandbox's first, else OK."""
    verdicts = [case_verdict.verdict for case_verdict in found if case_verdict.verdict != Verdict.OK]
    own = [verdict for verdict in verdicts if not verdict.is_the_sandboxs_fault]
    return next(iter([*own, *verdicts]), Verdict.OK)


def compile_verdict(compilation: JobOutcome) -> Verdict:
    """Whatever the compiler died of, its input was the program; the sandbox's own failures stay what they are."""
    fault = compilation.verdict.is_the_sandboxs_fault
    return compilation.verdict if fault or compilation.verdict == Verdict.OK else Verdict.COMPILE_ERROR


class _Case:
    """One case of one request."""

    def __init__(self, judge: Judge, request: api.JudgeRequest, case: api.TestCase, index: int) -> None:
        self.id = case.id or str(index)
        self._jail, self._builds, self._pairing = judge.jail, judge.builds, judge.pairing
        self._default = judge.default
        self._program, self._comparison, self._case = request.program, request.comparison, case
        self._is_first = index == 0
        # The same for the same program and tests, so that what was built is found again; and no program can guess it.
        content = case.assertion.source.encode("utf-8", "surrogateescape")
        self._word = hmac.digest(judge.secret, content, "sha256").hex()[:_WORD_DIGITS]
        asked = read_limits(request.limits, judge.default, judge.largest)
        self._limits = read_limits(case.limits, asked, judge.largest)
        self._compile_limits = read_limits(request.compile_limits, COMPILE_LIMITS, wider(COMPILE_LIMITS, judge.largest))
        self._kind = case.WhichOneof("test") or ""
        self._harness = _harness(request.program, self._kind)
        if self._harness and self._harness.function and self._kind == "assertion" and not self._harness.function(case):
            self._harness = None

    async def compile(self) -> JobOutcome | None:
        """Compiles the program, where its language has a compiler, and gives the outcome."""
        async with self._builds.ready(self._runs(), self._compile_limits) as runnable:
            return runnable.compilation

    async def judge(self) -> CaseVerdict:
        """Judges the case. Only the first case of a request says that the sandbox is busy; the others wait."""
        while True:
            try:
                return await self._judge()
            except BusyError as busy:
                if self._is_first:
                    raise
                await asyncio.sleep(busy.retry_after_s)
            except KeeperError as error:
                return CaseVerdict(Verdict.INFRASTRUCTURE_ERROR, JobOutcome(Verdict.INFRASTRUCTURE_ERROR, str(error)))

    async def _judge(self) -> CaseVerdict:
        async with self._builds.ready(self._runs(), self._compile_limits) as runnable:
            if not runnable.compiles:
                assert runnable.compilation
                return CaseVerdict(compile_verdict(runnable.compilation), runnable.compilation)
            if self._kind == "stdio":
                return await self._stdio(runnable)
            if not self._harness:
                return _to_the_end(await self._jail.run(runnable.job(self._limits)), self._word)
            if self._kind == "call":
                return await self._call(runnable, self._harness)
            return await self._tests(runnable, self._harness)

    def _runs(self) -> api.Program:
        """The program that is started for this case: itself, inside a harness, or with its tests behind it."""
        if self._harness:
            program = self._harness.candidate(self._program, self._name()).program
            program.image = self._program.image
            return program
        if self._kind == "assertion":
            together = api.Program()
            together.CopyFrom(self._program)
            with_tests = language_named(self._program.language).with_tests
            assert with_tests
            together.source = with_tests(self._program.source, self._case.assertion.source, self._word)
            return together
        return self._program

    def _name(self) -> str:
        """The name that the tests use: a function, or the module that the tests import it as."""
        case = self._case
        return {
            "call": case.call.function,
            "assertion": ((self._harness and self._harness.function) or _entry_point)(case),
            "pytest": case.pytest.module or "solution",
        }.get(self._kind, "")

    async def _stdio(self, runnable: Runnable) -> CaseVerdict:
        test = self._case.stdio
        job = runnable.job(self._limits, test.stdin, test.arguments, files=read_files(test.files))
        outcome = await self._jail.run(job)
        if outcome.verdict != Verdict.OK:
            return CaseVerdict(outcome.verdict, outcome)
        if self._comparison.kind == Comparison.KIND_CHECKER:
            return await self._ask_checker(outcome)
        difference = comparisons.difference(self._comparison, test.expected_stdout, outcome.stdout.content)
        return CaseVerdict(Verdict.OK if difference is None else Verdict.WRONG_ANSWER, outcome, difference or "")

    async def _ask_checker(self, outcome: JobOutcome) -> CaseVerdict:
        test = self._case.stdio
        contents = {"input": test.stdin, "output": outcome.stdout.content, "expected": test.expected_stdout}
        files = [File(path, content) for path, content in contents.items()]
        async with self._builds.ready(self._comparison.checker) as checker:
            if checker.compilation and not checker.compiles:
                said = checker.compilation
            else:
                said = await self._jail.run(checker.job(self._default, arguments=list(contents), files=files))
        text = (said.stdout.content or said.stderr.content).decode(errors="replace").strip()[:500]
        if said.verdict in (Verdict.OK, Verdict.RUNTIME_ERROR) and said.exit_code in (0, 1):
            verdict = Verdict.WRONG_ANSWER if said.exit_code else Verdict.OK
            return CaseVerdict(verdict, outcome, text if said.exit_code else "")
        why = f"the checker failed ({said.verdict.name.lower()}, {said.reason or said.signal}): {text}"
        return CaseVerdict(Verdict.INFRASTRUCTURE_ERROR, replace(outcome, reason=why))

    # --- Tests that call the program ------------------------------------------------------------------------------

    async def _call(self, runnable: Runnable, harness: Harness) -> CaseVerdict:
        test = self._case.call
        arguments, expected = call_values(test)
        request = {"do": "path", "name": test.function, "arguments": arguments}
        async with self._jail.open(self._candidate_job(runnable, harness)) as program:
            answer, why = await _converse(program, request)
            outcome = await _end(program)
        if answer is None or outcome.verdict != Verdict.OK:
            return _ended(outcome, why or "it ended before it returned")
        if "raised" in answer:
            return _ended(outcome, "it raised an exception")
        try:
            returned = plain(answer["value"])
        except (LookupError, TypeError, ValueError, RecursionError, ArithmeticError) as error:
            return _ended(outcome, f"it returned no value that can be read ({type(error).__name__})")
        right = [expected, *also_right(test)]
        differences = [comparisons.value_difference(self._comparison, value, returned) for value in right]
        if None in differences:
            return CaseVerdict(Verdict.OK, outcome)
        return CaseVerdict(Verdict.WRONG_ANSWER, outcome, differences[0] or "")

    async def _tests(self, runnable: Runnable, harness: Harness) -> CaseVerdict:
        side = harness.tests(self._case)
        if not harness.tests_run_here:
            side.program.image = self._program.image
        async with AsyncExitStack() as stack:
            ready = await stack.enter_async_context(self._builds.ready(side.program))
            if ready.compilation and not ready.compiles:
                # Tests of a kind that the harness cannot separate. The program has no part in this: it was not there.
                self._harness = None
                return await self._judge()
            tests_job = ready.job(self._tests_limits(), mounts=side.mounts)
            async with self._pairing:  # the tests first: the program's time begins when both have their slot
                tests = await stack.enter_async_context(self._jail.open(tests_job))
                program = await stack.enter_async_context(self._jail.open(self._candidate_job(runnable, harness)))
            said = await _join(program, tests)
            outcome, tests_outcome = await _end(program), await tests.end()
        if said == "program":
            return _ended(outcome, "it ended before it returned")
        if said == "tests":
            if tests_outcome.verdict in _LIMITS:  # what they were busy with came from the program
                reason = f"the tests, with what the program gave them: {tests_outcome.reason}"
                return CaseVerdict(tests_outcome.verdict, replace(outcome, reason=reason))
            return _broken(tests_outcome, "the tests ended without a verdict")
        assert isinstance(said, dict)
        verdict, why = _VERDICTS[said["verdict"]], said.get("why", "")
        if outcome.verdict != Verdict.OK:
            return _ended(outcome, why)
        if verdict == Verdict.INFRASTRUCTURE_ERROR:
            return _broken(replace(outcome, stderr=tests_outcome.stderr), why)
        return CaseVerdict(verdict, outcome, why)

    def _candidate_job(self, runnable: Runnable, harness: Harness) -> Job:
        return runnable.job(self._limits, mounts=harness.candidate(self._program, self._name()).mounts)

    def _tests_limits(self) -> Limits:
        return replace(
            self._limits,
            cpu_s=self._limits.cpu_s + _TESTS_MORE_S,
            wall_s=_TESTS_WALL_S,
            memory_bytes=max(self._limits.memory_bytes, _TESTS_MEMORY_BYTES),
            num_processes=max(self._limits.num_processes, self._default.num_processes),
            output_bytes=_TESTS_LINE_BYTES,
            num_files=max(self._limits.num_files, self._default.num_files),
            disk_bytes=max(self._limits.disk_bytes, self._default.disk_bytes),
            file_bytes=max(self._limits.file_bytes, self._default.file_bytes),
        )


async def _converse(program: Conversation, request: Any) -> tuple[dict[str, Any] | None, str]:
    """The program's answer to one request; None and the reason where there is none."""
    try:
        hello = await program.receive_line()
        if hello.startswith(b'{"failed"'):
            return None, "it cannot be loaded"
        await program.send(json.dumps(request).encode() + b"\n")
        answer = json.loads(await program.receive_line() or b"null")
    except BrokenPipeError:
        return None, ""
    except (ValueError, RecursionError):  # a line without end, or none of JSON
        return None, "it said what no value looks like"
    return (answer, "") if isinstance(answer, dict) else (None, "")


async def _join(program: Conversation, tests: Conversation) -> dict[str, str] | str:
    """Passes lines between the two until the tests have a verdict; or says which side ended without one.

    The program is heard only in answer to the tests, and only they can speak to us.
    """
    while True:
        try:
            line = await program.receive_line()
        except ValueError:
            return "program"
        if not line.endswith(b"\n") or line.startswith(b'{"failed"'):
            return "program"
        try:
            await tests.send(line)
            said = await tests.receive_line()
        except (BrokenPipeError, ValueError):
            return "tests"
        if said.startswith(b"!"):
            return json.loads(said[1:])
        if not said.startswith(b">"):
            return "tests"
        try:
            await program.send(said[1:])
        except BrokenPipeError:
            return "program"


async def _end(program: Conversation) -> JobOutcome:
    """Waits for the program's outcome; that we ended it ourselves is not part of it."""
    outcome = await program.end()
    return replace(outcome, reason="") if outcome.verdict == Verdict.OK else outcome


def _ended(outcome: JobOutcome, why: str) -> CaseVerdict:
    """A program that gave no value: by a limit, by its own end, or by an exception."""
    verdict = Verdict.RUNTIME_ERROR if outcome.verdict == Verdict.OK else outcome.verdict
    reason = why if outcome.verdict == Verdict.OK else outcome.reason
    return CaseVerdict(verdict, replace(outcome, verdict=verdict, reason=reason))


def _to_the_end(outcome: JobOutcome, word: str) -> CaseVerdict:
    """A program with its tests behind it has passed if the tests came to their end, and the process to a good one."""
    said = word.encode()
    reached = said in outcome.stdout.content or said in outcome.stderr.content
    outcome = replace(outcome, stdout=_without(said, outcome.stdout), stderr=_without(said, outcome.stderr))
    if outcome.verdict == Verdict.OK and not reached:
        return _ended(outcome, "it ended before its tests did")
    return CaseVerdict(outcome.verdict, outcome)


def _without(said: bytes, output: Output) -> Output:
    content = output.content.replace(said + b"\n", b"")
    return Output(content, output.num_bytes - len(output.content) + len(content))


def _broken(outcome: JobOutcome, why: str) -> CaseVerdict:
    """The test cannot run, which says nothing about the program."""
    verdict = Verdict.INFRASTRUCTURE_ERROR
    reason = ": ".join(filter(None, ["the test cannot run", why, outcome.reason]))
    return CaseVerdict(verdict, replace(outcome, verdict=verdict, reason=reason))


# --- Values -------------------------------------------------------------------------------------------------------


# --- Requests and results -----------------------------------------------------------------------------------------


def _check(request: api.JudgeRequest) -> None:
    if not 0 < len(request.cases) <= MAX_CASES:
        raise InvalidInputError(f"a program is judged by 1 to {MAX_CASES} cases, not {len(request.cases)}")
    comparisons.check(request.comparison)
    for case in request.cases:
        if case.WhichOneof("test") == "call":
            call_values(case.call)
            also_right(case.call)


def _entry_point(case: api.TestCase) -> str:
    return case.assertion.entry_point


def _harness(program: api.Program, kind: str) -> Harness | None:
    """The harness that calls the program for a test of this kind; None if it is simply run. InvalidInputError."""
    if kind == "stdio":
        return None
    language = language_named(program.language)
    harness = HARNESSES.get(language.name)
    if kind in tests_of(language.name):
        return harness
    able = [name for name in HARNESSES if kind in tests_of(name)]
    raise InvalidInputError(
        f"{language.name} programs are not judged by {kind} tests; {', '.join(able)} programs are"
        if kind
        else "a case has no test"
    )


def tests_of(language: str) -> list[str]:
    """The kinds of tests by which programs of a language can be judged."""
    kinds = {"call": language in HARNESSES, "assertion": True, "pytest": language == "python"}
    return ["stdio", *(kind for kind, can in kinds.items() if can)]


def _result(case_id: str, case_verdict: CaseVerdict) -> api.CaseResult:
    outcome = case_verdict.outcome
    cut = replace(outcome, stdout=_cut(outcome.stdout), stderr=_cut(outcome.stderr))
    return api.CaseResult(
        id=case_id,
        verdict=case_verdict.verdict.value,
        execution=write_execution(cut),
        difference=case_verdict.difference,
    )


def _cut(output: Output) -> Output:
    return Output(output.content[:MAX_RESULT_BYTES], output.num_bytes)


async def _in_order(
    work: Sequence[Callable[[], Awaitable[CaseVerdict]]], num_parallel: int, stop: bool
) -> AsyncGenerator[CaseVerdict, None]:
    """Results in the order of the work, some of which runs ahead; with `stop` the first that is not OK is the last."""
    tasks: list[asyncio.Future[CaseVerdict]] = []
    try:
        for i in range(len(work)):
            while len(tasks) < min(len(work), i + num_parallel):
                tasks.append(asyncio.ensure_future(work[len(tasks)]()))
            case_verdict = await tasks[i]
            yield case_verdict
            if stop and case_verdict.verdict != Verdict.OK:
                return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
