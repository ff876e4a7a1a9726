"""From one response to one Score: the same function serves the bus and the RPCs.

A grader that fails is a status and never a zero: nothing was found out about the answer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from perilune.api.reward.v1.reward_pb2 import (
    SCORE_STATUS_GRADER_ERROR,
    SCORE_STATUS_OK,
    SCORE_STATUS_TIMEOUT,
    SCORE_STATUS_UNAVAILABLE,
    SCORE_STATUS_UNDECIDED,
    Component,
    GraderChoice,
    Score,
    ScoreStatus,
)
from perilune.errors import InvalidInputError, OverloadedError, PeriluneError, UnavailableError
from perilune.runtime.telemetry import meter
from services.reward.graders import find_grader
from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict
from services.reward.processes import Processes, WorkerDiedError

logger = logging.getLogger(__name__)

MAX_EVIDENCE_CHARS = 500

_graded = meter.create_counter("perilune.reward.graded", description="Verdicts, by grader and status")
# From a comparison of strings to a judge that reasons; OpenTelemetry's own boundaries are for milliseconds.
_BOUNDARIES_S = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)
_seconds = meter.create_histogram(
    "perilune.reward.duration",
    unit="s",
    description="Time of one grader's verdict",
    explicit_bucket_boundaries_advisory=_BOUNDARIES_S,
)


@dataclass(frozen=True)
class Choice:
    """A grader with its share of the total and its options, checked."""

    grader: Grader[Any]
    weight: float
    options: GraderOptions


def read_choices(choices: Iterable[GraderChoice]) -> list[Choice]:
    """Checks the choice of graders. InvalidInputError names the nearest right grader or option."""
    read = []
    for choice in choices:
        grader = find_grader(choice.name)
        weight = choice.weight if choice.HasField("weight") else 1.0
        if not math.isfinite(weight):
            raise InvalidInputError(f"grader {choice.name!r}: the weight must be a finite number, not {weight}")
        read.append(Choice(grader, weight, grader.read_options(choice.options)))
    if not read:
        raise InvalidInputError("no grader was chosen; give at least one")
    return read


async def score(
    sample: GradingSample,
    choices: Sequence[Choice],
    processes: Processes,
    deadline: float = math.inf,
    standing: Sequence[Component | None] = (),
) -> Score:
    """Asks every grader, side by side; the total is the weighted sum, if all of them answered.

    Args:
        deadline: on the clock of `time.monotonic`; what is not graded by then is a TIMEOUT inside the score.
        standing: for each choice, its component where that need not be asked.
    """
    standing = standing or [None] * len(choices)
    if len(choices) == 1 and standing[0] is None:  # without the price of a task
        return total([await _ask_until(deadline, sample, choices[0], processes)])
    asked = {
        index: asyncio.create_task(_ask_until(deadline, sample, choice, processes))
        for index, choice in enumerate(choices)
        if standing[index] is None
    }
    try:
        return total([part if part is not None else await asked[i] for i, part in enumerate(standing)])
    finally:
        for task in asked.values():
            task.cancel()


def total(components: Sequence[Component]) -> Score:
    """The weighted sum. If a component failed there is none, and the first failure is the status."""
    failed = [component.status for component in components if component.status != SCORE_STATUS_OK]
    if failed:
        return Score(status=failed[0], components=components)
    value = math.fsum(component.weight * component.value for component in components)
    return Score(status=SCORE_STATUS_OK, value=value, components=components)


def failed_score(choices: Iterable[GraderChoice], reason: str) -> Score:
    """The score of a sample whose graders cannot even be asked."""
    components = [
        Component(grader=choice.name, status=SCORE_STATUS_GRADER_ERROR, evidence={"error": _clip(reason)})
        for choice in choices
    ]
    return Score(status=SCORE_STATUS_GRADER_ERROR, components=components)


async def _ask_until(deadline: float, sample: GradingSample, choice: Choice, processes: Processes) -> Component:
    start = time.monotonic()
    try:
        async with asyncio.timeout(None if math.isinf(deadline) else deadline - start):
            return await _ask(sample, choice, processes)
    except TimeoutError:
        return Component(
            grader=choice.grader.name,
            version=choice.grader.version,
            status=SCORE_STATUS_TIMEOUT,
            weight=choice.weight,
            evidence={"error": "not graded before the deadline"},
            seconds=time.monotonic() - start,
        )


async def _ask(sample: GradingSample, choice: Choice, processes: Processes) -> Component:
    grader = choice.grader
    component = Component(grader=grader.name, version=grader.version, weight=choice.weight)
    start = time.perf_counter()
    try:
        verdict = grader.grade(sample, choice.options)
        if verdict is None and grader.work:
            verdict = await processes.run(grader.work, sample, choice.options)
        if (verdict is None or verdict.value is None) and grader.ask:
            verdict = await grader.ask(sample, choice.options) or verdict
    except TimeoutError as error:
        _fail(component, SCORE_STATUS_TIMEOUT, error)
    except (UnavailableError, OverloadedError, WorkerDiedError) as error:
        _fail(component, SCORE_STATUS_UNAVAILABLE, error)
    except PeriluneError as error:  # the sample cannot be graded, for a reason that the score tells
        _fail(component, SCORE_STATUS_GRADER_ERROR, error)
    except Exception as error:  # noqa: BLE001 whatever a grader raises says nothing about the answer
        logger.warning("grader %s failed: %r", grader.name, error)
        _fail(component, SCORE_STATUS_GRADER_ERROR, error)
    else:
        _fill(component, verdict or Verdict(None))
    component.seconds = time.perf_counter() - start
    attributes = {"grader": grader.name, "status": ScoreStatus.Name(component.status)}
    _graded.add(1, attributes)
    _seconds.record(component.seconds, attributes)
    return component


def _fill(component: Component, verdict: Verdict) -> None:
    if verdict.value is None:
        component.status = SCORE_STATUS_UNDECIDED
    elif math.isfinite(verdict.value):
        component.status = SCORE_STATUS_OK
        component.value = verdict.value
    else:
        component.status = SCORE_STATUS_GRADER_ERROR
    component.version = verdict.version or component.version
    for key, text in verdict.evidence.items():
        component.evidence[key] = _clip(text)


def _fail(component: Component, status: ScoreStatus.ValueType, error: Exception) -> None:
    component.status = status
    component.evidence["error"] = _clip(f"{type(error).__name__}: {error}")


def _clip(text: str) -> str:
    return text if len(text) <= MAX_EVIDENCE_CHARS else text[: MAX_EVIDENCE_CHARS - 1] + "…"
