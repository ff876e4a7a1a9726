"""A fleet as processes: a real master makes the tree of real relays, which die and come; the trainer is played here."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest_asyncio

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.channel import GRPC_OPTIONS
from perilune.recipe import check_recipe
from perilune.runtime.bus import Bus
from perilune.weights import State
from tests.integration.test_master import RECIPE, Master, master_on
from tests.integration.test_master import fleet as sampled
from tests.integration.test_weights import FULL_BYTES, Trainer, state

PATIENCE_S = 90
RUN = "run"


class Fleet:
    """A master, a trainer that publishes, and relays as processes."""

    def __init__(self, master: Master, address: str, trainer: Trainer, folder: Path) -> None:
        self.master, self.address, self.trainer = master, address, trainer
        self._folder = folder
        self.relays: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str) -> None:
        environment = os.environ | {
            "PERILUNE_MASTER_ADDRESS": self.address,
            "PERILUNE_WORKER_ID": name,
            "PERILUNE_EXIT_WITH_PARENT": "1",
        }
        log = (self._folder / f"{name}.log").open("wb")
        self.relays[name] = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.relay", env=environment, stderr=log
        )

    async def kill(self, name: str) -> None:
        process = self.relays.pop(name)
        process.kill()
        await process.wait()

    async def publish(self, new: State) -> None:
        self.trainer.publish(new)
        await self.commit(new.version)

    async def commit(self, policy: PolicyVersion) -> None:
        if policy.number:
            await self.master.batch(policy.number - 1)  # which a version is made from
        version = m.Version(policy=policy)
        request = m.CommitVersionRequest(run_id=RUN, version=version, lease_epoch=self.master.lease_epoch)
        await self.master.training.CommitVersion(request)

    async def workers(self) -> dict[str, m.Worker]:
        answer = await self.master.runs.GetFleet(m.GetFleetRequest(), timeout=20)
        return {worker.id.removeprefix("relay-"): worker for worker in answer.workers if worker.kind == "relay"}

    async def until(self, holds: Callable[[dict[str, m.Worker]], bool]) -> dict[str, m.Worker]:
        async with asyncio.timeout(PATIENCE_S):
            while not holds(workers := await self.workers()):
                await asyncio.sleep(0.05)
        return workers

    async def until_served(self, version: PolicyVersion) -> dict[str, m.Worker]:
        return await self.until(
            lambda workers: (
                workers.keys() == self.relays.keys() and all(worker.policy == version for worker in workers.values())
            )
        )


@pytest_asyncio.fixture
async def fleet(nats_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(master_on(nats_url, tmp_path))
        trainer = Trainer()
        server = grpc.aio.server(options=GRPC_OPTIONS)
        trainer.add_to(server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        stack.push_async_callback(server.stop, None)
        await master.submit(check_recipe(RECIPE))
        call, _ = await master.acquire(address)
        stack.callback(call.cancel)
        bus = await stack.enter_async_context(Bus.connect(nats_url, "fleet"))
        await stack.enter_async_context(sampled(bus))
        master_address = json.loads((tmp_path / "ready.json").read_text())["address"]
        fleet = Fleet(master, master_address, trainer, tmp_path)
        try:
            yield fleet
        finally:
            for name in list(fleet.relays):
                await fleet.kill(name)


async def test_a_fleet_forms_a_tree_and_the_trainer_sends_once(fleet: Fleet) -> None:
    """Then relays are killed, one while it stands above all others, and a new one joins: all get to the newest."""
    for name in "abcde":
        await fleet.start(name)
    await fleet.until(lambda workers: len(workers) == 5)
    await fleet.publish(state(0))
    workers = await fleet.until_served(state(0).version)
    trainer_address = next(
        worker.address for worker in (await fleet.master.runs.GetFleet(m.GetFleetRequest())).workers if worker.id == "t"
    )
    sources = [worker.weights_from for worker in workers.values()]
    assert sources.count(trainer_address) == 1
    assert all(sources.count(worker.address) <= 2 for worker in workers.values())
    assert fleet.trainer.stream.num_sent_bytes < 1.1 * FULL_BYTES

    top = next(name for name, worker in workers.items() if worker.weights_from == trainer_address)
    await fleet.kill(top)
    await fleet.start("late")
    await fleet.publish(state(1))
    await fleet.until_served(state(1).version)
    other = next(name for name in fleet.relays if name != "late")
    fleet.trainer.publish(state(2))  # killed while it may be receiving this one, and is not known to be dead yet
    await fleet.kill(other)
    await fleet.commit(state(2).version)
    workers = await fleet.until_served(state(2).version)
    assert [worker.weights_from for worker in workers.values()].count(trainer_address) <= 2


async def test_the_command_line_shows_who_serves_what(fleet: Fleet) -> None:
    for name in "ab":
        await fleet.start(name)
    await fleet.publish(state(0))
    workers = await fleet.until_served(state(0).version)
    shown = await _perilune("fleet", "--master", fleet.address, "--json")
    found = {row["id"]: row for row in json.loads(shown)}
    assert {found[f"relay-{name}"]["version"] for name in "ab"} == {0}
    assert {found[f"relay-{name}"]["digest"] for name in "ab"} == {state(0).version.digest}
    assert {found[f"relay-{name}"]["versions_behind"] for name in "ab"} == {0}
    assert found["t"]["kind"] == "trainer"
    assert {row["weights_from"] for row in found.values()} >= {"t", None}
    table = await _perilune("fleet", "--master", fleet.address)
    assert table.count(state(0).version.digest[:8]) == len(workers) + 1


async def _perilune(*arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("perilune")), *arguments]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
