"""Scores that are there in time: graders are asked side by side, and what is not graded by the deadline is a TIMEOUT
inside the score."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_TIMEOUT, Component, Score
from services.reward import scoring
from services.reward.graders.grader import Sample
from services.reward.processes import Processes
from services.reward.scoring import Choice


async def score_until(
    deadline: float,
    sample: Sample,
    choices: Sequence[Choice],
    processes: Processes,
    standing: Sequence[Component | None] = (),
) -> Score:
    """The score at `deadline` (`time.monotonic`) or before; `standing` has, for each choice, what need not be asked."""
    standing = standing or [None] * len(choices)
    if len(choices) == 1 and standing[0] is None:
        return scoring.total([await _ask(deadline, sample, choices[0], processes)])
    asked = {
        index: asyncio.create_task(_ask(deadline, sample, choice, processes))
        for index, choice in enumerate(choices)
        if standing[index] is None
    }
    try:
        return scoring.total([part if part is not None else await asked[i] for i, part in enumerate(standing)])
    finally:
        for task in asked.values():
            task.cancel()


async def _ask(deadline: float, sample: Sample, choice: Choice, processes: Processes) -> Component:
    start = time.monotonic()
    try:
        async with asyncio.timeout(deadline - start):
            (component,) = (await scoring.score(sample, [choice], processes)).components
            return component
    except TimeoutError:
        return Component(
            grader=choice.grader.name,
            version=choice.grader.version,
            status=SCORE_STATUS_TIMEOUT,
            weight=choice.weight,
            evidence={"error": "not graded before the deadline"},
            seconds=time.monotonic() - start,
        )
