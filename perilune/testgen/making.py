"""One problem, from its row to its verdict."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from google.protobuf.json_format import MessageToDict

from perilune.api.sandbox.v1.sandbox_pb2 import Comparison, JudgeRequest, Limits, StdioTest, TestCase
from perilune.api.sandbox.v1.sandbox_pb2 import Program as SandboxProgram
from perilune.concurrency import all_of
from perilune.grading.codetests.row import call_text
from perilune.testgen.author import Author
from perilune.testgen.execution import Outcome, Sandbox, limits_of, sandbox_program
from perilune.testgen.inputs import Gathered, Input, ValidatorError, gather, malformed_by_rule, shown, validate
from perilune.testgen.problem import Generator, Problem, Program
from perilune.testgen.settings import CaseSettings, needed
from perilune.testgen.special_judge import allows_tolerance, disagreement, reason_in
from perilune.testgen.validity import (
    Agreement,
    Rate,
    agreement,
    is_kept,
    is_valid,
    passed_all,
    same_by,
    tnr,
    tpr,
)

NUM_AUTHOR_TRIES = 3
NUM_CHECKER_TRIALS = 3  # inputs
NO_ANSWER = b"this is no answer\n"
MAX_EXAMPLES = 3
TOLERANCE = 1e-6
"""Says where a statement allows an error and the row says no comparison."""


class Fate(StrEnum):
    """Describes what became of a problem."""

    KEPT = "kept"
    TOO_FEW_SOLUTIONS = "too few solutions"
    SPECIAL_JUDGE = "needs a special judge"
    NO_GENERATOR = "no generator that works"
    NO_VALIDATOR = "no validator that works"
    NO_CHECKER = "no checker that works"
    TOO_FEW_CASES = "too few valid cases"
    SOLUTIONS_FAIL = "right submissions fail"


class DroppedError(Exception):
    """The problem is not kept: its fate, and the reason in words."""

    def __init__(self, fate: Fate, reason: str) -> None:
        super().__init__(reason)
        self.fate, self.reason = fate, reason


@dataclass
class Findings:
    """Describes what is known of a problem so far."""

    comparison: Comparison
    gathered: Gathered = field(default_factory=Gathered)
    generators: Sequence[Generator] = ()
    validator_by: str = ""
    checker_by: str = ""
    malformed: Rate = field(default_factory=Rate)  # planted malformed inputs that were rejected
    accepted_malformed: list[str] = field(default_factory=list)
    valid: list[tuple[Input, Agreement]] = field(default_factory=list)
    passed: Sequence[bool] = ()
    tpr: Rate = field(default_factory=Rate)
    heldout_tpr: Rate = field(default_factory=Rate)
    tnr: Rate = field(default_factory=Rate)
    failing: list[str] = field(default_factory=list)
    passing_wrong: list[str] = field(default_factory=list)


async def make(problem: Problem, sandbox: Sandbox, author: Author | None, settings: CaseSettings) -> dict[str, Any]:
    """The problem's result as JSON: its fate with the reason, counts, examples, and if it is kept its test cases.

    UnavailableError: the sandbox or the endpoint gives no answer, which is no verdict.
    """
    began = time.monotonic()
    findings = Findings(_comparison_of(problem))
    fate, reason = Fate.KEPT, ""
    try:
        await _make(problem, findings, sandbox, author, settings)
    except DroppedError as dropped:
        fate, reason = dropped.fate, dropped.reason
    except ValidatorError as error:
        fate, reason = Fate.NO_VALIDATOR, str(error)
    return _as_json(problem, findings, fate, reason, settings) | {"seconds": round(time.monotonic() - began, 3)}


async def _make(
    problem: Problem, findings: Findings, sandbox: Sandbox, author: Author | None, settings: CaseSettings
) -> None:
    """The steps of k1.5 §2.3.5 in their order; the first that fails drops the problem (DroppedError)."""
    used = problem.solutions[: settings.num_submissions]
    if len(used) < settings.min_submissions:
        raise DroppedError(
            Fate.TOO_FEW_SOLUTIONS, f"{len(used)} known-good submissions, of {settings.min_submissions} at least"
        )
    why = "" if problem.has_checker else reason_in(problem.statement)
    if why:
        _check_that_a_checker_can_be_written(problem, author, f"the statement {why}")
    problem = await _with_validator(problem, findings, sandbox, author, settings)
    await _gather(problem, findings, sandbox, author, settings)
    answered = await _answered(problem, used, findings, sandbox, settings)
    if why or problem.has_checker:
        problem = await _with_checker(problem, findings, answered, sandbox, author, settings)
    agreed = await _agreements(problem, findings, answered, sandbox, settings)
    if not problem.has_checker and (why := _disagreement(agreed, answered, settings)):
        _check_that_a_checker_can_be_written(problem, author, why)
        problem = await _with_checker(problem, findings, answered, sandbox, author, settings)
        agreed = await _agreements(problem, findings, answered, sandbox, settings)
    _choose_valid(agreed, findings, settings)
    findings.passed = passed_all([found for _, found in findings.valid], len(used))
    findings.tpr = tpr(findings.passed)
    findings.failing = [f"submission {at + 1}" for at, passed in enumerate(findings.passed) if not passed]
    if not is_kept(findings.passed, settings.passing):
        raise DroppedError(
            Fate.SOLUTIONS_FAIL,
            f"{sum(findings.passed)} of {len(used)} right submissions pass all valid cases, "
            f"of {needed(settings.passing, len(used))} at least",
        )
    await _measure(problem, findings, sandbox, settings)


def _comparison_of(problem: Problem) -> Comparison:
    """The row's comparison; by tolerance where it gives none and the statement allows one."""
    if problem.comparison.kind == Comparison.KIND_LINES and allows_tolerance(problem.statement):
        return Comparison(kind=Comparison.KIND_FLOATS, relative_tolerance=TOLERANCE, absolute_tolerance=TOLERANCE)
    return problem.comparison


