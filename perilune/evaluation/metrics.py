"""Figures of an evaluation, from what each response to each problem is worth. Pure functions.

A problem's values are a list: one for each response that has a score. Intervals are over problems, since the responses
to one problem are no independent evidence; they hold at 95 %.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from perilune.stats import Z_95, wilson_interval


@dataclass(frozen=True)
class Figure:
    """A named value, with an interval where there is one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Response:
    """Describes what decides the figures of one response."""

    value: float
    num_tokens: int = 0
    answer: str = ""  # what was compared, as it counts in a vote


Problems = Sequence[Sequence[Response]]


def mean_figure(name: str, values: Sequence[float]) -> Figure:
    """The mean over problems: of shares with Wilson's interval if all are 0 or 1, else by the standard error.

    A mean of shares stays within 0 and 1, and so does its interval. One problem of a share in between has no interval.

    >>> mean_figure("pass@1", [1.0, 0.0]).value
    0.5
    """
    count, mean = len(values), sum(values) / len(values)
    if set(values) <= {0.0, 1.0}:
        return Figure(name, mean, *wilson_interval(round(sum(values)), count))
    if count < 2:
        return Figure(name, mean)
    spread = Z_95 * math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)
    bounded = all(0 <= value <= 1 for value in values)
    low, high = mean - spread, mean + spread
    return Figure(name, mean, max(0.0, low), min(1.0, high)) if bounded else Figure(name, mean, low, high)


def avg_at_n(problems: Problems) -> Figure:
    """The mean over problems of the mean value of their responses: the paper's pass@1 over n runs (App. C)."""
    num = max(len(each) for each in problems)
    means = [sum(response.value for response in each) / len(each) for each in problems]
    return mean_figure("pass@1" if num == 1 else f"avg@{num}", means)


def pass_at_k(problems: Problems, k: int) -> Figure | None:
    """The chance that one of k responses is right, unbiased (Chen et al. 2021, eq. 1); None if a problem has fewer."""
    if any(len(each) < k for each in problems):
        return None
    return mean_figure(f"pass@{k}", [_pass_at_k(len(each), _num_right(each), k) for each in problems])


def _pass_at_k(num: int, num_right: int, k: int) -> float:
    """1 − C(n − c, k) / C(n, k).

    >>> _pass_at_k(4, 1, 2)
    0.5
    """
    return 1.0 - math.comb(num - num_right, k) / math.comb(num, k)


def maj_at_n(problems: Problems) -> Figure:
    """The share of problems whose most frequent answer is right; where several are, the mean over these.

    A response without an answer does not vote; a problem without votes is not solved.
    """
    num = max(len(each) for each in problems)
    return mean_figure(f"maj@{num}", [_vote(each) for each in problems])


def _vote(responses: Sequence[Response]) -> float:
    votes = Counter(response.answer for response in responses if response.answer)
    if not votes:
        return 0.0
    most = max(votes.values())
    worth = {response.answer: response.value for response in responses}
    winners = [answer for answer, count in votes.items() if count == most]
    return sum(worth[answer] for answer in winners) / len(winners)


def accuracy_by_tokens(problems: Problems, budgets: Iterable[int]) -> list[tuple[int, float]]:
    """The mean value if responses longer than a budget were wrong, for each budget of tokens, in their order."""
    return [(budget, _mean_within(problems, budget)) for budget in budgets]


def _mean_within(problems: Problems, budget: int) -> float:
    shares = [sum(r.value for r in each if r.num_tokens <= budget) / len(each) for each in problems]
    return sum(shares) / len(shares)


def budgets_of(problems: Problems, num_budgets: int = 8) -> list[int]:
    """Budgets at equal shares of the responses' lengths, the last that of the longest.

    >>> budgets_of([[Response(1.0, n)] for n in (10, 20, 30, 40)], 2)
    [20, 40]
    """
    lengths = sorted(response.num_tokens for each in problems for response in each)
    places = [math.ceil(len(lengths) * (number + 1) / num_budgets) - 1 for number in range(num_budgets)]
    return sorted({lengths[max(0, place)] for place in places})


def figures_of(problems: Problems, *, votes: bool = False) -> list[Figure]:
    """All figures of an evaluation, its score first. Problems without a scored response are in none.

    Args:
        problems: the scored responses to each problem.
        votes: whether answers can be compared as texts, so that a majority means something.
    """
    scored = [each for each in problems if each]
    if not scored:
        return []
    figures = [avg_at_n(scored)]
    num = max(len(each) for each in scored)
    figures += [figure for k in _powers(num) if (figure := pass_at_k(scored, k))]
    if votes and num > 1:
        figures.append(maj_at_n(scored))
    figures.append(mean_figure("mean_tokens", [sum(r.num_tokens for r in each) / len(each) for each in scored]))
    budgets = accuracy_by_tokens(scored, budgets_of(scored))
    return [*figures, *(Figure(f"within_{budget}_tokens", value) for budget, value in budgets)]


def _powers(num: int) -> list[int]:
    """2, 4, 8 … below a number, and the number itself; pass@1 is the mean.

    >>> _powers(1), _powers(6), _powers(8)
    ([], [2, 4, 6], [2, 4, 8])
    """
    return sorted({*(1 << e for e in range(1, num.bit_length()) if 1 << e < num), *([num] if num > 1 else [])})


def _num_right(responses: Sequence[Response]) -> int:
    return sum(response.value >= 1.0 for response in responses)
