"""Says which right paths are kept, so that no behaviour drowns the others."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perilune.warmup_data.behaviours import BEHAVIOURS
from perilune.warmup_data.plan import BalanceTable


@dataclass(frozen=True)
class Candidate:
    """A right path as it is chosen: its number, its question, a digest of both texts, what it shows."""

    number: int
    question: int
    digest: str
    behaviours: tuple[str, ...]


def balanced(candidates: Sequence[Candidate], table: BalanceTable, seed: int) -> list[Candidate]:
    """The candidates that are kept, in their order.

    One by one, the next is a path that shows the behaviour of which the chosen ones have fewest; of several, the first
    in an order that the seed draws. A question gives at most `max_per_question`. It ends with `num_paths`, or when the
    rarest behaviour has no more paths and each other one that has is shown by `max_ratio` times as many. Paths that
    show fewer than `min_behaviours` are left out; those that show none are taken last.
    """
    able = [each for each in candidates if len(each.behaviours) >= table.min_behaviours]
    left = sorted(able, key=lambda each: _drawn(seed, each.digest))
    queues = {name: [each for each in left if name in each.behaviours] for name in BEHAVIOURS}
    queues = {name: queue[::-1] for name, queue in queues.items() if queue}
    chosen = _Chosen(table)
    while queues:
        name = min(queues, key=lambda each: chosen.shown[each])
        if chosen.is_full or chosen.too_many(name):
            break
        chosen.take(queues[name].pop())
        queues = {each: queue for each, queue in queues.items() if queue}
    for each in left:
        if not each.behaviours:
            chosen.take(each)
    return sorted(chosen.paths.values(), key=lambda each: each.number)


class _Chosen:
    """Describes what was chosen so far."""

    def __init__(self, table: BalanceTable) -> None:
        self._table = table
        self.paths: dict[int, Candidate] = {}
        self.shown: Counter[str] = Counter()
        self._of_question: Counter[int] = Counter()

    @property
    def is_full(self) -> bool:
        return self._table.num_paths is not None and len(self.paths) >= self._table.num_paths

    def too_many(self, name: str) -> bool:
        """True if a behaviour is shown so often already that the rarest one that is shown at all would drown."""
        shown = [number for number in self.shown.values() if number]
        return bool(shown) and self.shown[name] >= self._table.max_ratio * min(shown)

    def take(self, each: Candidate) -> None:
        """Chooses a path if its question may give one more and there is room."""
        if (
            each.number in self.paths
            or self.is_full
            or self._of_question[each.question] >= self._table.max_per_question
        ):
            return
        self.paths[each.number] = each
        self._of_question[each.question] += 1
        self.shown.update(each.behaviours)


def counted(behaviours: Sequence[Sequence[str]]) -> Mapping[str, int]:
    """Returns how many paths show each behaviour."""
    return {name: sum(name in each for each in behaviours) for name in BEHAVIOURS}


def _drawn(seed: int, digest: str) -> str:
    return hashlib.sha256(f"{seed}/{digest}".encode()).hexdigest()
