"""TRL: a reward function for `GRPOTrainer(reward_funcs=…)` and its kin. Follows TRL 1.16.

from perilune.integrations.trl import RewardFunction

GRPOTrainer(model, reward_funcs=RewardFunction("math", "127.0.0.1:7041"), train_dataset=…)  # columns: prompt, answer
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from perilune.api.reward.v1.reward_pb2 import ScoreStatus
from perilune.client.reward import Grader, score_request
from perilune.integrations.scorer import DEADLINE_S, Scorer, question_of, text_of


class RewardFunction:
    """Scores a batch of completions in one call. It can be pickled, and several can be used side by side."""

    def __init__(
        self,
        graders: Grader | Sequence[Grader],
        address: str = "",
        *,
        reference: str = "answer",
        name: str = "perilune",
        deadline_s: float = DEADLINE_S,
        undecided: float | None = None,
        token: str = "",
    ) -> None:
        """
        Args:
            graders: a grader or several: names, or `{"name": …, "weight": …, "options": {…}}`.
            address: of the service, `host:port`; PERILUNE_REWARD_ADDRESS if not given.
            reference: the dataset's column with the reference answer.
            name: what the reward is called in TRL's metrics.
            deadline_s: what is not scored after so many seconds gets no reward.
            undecided: the reward of an answer that the grader could not decide on; None: no reward.
            token: of the caller; PERILUNE_TOKEN if not given.
        """
        self.__name__ = name
        self._reference = reference
        self._scorer = Scorer(graders, address, deadline_s, undecided, token)

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        trainer_state: Any = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Sequence[Any],
    ) -> list[float | None]:
        """The rewards; None, which TRL leaves out of the gradient, for what got no score."""
        references = columns.get(self._reference, [""] * len(prompts))
        scores = self._scorer.scores(
            [
                score_request(text_of(completion), str(reference), question=question_of(prompt))
                for prompt, completion, reference in zip(prompts, completions, references, strict=True)
            ]
        )
        rewards = [self._scorer.value_or_none(score) for score in scores]
        if log_extra:
            statuses = [ScoreStatus.Name(score.status).removeprefix("SCORE_STATUS_") for score in scores]
            log_extra(f"{self.__name__}/status", statuses)
        if log_metric:
            log_metric(f"{self.__name__}/unscored", rewards.count(None) / max(1, len(rewards)))
        return rewards
