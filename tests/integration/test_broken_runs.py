"""A run whose data breaks something fails by itself, with the reason; the master and the other runs go on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.recipe import check_recipe
from perilune.runtime.bus import Bus
from services.master.prompts.prompt import ListedPrompts
from services.master.registry import Registry
from services.master.store import Store
from tests.integration.test_master import RECIPE, policy
from tests.integration.test_reading_homes import change, url_of


class Explosive(ListedPrompts):
    """A set that breaks when it is drawn from."""

    def train(self, index: int) -> Prompt:
        return {}[index]


async def test_what_one_run_breaks_on_is_its_own_failure(tmp_path: Path, bus: Bus) -> None:
    async with Store.open(url_of(tmp_path)) as store:
        registry = Registry(store, bus)
        for name in ("unreadable", "explosive", "good"):
            await registry.submit(name, check_recipe(RECIPE))
        change(tmp_path, "UPDATE runs SET prompts = X'FFFF' WHERE id = 'unreadable'")
        try:
            async with registry.lease("t1", "w:1") as (first, lease):
                assert first.id == "explosive"
                unreadable = await store.run("unreadable")
                assert unreadable.state == m.RUN_STATE_FAILED
                assert unreadable.reason.startswith("DecodeError: ")
                first.prompts = Explosive([Prompt()] * 100, [Prompt()] * 5)
                await registry.commit("explosive", lease.epoch, m.Version(policy=policy(0)), "", {})
                await asyncio.wait_for(lease.stop.wait(), 20)
                explosive = await store.run("explosive")
                assert explosive.state == m.RUN_STATE_FAILED
                assert "controller broke: KeyError: " in explosive.reason
            async with registry.lease("t1", "w:1") as (second, lease):
                assert second.id == "good"
                assert not await registry.commit("good", lease.epoch, m.Version(policy=policy(0)), "", {})
                async with asyncio.timeout(20):
                    while not await store.num_groups("good"):
                        await asyncio.sleep(0.02)
        finally:
            await registry.close()
