"""Who is silent or stuck, decided by hand-made heartbeats on a clock of ours."""

from __future__ import annotations

import pytest

from perilune.api.master.v1.master_pb2 import HeartbeatRequest, Worker
from perilune.errors import InvalidInputError
from services.master.liveness import BUS, Liveness


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Told:
    """A fleet that is told of heartbeats and looked at."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.liveness = Liveness(self.clock)

    def beat(self, worker_id: str = "rollout-1", after_s: float = 3.0, **fields: object) -> None:
        self.clock.now += after_s
        self.liveness.hear(HeartbeatRequest(worker_id=worker_id, kind="rollout", **fields))  # type: ignore[arg-type]

    def changes(self) -> list[tuple[str, bool]]:
        return [(change.worker.id, change.is_well) for change in self.liveness.look()]

    def troubles(self) -> dict[str, str]:
        return {worker.id: worker.trouble for worker in self.liveness.described([]) if worker.trouble}


@pytest.fixture
def fleet() -> Told:
    return Told()


def test_a_service_is_silent_after_four_heartbeats_that_did_not_come_and_back_with_the_next(fleet: Told) -> None:
    with fleet.liveness.belonging("rollout-1"):
        fleet.beat(host="c0ffee", pid=7, address="x:1")
        fleet.clock.now += 12
        assert fleet.changes() == []
        fleet.clock.now += 1
        (change,) = fleet.liveness.look()
        assert change.text.startswith("rollout-1 has been silent since ")
        assert change.text.endswith(" (process 7 on c0ffee, x:1)")
        assert fleet.changes() == []  # it is told once
        assert fleet.troubles() == {"rollout-1": "has been silent"}
        fleet.beat(after_s=17)
        (change,) = fleet.liveness.look()
        assert change.text == "rollout-1 is back after 30 s; it has been silent"


def test_one_whose_stream_broke_while_it_was_silent_is_still_named_and_one_that_left_is_not(fleet: Told) -> None:
    with fleet.liveness.belonging("rollout-1"), fleet.liveness.belonging("rollout-2"):
        fleet.beat("rollout-1")
        fleet.beat("rollout-2", after_s=10)
        fleet.clock.now += 5
        assert fleet.changes() == [("rollout-1", False)]
    fleet.clock.now += 60
    assert fleet.changes() == []
    assert fleet.troubles() == {"rollout-1": "has been silent"}
    fleet.clock.now += 300
    assert fleet.changes() == []
    assert fleet.troubles() == {}


def test_one_that_never_sent_a_heartbeat_is_not_missed(fleet: Told) -> None:
    with fleet.liveness.belonging("rollout-1"):
        fleet.clock.now += 3600
        assert fleet.changes() == []


def test_work_without_progress_and_without_the_processor_is_stuck(fleet: Told) -> None:
    with fleet.liveness.belonging("rollout-1"):
        for step in range(8):  # 21 s after the first
            fleet.beat(doing="samples search", progress=5, cpu_seconds=100 + 0.03 * step)
            expected = [("rollout-1", False)] if step == 7 else []
            assert fleet.changes() == expected
        assert fleet.troubles() == {"rollout-1": "has made no progress (samples search)"}
        fleet.beat(doing="samples search", progress=6)
        assert fleet.changes() == [("rollout-1", True)]


def test_waiting_for_others_and_slow_steps_that_compute_are_no_trouble(fleet: Told) -> None:
    with fleet.liveness.belonging("rollout-1"):
        for _ in range(400):  # 20 minutes of waiting
            fleet.beat()
            assert fleet.changes() == []
        for step in range(90):  # 4.5 minutes in one step, on a tenth of a core and more
            fleet.beat(doing="train", progress=1, cpu_seconds=0.4 * step)
            assert fleet.changes() == []


def test_computing_for_ever_without_progress_is_stuck_in_the_end(fleet: Told) -> None:
    with fleet.liveness.belonging("rollout-1"):
        for step in range(101):  # 300 s
            fleet.beat(doing="train", progress=1, cpu_seconds=3.0 * step)
        assert fleet.changes() == []
        fleet.beat(doing="train", progress=1, cpu_seconds=303)
        assert fleet.changes() == [("rollout-1", False)]
        fleet.beat(doing="train", progress=2, cpu_seconds=306)  # it was a step of 306 s: the next may take 918
        assert fleet.changes() == [("rollout-1", True)]
        for step in range(1, 306):
            fleet.beat(doing="train", progress=2, cpu_seconds=306 + 3 * step)
        assert fleet.changes() == []


def test_a_sandbox_is_vouched_for_by_a_worker_and_forgotten_with_it(fleet: Told) -> None:
    with fleet.liveness.belonging("reward-1"):
        fleet.beat("reward-1")
        fleet.beat("sandbox x:7050", reporter_id="reward-1", after_s=0)
        for _ in range(4):
            fleet.beat("reward-1")
        assert fleet.changes() == []
        fleet.beat("reward-1")
        assert fleet.changes() == [("sandbox x:7050", False)]
        fleet.clock.now += 13  # now nothing is known of the sandbox
        assert fleet.changes() == [("reward-1", False)]
        assert fleet.troubles() == {"reward-1": "has been silent"}


def test_a_master_that_stood_still_blames_no_other(fleet: Told) -> None:
    with fleet.liveness.belonging("rollout-1"):
        fleet.beat()
        fleet.clock.now += 100
        fleet.liveness.excuse(98)
        assert fleet.changes() == []


def test_the_bus_needs_no_stream_to_be_missed(fleet: Told) -> None:
    fleet.beat(BUS)
    fleet.clock.now += 13
    assert fleet.changes() == [(BUS, False)]


def test_members_are_described_with_where_they_run(fleet: Told) -> None:
    with fleet.liveness.belonging("rollout-1"):
        fleet.beat(host="c0ffee", pid=7, run_id="a")
        (described,) = fleet.liveness.described([Worker(id="rollout-1", kind="rollout", run_id="b")])
        assert (described.host, described.pid, described.run_id, described.trouble) == ("c0ffee", 7, "b", "")


@pytest.mark.parametrize("worker_id", ["", "x" * 201])
def test_a_heartbeat_says_whose_it_is(fleet: Told, worker_id: str) -> None:
    with pytest.raises(InvalidInputError, match="names its service"):
        fleet.beat(worker_id)
