"""Checks a run's ledger sample by sample: nothing lost, nothing twice, nothing too old."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from perilune.api.master.v1.master_pb2 import Ledger, LedgerLine, Version
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_TRAIN
from perilune.errors import InvalidInputError
from perilune.ids import parse_group

OPEN = ("dispatched", "partial", "scored")
SHOWN = 20  # findings of a kind in a report


@dataclass(frozen=True)
class Audit:
    """Describes what was found of one run; all is well where every list is empty."""

    num_samples: int
    lost: list[str]  # samples without an end, or that the trainer never had, with what is wrong
    twice: list[str]  # samples, draws and batches that count more than once
    given_up: list[str]  # samples that are dead, with the reason
    too_old: list[str]  # versions that were trained on samples older than the recipe allows
    staleness: float  # versions between the oldest token that was trained on and its batch

    @property
    def is_well(self) -> bool:
        """Tests whether nothing was found."""
        return not (self.lost or self.twice or self.given_up or self.too_old)


def audit(
    lines: Sequence[LedgerLine], versions: Sequence[Version], ledger: Ledger, max_staleness: int, draw_size: int
) -> Audit:
    """Checks a finished run.

    Args:
        lines: every sample of the run.
        versions: every committed version, with what the trainer said it used.
        ledger: the sums, as the run itself has them.
        max_staleness: the recipe's bound, in versions.
        draw_size: groups that are drawn together.
    """
    batches = list(_wrong_batches(lines, versions))
    ages = {version.policy.number: version.metrics.get("staleness_max", 0.0) for version in versions}
    unbalanced = [] if ledger.balanced else ["the run's own ledger does not balance"]
    return Audit(
        num_samples=len(lines),
        lost=[*_without_end(lines), *_incomplete_groups(lines), *_skipped_draws(lines, draw_size), *unbalanced]
        + [text for missing, text in batches if missing > 0],
        twice=[*_repeated(lines), *[text for missing, text in batches if missing < 0]],
        given_up=[f"{_name(line)}: {line.reason}" for line in lines if line.state == "dead"],
        too_old=[f"version {number}: {age:.0f}" for number, age in ages.items() if age > max_staleness],
        staleness=max(ages.values(), default=0.0),
    )


def _name(line: LedgerLine) -> str:
    return f"{line.group_id}/{line.sample_index}"


def _without_end(lines: Iterable[LedgerLine]) -> list[str]:
    return [f"{_name(line)} is still {line.state}" for line in lines if line.state in OPEN]


def _repeated(lines: Iterable[LedgerLine]) -> list[str]:
    return [f"{name} has {count} lines" for name, count in Counter(map(_name, lines)).items() if count > 1]


def _incomplete_groups(lines: Iterable[LedgerLine]) -> list[str]:
    """Groups of which not every sample has a line."""
    indices: dict[tuple[str, int], set[int]] = defaultdict(set)
    for line in lines:
        indices[line.group_id, line.num_samples].add(line.sample_index)
    return [
        f"{group} has {len(found)} of {size} samples"
        for (group, size), found in indices.items()
        if found != set(range(size))
    ]


def _skipped_draws(lines: Iterable[LedgerLine], draw_size: int) -> list[str]:
    """Draws of prompts that are incomplete: numbers and positions go on from 0 without a gap."""
    draws: dict[int, set[int]] = defaultdict(set)
    for line in lines:
        if line.purpose == PURPOSE_TRAIN:
            try:
                group = parse_group(line.group_id)
            except InvalidInputError:
                return [f"{line.group_id!r} is no id of a group"]
            draws[group.number].add(group.position)
    found = [f"draw {number} is missing" for number in range(max(draws, default=-1) + 1) if number not in draws]
    whole = set(range(draw_size))
    return found + [f"draw {number} has {len(p)} of {draw_size} groups" for number, p in draws.items() if p != whole]


def _wrong_batches(lines: Iterable[LedgerLine], versions: Sequence[Version]) -> list[tuple[int, str]]:
    """Batches of which the trainer used another number of samples than the ledger says: how many are missing."""
    trained = Counter(line.batch for line in lines if line.state == "trained")
    used = {version.policy.number - 1: version.num_samples for version in versions if version.num_samples}
    found = []
    for batch in sorted(trained.keys() | used.keys()):
        missing = trained[batch] - used.get(batch, 0)
        if missing:
            text = (
                f"of batch {batch} the ledger has {trained[batch]} samples as trained, the trainer {used.get(batch, 0)}"
            )
            found.append((missing, text))
    return found
