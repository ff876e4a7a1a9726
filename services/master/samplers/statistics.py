"""Says what a run's buffer knows of its prompts, and how the database is asked for it: only for what a sampler
needs."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Collection, Mapping

from services.master.store import Store


class Statistic(enum.Enum):
    """A number of each prompt, by the prompt's index; prompts without one are left out."""

    SUCCESS_RATES = enum.auto()  # the share of right samples of prompts that were tried
    DEAD_GROUPS = enum.auto()  # how many groups were given up, of prompts none of whose samples ever came to anything


Statistics = Mapping[Statistic, Mapping[int, float]]

QUERIES: dict[Statistic, Callable[[Store, str], Awaitable[Mapping[int, float]]]] = {
    Statistic.SUCCESS_RATES: Store.success_rates,
    Statistic.DEAD_GROUPS: Store.dead_groups,
}


async def statistics_of(store: Store, run_id: str, wanted: Collection[Statistic]) -> Statistics:
    """The wanted statistics of a run, and no others."""
    return {statistic: await QUERIES[statistic](store, run_id) for statistic in wanted}
