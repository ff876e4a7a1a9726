"""The fleet as the terminal shows it."""

from __future__ import annotations

from perilune.api.master.v1.master_pb2 import Worker
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.cli.fleet import members


def worker(name: str, number: int | None, source: str = "", kind: str = "rollout", run: str = "run") -> Worker:
    policy = None if number is None else PolicyVersion(number=number, digest=f"d{number}")
    return Worker(id=name, kind=kind, address=f"at-{name}", run_id=run, policy=policy, weights_from=source)


def test_everyone_stands_below_whom_it_got_its_version_from() -> None:
    found = members(
        [
            worker("b", 12, "at-a"),
            worker("a", 12, "at-t"),
            worker("c", 10, "at-b"),
            worker("t", 12, kind="trainer"),
            worker("reward", None, kind="reward", run=""),
            worker("lost", 11, "at-nobody"),
        ]
    )
    assert [(member.worker.id, member.depth, member.source, member.num_behind) for member in found] == [
        ("t", 0, "", 0),
        ("a", 1, "t", 0),
        ("b", 2, "a", 0),
        ("c", 3, "b", 2),
        ("lost", 0, "at-nobody", 1),
        ("reward", 0, "", None),
    ]


def test_two_that_name_each_other_are_shown_once_each() -> None:
    found = members([worker("a", 1, "at-b"), worker("b", 1, "at-a")])
    assert sorted(member.worker.id for member in found) == ["a", "b"]


def test_runs_are_compared_with_their_own_newest() -> None:
    found = members([worker("a", 3, run="x"), worker("b", 7, run="y")])
    assert [member.num_behind for member in found] == [0, 0]