# --- Programs that a problem lacks --------------------------------------------------------------------------------


async def _with_validator(
    problem: Problem, findings: Findings, sandbox: Sandbox, author: Author | None, settings: CaseSettings
) -> Problem:
    """The problem with its validator, given or written, which accepts the examples and was tried on bad inputs."""
    trouble = ""
    if problem.validator is not None:
        findings.validator_by = "given"
        trouble = await _trouble_of_validator(problem, sandbox, settings)
    elif author is not None:
        problem, trouble = await _written_validator(problem, author, sandbox, settings)
        findings.validator_by = "a model"
    if trouble:
        raise DroppedError(Fate.NO_VALIDATOR, trouble)
    if problem.validator is not None or problem.entry_point:
        await _try_malformed(problem, findings, sandbox, settings)
    return problem


async def _written_validator(
    problem: Problem, author: Author, sandbox: Sandbox, settings: CaseSettings
) -> tuple[Problem, str]:
    trouble = ""
    for attempt in range(NUM_AUTHOR_TRIES):
        problem = replace(problem, validator=await author.validator(problem, attempt, trouble))
        trouble = await _trouble_of_validator(problem, sandbox, settings)
        if not trouble:
            break
    return problem, trouble


async def _trouble_of_validator(problem: Problem, sandbox: Sandbox, settings: CaseSettings) -> str:
    """Returns what is wrong with the validator by the examples, which are well formed; empty if nothing is."""
    try:
        reasons = await validate(problem, problem.examples, sandbox, settings)
    except ValidatorError as error:
        return str(error)
    wrong = [(text, why) for text, why in zip(problem.examples, reasons, strict=True) if why]
    return f"{wrong[0][1]}, and it is an example: {shown(wrong[0][0])}" if wrong else ""


