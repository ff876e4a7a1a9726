"""What was given up: listed, read, tried again and forgotten, by a master's client and by the command line."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from perilune.api.master.v1.master_pb2 import KeptLetter
from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_TRAIN
from perilune.client import AsyncRunClient
from perilune.recipe import check_recipe
from perilune.runtime.bus import Bus
from perilune.runtime.subjects import rollout_consumer
from tests.integration.test_master import RECIPE, Master, master_on, trainer_of


async def test_what_was_given_up_can_be_tried_again_and_forgotten(nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "worker") as bus:
        await master.submit(check_recipe(RECIPE))
        address = json.loads((tmp_path / "ready.json").read_text())["address"]
        async with trainer_of(master), AsyncRunClient(address) as client:
            await master.commit(0)
            taken = await one_task_rejected(bus)
            await bus._client.publish("perilune.run.trajectory.scored", b"\xff no message")
            by_samples, unreadable = await two_letters(client)
            assert by_samples.letter.reason == "it is poisonous"
            assert list(by_samples.letter.trajectory_ids) == [f"{taken.group_id}/0", f"{taken.group_id}/1"]
            assert (by_samples.letter.payload, by_samples.num_payload_bytes > 0) == (b"", True)
            await until_dead(master, 2)

            assert await client.retry_dead(by_samples.number) == 2
            again = await task_of(bus, taken.group_id)
            assert (again.group_id, list(again.sample_indices)) == (taken.group_id, [0, 1])
            await until_dead(master, 0)
            assert (await master.run()).ledger.balanced

            assert await client.retry_dead(unreadable.number) == 0  # it is on its way, and comes back
            await until_letter_behind(client, unreadable.number)
            shown = perilune("list", "--json", "--master", address)
            assert [letter["subject"] for letter in json.loads(shown)] == ["perilune.run.trajectory.scored"]
            number = json.loads(shown)[0]["number"]
            perilune("show", str(number), "--payload", str(tmp_path / "payload"), "--master", address)
            assert (tmp_path / "payload").read_bytes() == b"\xff no message"
            assert perilune("drop", "--all", "--master", address) == "dropped 1\n"
            assert await client.dead_letters() == []


def perilune(*arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("perilune")), "dead", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


async def one_task_rejected(bus: Bus) -> RolloutTask:
    """Rejects the first task that is trained on, as a worker does whose tokenizer breaks on it."""
    async for batch in bus.deliveries(rollout_consumer("run"), RolloutTask, max_batch=1):
        for delivery in batch:
            if delivery.message.purpose == PURPOSE_TRAIN:
                ids = [f"{delivery.message.group_id}/{index}" for index in delivery.message.sample_indices]
                await delivery.reject("it is poisonous", "run", ids)
                return delivery.message
    raise AssertionError


async def task_of(bus: Bus, group_id: str) -> RolloutTask:
    async for batch in bus.deliveries(rollout_consumer("run"), RolloutTask):
        for delivery in batch:
            if delivery.message.group_id == group_id:
                return delivery.message
    raise AssertionError


async def two_letters(client: AsyncRunClient) -> tuple[KeptLetter, KeptLetter]:
    while len(letters := await client.dead_letters("run")) < 2:
        await asyncio.sleep(0.05)
    by_samples, unreadable = sorted(letters, key=lambda each: not each.letter.trajectory_ids)
    return by_samples, unreadable


async def until_letter_behind(client: AsyncRunClient, number: int) -> None:
    while not any(letter.number > number for letter in await client.dead_letters()):
        await asyncio.sleep(0.05)


async def until_dead(master: Master, count: int) -> None:
    while (await master.run()).ledger.dead != count:
        await asyncio.sleep(0.05)
