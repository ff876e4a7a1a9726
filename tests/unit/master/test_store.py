"""The store on a real SQLite file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nats.errors
import pytest
from sqlalchemy.exc import OperationalError

from perilune.api.master.v1.master_pb2 import RUN_STATE_STOPPED, Version
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_EVALUATE, PURPOSE_TRAIN, PolicyVersion, StageProgress
from perilune.errors import InvalidInputError, StateError, UnavailableError
from services.master import registry
from services.master.records import Group, Scored
from services.master.store import NUM_STAGE_STEPS, Store
from services.master.tables import SampleState


def groups(iteration: int) -> list[Group]:
    return [Group(f"{iteration}/{i}", "run", iteration, PURPOSE_TRAIN, "", i, i, 8) for i in range(100)]


@pytest.mark.slow
async def test_a_cancelled_change_leaves_no_lock_behind(tmp_path: Path) -> None:
    """Whoever writes may be cancelled at any instant; the next writer is not kept waiting, and nothing is half done."""
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path}/test.db") as store:
        await store.add_run("run", "{}")
        for attempt in range(60):
            change = asyncio.create_task(store.add_groups(groups(attempt)))
            await asyncio.sleep(attempt * 0.0002)
            change.cancel()
            await asyncio.gather(change, return_exceptions=True)
            await asyncio.wait_for(store.set_state("run", RUN_STATE_STOPPED), 5)
            assert await store.num_groups("run") % 100 == 0


async def test_several_samples_die_at_once(tmp_path: Path) -> None:
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path}/test.db") as store:
        await store.add_run("run", "{}")
        await store.add_groups([Group("g", "run", 0, PURPOSE_TRAIN, "", 0, 0, 8)])
        await store.mark_dead([("g", index) for index in range(4)], "too long")
        ledger = await store.ledger("run")
        assert (ledger.dispatched, ledger.dead, ledger.in_flight, ledger.balanced) == (8, 4, 4, True)
        assert await store.death_reasons("run") == ["too long"]


async def test_prompts_are_counted_as_dead_as_long_as_nothing_came_of_them(tmp_path: Path) -> None:
    """Prompt 0: two groups dead; 1: one dead, one open; 2: one dead, one scored; 3: one half dead; 4: an evaluation."""
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path}/test.db") as store:
        await store.add_run("run", "{}")
        for number, index in enumerate([0, 0, 1, 1, 2, 2, 3]):
            await store.add_groups([Group(f"g{number}", "run", 0, PURPOSE_TRAIN, "", number, index, 2)])
        await store.add_groups([Group("e", "run", 0, PURPOSE_EVALUATE, "greedy", 0, 4, 1)])
        dead = [(f"g{number}", sample) for number in (0, 1, 2, 4) for sample in range(2)]
        await store.mark_dead([*dead, ("g6", 0), ("e", 0)], "too long")
        await store.record_scores([Scored("g5", 0, SampleState.SCORED, b"", 1, value=1.0, correct=True)])
        assert await store.dead_groups("run") == {0: 2, 1: 1}


async def test_a_version_keeps_its_policys_name(tmp_path: Path) -> None:
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path}/test.db") as store:
        for run_id, name in (("run", ""), ("named", "critic")):
            await store.add_run(run_id, "{}")
            epoch = await store.open_lease(run_id, "t") or 0
            version = Version(policy=PolicyVersion(number=0, digest="d", name=name))
            assert await store.commit_version(run_id, epoch, version, "", {})
            assert await store.newest_version(run_id) == version.policy
            assert [each.policy for each in await store.versions(run_id)] == [version.policy]
        other, none = (Version(policy=PolicyVersion(number=0, name=name)) for name in ("other", "a/b"))
        with pytest.raises(StateError, match="named trains the policy 'critic': a version of 'other' cannot follow"):
            await store.commit_version("named", epoch, other, "", {})
        with pytest.raises(InvalidInputError, match="'a/b' is no name of a policy"):
            await store.commit_version("named", epoch, none, "", {})


class HeldUp:
    """A run that is driven to its end after what the test says has been in its way."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def drive(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


async def test_a_run_waits_while_the_bus_or_the_database_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "RETRY_S", 0.01)
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path}/test.db") as store:
        runs = registry.Registry(store, None)  # type: ignore[arg-type]
        locked = OperationalError("update", {}, Exception("database is locked"))
        outages = HeldUp(UnavailableError("could not publish"), locked, nats.errors.TimeoutError())
        await runs._drive_patiently("run", outages)  # type: ignore[arg-type]
        assert not outages.errors
        with pytest.raises(KeyError):  # a mistake of ours, which no waiting mends
            await runs._drive_patiently("run", HeldUp(KeyError("prompt")))  # type: ignore[arg-type]


async def test_of_a_stage_some_steps_are_kept_and_those_that_are_taken_again_replace_the_former(tmp_path: Path) -> None:
    def at(step: int, time: int, loss: float = 1.0) -> StageProgress:
        return StageProgress(name="sft", step=step, num_steps=1200, metrics={"loss": loss}, time_unix_ns=time)

    async with Store.open(f"sqlite+aiosqlite:///{tmp_path}/test.db") as store:
        await store.add_run("run", "{}")
        for step in range(1, 61):
            await store.record_stage_step("run", at(step, time=step))
        kept = [each.step for each in await store.stage_steps("run")]
        assert kept == list(range(6, 61, 6))  # one in each of the 200 parts of 1,200 steps
        assert len(kept) == 60 * NUM_STAGE_STEPS // 1200
        await store.record_stage_step("run", at(50, time=50))  # an older report, delivered twice
        assert [each.step for each in await store.newest_stage_steps("run")] == [60]
        await store.record_stage_step("run", at(20, time=70, loss=0.5))  # after a kill, from the checkpoint on
        (newest,) = await store.newest_stage_steps("run")
        assert (newest.step, newest.metrics["loss"]) == (20, 0.5)
        assert [each.step for each in await store.stage_steps("run")] == [6, 12, 18, 20]