async def _try_malformed(problem: Problem, findings: Findings, sandbox: Sandbox, settings: CaseSettings) -> None:
    accepted = [text for text in problem.malformed if not malformed_by_rule(problem, text, settings)]
    if accepted and problem.validator is not None:
        reasons = await validate(problem, accepted, sandbox, settings)
        accepted = [text for text, why in zip(accepted, reasons, strict=True) if why is None]
    findings.malformed = Rate(len(problem.malformed) - len(accepted), len(problem.malformed))
    findings.accepted_malformed = [shown(text) for text in accepted[:MAX_EXAMPLES]]


async def _gather(
    problem: Problem, findings: Findings, sandbox: Sandbox, author: Author | None, settings: CaseSettings
) -> None:
    """Inputs from the generators that are given, else from a written one, else made of the examples."""
    findings.generators = problem.generators
    if problem.generators or author is None:
        findings.gathered = await gather(problem, problem.generators, sandbox, settings)
    else:
        await _gather_written(problem, findings, author, sandbox, settings)
    if not findings.gathered.inputs:
        raise DroppedError(Fate.NO_GENERATOR, _why_no_inputs(problem, findings.gathered))


async def _gather_written(
    problem: Problem, findings: Findings, author: Author, sandbox: Sandbox, settings: CaseSettings
) -> None:
    trouble = ""
    for attempt in range(NUM_AUTHOR_TRIES):
        findings.generators = [await author.generator(problem, attempt, trouble)]
        findings.gathered = await gather(problem, findings.generators, sandbox, settings)
        if len(findings.gathered.inputs) >= settings.min_valid:
            return
        trouble = _why_no_inputs(problem, findings.gathered)


def _why_no_inputs(problem: Problem, gathered: Gathered) -> str:
    if gathered.failures:
        return f"the generator fails: {gathered.failures[0]}"
    if gathered.malformed:
        return f"its inputs are malformed: {gathered.malformed[0]}"
    if len(gathered.inputs) or gathered.num_repeated:
        return f"it writes {len(gathered.inputs)} different inputs"
    return "the problem has neither generator nor examples, and no endpoint was named to write one"


def _check_that_a_checker_can_be_written(problem: Problem, author: Author | None, why: str) -> None:
    """DroppedError: outputs cannot be compared, and nothing can be done about it."""
    if problem.entry_point:
        raise DroppedError(Fate.SPECIAL_JUDGE, f"{why}; checkers are for stdin and stdout")
    if author is None:
        raise DroppedError(Fate.SPECIAL_JUDGE, f"{why}; give a checker, or an endpoint whose model writes one")


async def _with_checker(
    problem: Problem,
    findings: Findings,
    answered: Sequence[Sequence[Outcome]],
    sandbox: Sandbox,
    author: Author | None,
    settings: CaseSettings,
) -> Problem:
    """The problem with its checker, given or written, which accepts right submissions and rejects what is no answer."""
    trouble = ""
    if problem.has_checker:
        findings.checker_by = "given"
        trouble = await _trouble_of_checker(problem, findings, answered, sandbox, settings)
    elif author is not None:
        findings.checker_by = "a model"
        for attempt in range(NUM_AUTHOR_TRIES):
            written = await author.checker(problem, attempt, trouble)
            comparison = Comparison(kind=Comparison.KIND_CHECKER, checker=sandbox_program(written))
            problem = replace(problem, comparison=comparison)
            trouble = await _trouble_of_checker(problem, findings, answered, sandbox, settings)
            if not trouble:
                break
    if trouble:
        raise DroppedError(Fate.NO_CHECKER, trouble)
    findings.comparison = problem.comparison
    return problem


async def _trouble_of_checker(
    problem: Problem,
    findings: Findings,
    answered: Sequence[Sequence[Outcome]],
    sandbox: Sandbox,
    settings: CaseSettings,
) -> str:
    """Returns what is wrong with the checker by the first inputs; empty if nothing is."""
    for found, outcomes in list(zip(findings.gathered.inputs, answered, strict=True))[:NUM_CHECKER_TRIALS]:
        expected = _most_frequent([outcome.output for outcome in outcomes])
        if not expected.strip():
            continue
        for output, is_right in ((expected, True), (NO_ANSWER, False)):
            said = await _checked(problem.comparison.checker, found, output, expected, sandbox, settings)
            if said is not is_right:
                why = (
                    said
                    if isinstance(said, str)
                    else f"the checker {'accepts' if said else 'rejects'} {shown(output)!r}"
                )
                return f"{why}, where {shown(expected)!r} is the output of most submissions to {shown(found.text)!r}"
    return ""


