"""AReaL: a workflow's `reward_fn`. Follows AReaL 1.0.

from perilune.integrations.areal import RewardFunction

RLVRWorkflow(reward_fn=RewardFunction("math", "127.0.0.1:7041"), …)  # column: answer
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perilune.client.reward import Grader, score_request
from perilune.integrations.scorer import Scorer, question_of, text_of, without_closing_tokens

# AReaL's wrapper gives a function 15 s and then says 0: this one has given up by then, with an error.
DEADLINE_S = 12.0


class RewardFunction:
    """Scores one completion. AReaL sends it to worker processes, so it is all plain values."""

    def __init__(
        self,
        graders: Grader | Sequence[Grader],
        address: str = "",
        *,
        reference: str = "answer",
        deadline_s: float = DEADLINE_S,
        undecided: float | None = None,
        token: str = "",
    ) -> None:
        """See perilune.integrations.trl.RewardFunction. Keep `deadline_s` below the wrapper's `timeout_seconds`."""
        self._reference = reference
        self._scorer = Scorer(graders, address, deadline_s, undecided, token)

    def __call__(
        self,
        prompt: Any,
        completions: Any,
        prompt_ids: Sequence[int] | None = None,
        completion_ids: Sequence[int] | None = None,
        **columns: Any,
    ) -> float:
        """The reward. UnscoredError, which makes AReaL try again and then fail, where there is none."""
        reference = str(columns.get(self._reference, ""))
        response = without_closing_tokens(text_of(completions))  # AReaL decodes them with the rest
        return self._scorer.value(score_request(response, reference, question=question_of(prompt)))
