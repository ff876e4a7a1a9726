"""verl: `compute_score` for `reward.custom_reward_function`. Follows verl 0.9.

reward.custom_reward_function.path=pkg://perilune.integrations.verl
reward.custom_reward_function.name=compute_score
+reward.custom_reward_function.reward_kwargs.graders=math
+reward.custom_reward_function.reward_kwargs.address=127.0.0.1:7041
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perilune.client.reward import Grader, score_request
from perilune.integrations.scorer import DEADLINE_S, Scorer


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    graders: Grader | Sequence[Grader] = "math",
    address: str = "",
    deadline_s: float = DEADLINE_S,
    undecided: float | None = None,
    token: str = "",
    **_: Any,
) -> dict[str, float]:
    """The reward of one sample, as verl's reward managers ask for it.

    Args:
        data_source: the dataset's name; not used.
        solution_str: the response.
        ground_truth: the reference answer.
        extra_info: its `question` is given to graders that read it.
        graders, address, deadline_s, undecided, token: as for perilune.integrations.trl.RewardFunction.

    Raises:
        UnscoredError: there is no score. verl has no way to leave a sample out, and a number would be a lie.
    """
    question = str((extra_info or {}).get("question", ""))
    scorer = Scorer(graders, address, deadline_s, undecided, token)
    value = await scorer.value_async(score_request(solution_str, str(ground_truth), question=question))
    return {"score": value, "acc": value}
