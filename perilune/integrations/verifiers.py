"""verifiers and prime-rl: a function for a rubric (verifiers 0.1 to 0.3), and a score for a task's `@vf.reward` (0.4).

vf.Rubric(funcs=[reward_function("math", "127.0.0.1:7041")])

class Sums(vf.Task):
    @vf.reward(weight=1.0)
    async def correct(self, trace: vf.Trace) -> float:
        return await score_trace(trace, self.data.answer, "math", "127.0.0.1:7041")
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from perilune.client.reward import Grader, score_request
from perilune.errors import PeriluneError
from perilune.integrations.scorer import DEADLINE_S, Scorer, question_of, text_of


def reward_function(
    graders: Grader | Sequence[Grader],
    address: str = "",
    *,
    name: str = "perilune",
    deadline_s: float = DEADLINE_S,
    undecided: float | None = None,
    token: str = "",
) -> Callable[..., Awaitable[float]]:
    """A rubric's reward function; for the arguments see perilune.integrations.trl.RewardFunction.

    A rubric turns an exception of its functions into 0.0. So this one raises none: where there is no score it puts the
    reason into `state["error"]`, by which a rollout counts as failed, and returns NaN, which cannot be taken for a
    reward.
    """
    scorer = Scorer(graders, address, deadline_s, undecided, token)

    async def perilune(
        prompt: Any, completion: Any, answer: Any, state: MutableMapping[str, Any] | None = None, **_: Any
    ) -> float:
        try:
            return await scorer.value_async(
                score_request(text_of(completion), str(answer), question=question_of(prompt))
            )
        except PeriluneError as error:
            if state is not None:
                state["error"] = error
            return math.nan

    perilune.__name__ = name
    return perilune


async def score_trace(
    trace: Any,
    answer: Any,
    graders: Grader | Sequence[Grader],
    address: str = "",
    *,
    deadline_s: float = DEADLINE_S,
    undecided: float | None = None,
    token: str = "",
) -> float:
    """The reward of a trace by its last reply. UnscoredError, which verifiers records as the trace's error, where there
    is none."""
    scorer = Scorer(graders, address, deadline_s, undecided, token)
    question = trace.task.data.prompt_text
    return await scorer.value_async(score_request(trace.last_reply, str(answer), question=question))