# --- Cases --------------------------------------------------------------------------------------------------------


def _limits(problem: Problem, settings: CaseSettings) -> Limits:
    cpu_s, memory_mb = problem.time_limit_s or settings.time_limit_s, problem.memory_mb or settings.memory_mb
    return limits_of(cpu_s, memory_mb, settings.max_input_bytes)


async def _answered(
    problem: Problem, used: Sequence[Program], findings: Findings, sandbox: Sandbox, settings: CaseSettings
) -> list[list[Outcome]]:
    """Returns what each submission did with each input: a list for each input."""
    texts = [found.text for found in findings.gathered.inputs]
    limits = _limits(problem, settings)
    runs = [sandbox.outcomes(program, texts, limits, problem.entry_point) for program in used]
    return [list(outcomes) for outcomes in zip(*await all_of(runs), strict=True)]


async def _agreements(
    problem: Problem,
    findings: Findings,
    answered: Sequence[Sequence[Outcome]],
    sandbox: Sandbox,
    settings: CaseSettings,
) -> list[Agreement]:
    """For each input: the expected output, and which submissions gave it."""
    outputs = [[outcome.output for outcome in outcomes] for outcomes in answered]
    if not problem.has_checker:
        same = same_by(findings.comparison)
        return [agreement(each, same) for each in outputs]
    pairs = zip(findings.gathered.inputs, outputs, strict=True)
    return await all_of([_accepted(problem, found, each, sandbox, settings) for found, each in pairs])


async def _accepted(
    problem: Problem, found: Input, outputs: Sequence[bytes | None], sandbox: Sandbox, settings: CaseSettings
) -> Agreement:
    """Returns what the checker accepts, where the output that most submissions gave is expected."""
    expected = _most_frequent(outputs)
    said: dict[bytes, bool | str] = {}
    for output in dict.fromkeys(output for output in outputs if output is not None):
        said[output] = await _checked(problem.comparison.checker, found, output, expected, sandbox, settings)
        if isinstance(said[output], str):
            raise DroppedError(Fate.NO_CHECKER, str(said[output]))
    return Agreement(expected, tuple(output is not None and said[output] is True for output in outputs))


def _most_frequent(outputs: Sequence[bytes | None]) -> bytes:
    return agreement(outputs, lambda a, b: a == b).expected


async def _checked(
    checker: SandboxProgram, found: Input, output: bytes, expected: bytes, sandbox: Sandbox, settings: CaseSettings
) -> bool | str:
    limits = limits_of(settings.generator_s, settings.memory_mb, settings.max_input_bytes)
    return await sandbox.checks(checker, {"input": found.text, "output": output, "expected": expected}, limits)


def _disagreement(agreed: Sequence[Agreement], answered: Sequence[Sequence[Outcome]], settings: CaseSettings) -> str:
    """Why right submissions disagree too often for outputs to be compared; empty if they do not."""
    ended = [
        is_valid(found, settings.agree)
        for found, outcomes in zip(agreed, answered, strict=True)
        if sum(outcome.output is not None for outcome in outcomes) >= needed(settings.passing, len(outcomes))
    ]
    return disagreement(ended, settings.disagreement)


def _choose_valid(agreed: Sequence[Agreement], findings: Findings, settings: CaseSettings) -> None:
    gathered = findings.gathered
    pairs = zip(gathered.inputs, agreed, strict=True)
    findings.valid = [(found, each) for found, each in pairs if is_valid(each, settings.agree)]
    if len(findings.valid) < settings.min_valid:
        raise DroppedError(
            Fate.TOO_FEW_CASES,
            f"{len(findings.valid)} valid cases, of {settings.min_valid} at least: {len(agreed)} inputs, "
            f"{gathered.num_malformed} malformed and {gathered.num_repeated} repeated ones dropped"
            + (f"; a generator fails: {gathered.failures[0]}" if gathered.failures else ""),
        )


