"""The program in the answer passes the tests that the reference holds. A sandbox service runs it, never this one.

Whatever keeps the sandbox from a verdict (it is away, busy, or a test itself is broken) is no verdict here either: the
caller may try again, and nothing becomes a zero.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal
from weakref import WeakKeyDictionary

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from perilune.api.sandbox.v1.sandbox_pb2 import (
    VERDICT_CANCELLED,
    VERDICT_INFRASTRUCTURE_ERROR,
    VERDICT_OK,
    CaseResult,
    Comparison,
    JudgeRequest,
    JudgeSummary,
)
from perilune.api.sandbox.v1.sandbox_pb2 import Verdict as SandboxVerdict
from perilune.client import AsyncSandboxClient
from perilune.errors import InvalidInputError, UnavailableError
from perilune.grading.codetests import judge_request, language_of
from perilune.grading.codetests.languages import language_called
from perilune.settings import Settings
from services.reward.fences import read_answer
from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict

Format = Literal[
    "apps",
    "taco",
    "livecodebench",
    "humaneval",
    "evalplus",
    "mbpp",
    "multipl-e",
    "sandboxfusion",
    "native",
    "translated",
]
_COMPARISONS = {
    "exact": Comparison.KIND_EXACT,
    "lines": Comparison.KIND_LINES,
    "tokens": Comparison.KIND_TOKENS,
    "floats": Comparison.KIND_FLOATS,
    "unordered_lines": Comparison.KIND_UNORDERED_LINES,
    "json": Comparison.KIND_JSON,
}
_NO_VERDICT = (VERDICT_INFRASTRUCTURE_ERROR, VERDICT_CANCELLED)


class CodeSettings(Settings):
    """Describes where the sandbox is: PERILUNE_SANDBOX_ADDRESS."""

    model_config = SettingsConfigDict(env_prefix="PERILUNE_")

    sandbox_address: str = "127.0.0.1:7050"


class CodeOptions(GraderOptions):
    """Options of the grader `code`."""

    format: Format = Field("native", description="of the reference, a row of such a dataset as JSON")
    language: str = Field("python", description="of the program, where the row does not name it")
    comparison: Literal["", "exact", "lines", "tokens", "floats", "unordered_lines", "json"] = Field(
        "", description="of outputs or values; empty: the format's own"
    )
    relative_tolerance: NonNegativeFloat = Field(0.0, description="of comparison floats or json")
    absolute_tolerance: NonNegativeFloat = Field(0.0, description="of comparison floats or json")
    partial: bool = Field(False, description="the share of the cases that passed, in place of all or nothing")
    cpu_s: PositiveFloat = Field(10.0, description="CPU seconds for each case")
    memory_mb: PositiveInt = Field(512, description="memory for each case")
    deadline_s: PositiveFloat = Field(120.0, description="for all cases together")


def grade(sample: GradingSample, options: CodeOptions) -> Verdict | None:
    """Nothing to run is a wrong answer; everything else is the sandbox's to say."""
    return None if program_of(sample.response, options.language) else Verdict(0.0, {"why": "no program"})


async def ask(sample: GradingSample, options: CodeOptions) -> Verdict:
    """The verdict of the sandbox. UnavailableError if it does not answer."""
    request = request_of(sample, options)
    results: list[CaseResult] = []
    summary = JudgeSummary()
    async for answer in _sandbox().judge(request, options.deadline_s):
        if answer.HasField("result"):
            results.append(answer.result)
        else:
            summary = answer.summary
    return verdict_of(results, summary, options.partial)


def request_of(sample: GradingSample, options: CodeOptions) -> JudgeRequest:
    """Returns what the sandbox is asked. InvalidInputError if the reference is no row of the format."""
    row = _row(sample.reference)
    language = language_of(options.format, row, options.language)
    request = judge_request(options.format, row, program_of(sample.response, language), language)
    if options.comparison:
        kind = _COMPARISONS[options.comparison]
        tolerances = (options.relative_tolerance, options.absolute_tolerance)
        request.comparison.CopyFrom(
            Comparison(kind=kind, relative_tolerance=tolerances[0], absolute_tolerance=tolerances[1])
        )
    request.limits.cpu_s = options.cpu_s
    request.limits.memory_bytes = options.memory_mb << 20
    request.run_all = options.partial
    return request


def verdict_of(results: list[CaseResult], summary: JudgeSummary, partial: bool) -> Verdict:
    """The reward for what the sandbox found. UnavailableError where it found nothing out."""
    name = SandboxVerdict.Name(summary.verdict).removeprefix("VERDICT_").lower()
    evidence = {"verdict": name, "passed": f"{summary.num_passed} of {summary.num_cases}"}
    failed = next((result for result in results if result.verdict != VERDICT_OK), None)
    if failed:
        evidence |= {"case": failed.id, "why": failed.difference or failed.execution.reason}
    undecided = [result for result in results if result.verdict in _NO_VERDICT]
    if summary.verdict in _NO_VERDICT or (partial and undecided):
        why = next((result.execution.reason for result in undecided), summary.compilation.reason)
        raise UnavailableError(f"the sandbox has no verdict: {why or name}")
    if summary.verdict == VERDICT_OK or not partial:
        return Verdict.of(summary.verdict == VERDICT_OK, **evidence)
    return Verdict(summary.num_passed / summary.num_cases, evidence)


def program_of(response: str, language: str) -> str:
    """The last fenced block that is tagged with the language, else the last without a tag, else the last of any; all of
    the answer where nothing is fenced. Thinking is no part of it."""
    answer = read_answer(response)
    blocks = [block for block in answer.blocks if block.text.strip()]
    tagged = [block for block in blocks if block.tag and language_called(block.tag) == language_called(language)]
    untagged = [block for block in blocks if not block.tag]
    found = tagged or untagged or blocks
    return found[-1].text if found else answer.text if answer.text.strip() else ""


def _row(reference: str) -> Any:
    try:
        return json.loads(reference)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the reference of code must be a row of tests as JSON: {error}") from error


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncSandboxClient] = WeakKeyDictionary()


def _sandbox() -> AsyncSandboxClient:
    """One channel for each event loop; it connects when it is needed and for as long as the service lives."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        _clients[loop] = AsyncSandboxClient(CodeSettings().sandbox_address)
    return _clients[loop]


GRADER = Grader(
    name="code",
    version="2",
    description="1 if the last program of the answer passes the reference's tests in the sandbox, else 0",
    options=CodeOptions,
    grade=grade,
    ask=ask,
)
