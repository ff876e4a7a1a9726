"""Toggle (Kimi K2.5 §4.4.1): phases of m iterations by turns, in the first of which long responses earn nothing.

    budget phase   r̃ = r·1[the mean of the group's r < λ, or |y| ≤ budget(x)]
    other phase    r̃ = r

A prompt is held to its budget once it is solved often enough; in between, the policy learns at full length, so that it
does not unlearn to think. budget(x) is the ρ-percentile of the lengths of the prompt's right responses, estimated once:
from the first batch in which it has any. The master finds it in its ledger (services/master/budgets.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perilune.objectives.shaping import Response
    from perilune.recipe import ToggleTable


def in_budget_phase(table: ToggleTable, iteration: int) -> bool:
    """Tests whether long responses earn nothing at this iteration."""
    return iteration // table.phase_iterations % 2 == 0


def budget_of(lengths: Sequence[int], percentile: float) -> int:
    """The shortest of these lengths, in tokens, that at least `percentile` per cent of them do not exceed."""
    place = math.ceil(percentile / 100 * len(lengths) - 1e-9)  # 7 per cent of 100 are a little more than 7 in floats
    return sorted(lengths)[max(0, place - 1)]


def withheld(responses: Sequence[Response], table: ToggleTable, iteration: int) -> list[bool]:
    """Tests of each response of a group whether its reward does not count. Without a budget every reward counts."""
    if not responses or not in_budget_phase(table, iteration):
        return [False] * len(responses)
    if math.fsum(response.score for response in responses) / len(responses) < table.min_mean_score:
        return [False] * len(responses)
    return [each.budget_tokens is not None and each.num_tokens > each.budget_tokens for each in responses]


def toggle(rewards: Sequence[float], responses: Sequence[Response], table: ToggleTable, iteration: int) -> list[float]:
    """r̃ of each response. A penalty counts at any length: one that is too long gets 0 at most."""
    over = withheld(responses, table, iteration)
    return [min(0.0, reward) if is_over else reward for reward, is_over in zip(rewards, over, strict=True)]


def toggle_metrics(groups: Sequence[Sequence[Response]], table: ToggleTable, iteration: int) -> dict[str, float]:
    """An iteration's figures.

    toggle_budget_phase  1 in that phase, else 0; the others are of that phase alone
    toggle_withheld      the share of responses with a reward above 0 that did not count
    toggle_no_budget     the share of groups whose prompt had no right response yet
    toggle_budget        the mean budget of the other groups, tokens
    """
    if not in_budget_phase(table, iteration):
        return {"toggle_budget_phase": 0.0}
    figures = {"toggle_budget_phase": 1.0}
    earning = [
        is_over
        for group in groups
        for response, is_over in zip(group, withheld(group, table, iteration), strict=True)
        if response.score > 0
    ]
    budgets = [group[0].budget_tokens for group in groups if group]
    known = [budget for budget in budgets if budget is not None]
    if earning:
        figures["toggle_withheld"] = sum(earning) / len(earning)
    if budgets:
        figures["toggle_no_budget"] = 1 - len(known) / len(budgets)
    if known:
        figures["toggle_budget"] = sum(known) / len(known)
    return figures