async def _measure(problem: Problem, findings: Findings, sandbox: Sandbox, settings: CaseSettings) -> None:
    """TPR of submissions that had no part in the tests, and TNR of known-bad ones, judged as the grader judges."""
    right, wrong = problem.solutions[settings.num_submissions :], problem.wrong_solutions
    requests = [request_of(problem, findings, program, settings) for program in (*right, *wrong)]
    passed = await all_of([sandbox.passes(request) for request in requests])
    findings.heldout_tpr = tpr([verdict for verdict in passed[: len(right)] if verdict is not None])
    findings.tnr = tnr([verdict for verdict in passed[len(right) :] if verdict is not None])
    findings.passing_wrong = [
        f"wrong submission {at + 1}" for at, verdict in enumerate(passed[len(right) :]) if verdict
    ]


def request_of(problem: Problem, findings: Findings, program: Program, settings: CaseSettings) -> JudgeRequest:
    """The request that judges a program by the problem's test cases."""
    return JudgeRequest(
        program=sandbox_program(program),
        cases=[_case(problem, number, found, agreed) for number, (found, agreed) in enumerate(findings.valid)],
        comparison=findings.comparison,
        limits=_limits(problem, settings),
    )


def _case(problem: Problem, number: int, found: Input, agreed: Agreement) -> TestCase:
    if problem.entry_point:
        case = call_text(problem.entry_point, found.text.decode(), agreed.expected.decode())
    else:
        case = TestCase(stdio=StdioTest(stdin=found.text, expected_stdout=agreed.expected))
    case.id = f"{number}-{found.kind}"
    return case


# --- The result ---------------------------------------------------------------------------------------------------


def _as_json(problem: Problem, findings: Findings, fate: Fate, reason: str, settings: CaseSettings) -> dict[str, Any]:
    gathered = findings.gathered
    by_kind: dict[str, int] = {}
    for found, _ in findings.valid:
        by_kind[found.kind] = by_kind.get(found.kind, 0) + 1
    result: dict[str, Any] = {
        "id": problem.id,
        "fate": fate.value,
        "reason": reason,
        "num_inputs": len(gathered.inputs),
        "num_valid": len(findings.valid),
        "valid_by_kind": by_kind,
        "num_malformed": gathered.num_malformed,
        "num_repeated": gathered.num_repeated,
        "malformed": gathered.malformed,
        "generator_failures": gathered.failures,
        "generators": [generator.written_by for generator in findings.generators] or ["examples"],
        "validator": findings.validator_by,
        "checker": findings.checker_by,
        "planted_malformed": _rate(findings.malformed),
        "accepted_malformed": findings.accepted_malformed,
        "num_submissions": min(len(problem.solutions), settings.num_submissions),
        "failing": findings.failing,
        "passing_wrong": findings.passing_wrong,
        "tpr": _rate(findings.tpr),
        "heldout_tpr": _rate(findings.heldout_tpr),
        "tnr": _rate(findings.tnr),
        "examples": [
            {"input": shown(found.text), "output": shown(agreed.expected), "agree": agreed.num}
            for found, agreed in findings.valid[:MAX_EXAMPLES]
        ],
    }
    if fate is Fate.KEPT:
        request = request_of(problem, findings, Program("", problem.solutions[0].language), settings)
        result["row"] = row_of(request)
    return result


def row_of(request: JudgeRequest) -> Mapping[str, Any]:
    """A row of the format `native`: the request as JSON, without a program."""
    row = MessageToDict(request, preserving_proto_field_name=True)
    return {**row, "program": {"language": request.program.language}}


def _rate(rate: Rate) -> dict[str, Any]:
    return {"num": rate.num, "total": rate.total}
