"""A ledger whose faults were made by hand."""

from __future__ import annotations

import pytest

from perilune.api.master.v1.master_pb2 import Ledger, LedgerLine, Version
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_EVALUATE, PURPOSE_TRAIN, PolicyVersion
from perilune.chaos.audit import Audit, audit

WHOLE = [
    LedgerLine(
        group_id=f"run.{draw}.{position}",
        sample_index=index,
        num_samples=2,
        purpose=PURPOSE_TRAIN,
        iteration=draw,
        state="trained",
        batch=draw,
    )
    for draw in (0, 1)
    for position in (0, 1)
    for index in (0, 1)
]
HELD_OUT = LedgerLine(group_id="run.0.greedy.0", num_samples=1, purpose=PURPOSE_EVALUATE, state="evaluated")
VERSIONS = [
    Version(
        policy=PolicyVersion(number=number), num_samples=4 if number else 0, metrics={"staleness_max": number - 1.0}
    )
    for number in (0, 1, 2)
]


def audited(lines: list[LedgerLine], max_staleness: int = 1, *, balanced: bool = True) -> Audit:
    return audit(lines, VERSIONS, Ledger(balanced=balanced), max_staleness, draw_size=2)


def changed(number: int, **values: object) -> list[LedgerLine]:
    lines = [LedgerLine.FromString(line.SerializeToString()) for line in WHOLE]
    for name, value in values.items():
        setattr(lines[number], name, value)
    return lines


def test_a_whole_ledger_is_well() -> None:
    found = audited([*WHOLE, HELD_OUT])
    assert found.is_well
    assert (found.num_samples, found.staleness) == (9, 1.0)


@pytest.mark.parametrize(
    ("lines", "kind", "text"),
    [
        (changed(0, state="dispatched"), "lost", "run.0.0/0 is still dispatched"),
        (WHOLE[1:], "lost", "run.0.0 has 1 of 2 samples"),
        (WHOLE[4:], "lost", "draw 0 is missing"),
        ([*WHOLE[:4], *WHOLE[6:]], "lost", "draw 1 has 1 of 2 groups"),
        (changed(0, batch=1), "twice", "of batch 0 the ledger has 3 samples as trained, the trainer 4"),
        (changed(0, batch=1), "lost", "of batch 1 the ledger has 5 samples as trained, the trainer 4"),
        ([*WHOLE, WHOLE[0]], "twice", "run.0.0/0 has 2 lines"),
        (changed(0, state="dead", reason="no reason"), "given_up", "run.0.0/0: no reason"),
        (changed(0, group_id="?"), "lost", "'?' is no id of a group"),
    ],
)
def test_each_finding_is_named(lines: list[LedgerLine], kind: str, text: str) -> None:
    found = audited(lines)
    assert not found.is_well
    assert text in getattr(found, kind)


def test_what_is_too_old_and_a_ledger_that_does_not_balance_are_named() -> None:
    assert audited(WHOLE, max_staleness=0).too_old == ["version 2: 1"]
    assert audited(WHOLE, balanced=False).lost == ["the run's own ledger does not balance"]
