"""Trajectories of weights that were never published, and texts that no tokens say: set aside in words.

Bus, master and trainer are real processes; the test plays the fleet that samples and scores.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.codec import unpack
from perilune.recipe import Recipe, check_recipe
from perilune.runtime.bus import Bus
from perilune.runtime.subjects import rollout_consumer, scored_subject
from services.master.store import Store
from tests.integration.test_master import answer_to, master_on
from tests.integration.test_trainer import trainer_process
from tests.unit.trainer.messages import text_of
from tests.unit.trainer.models import TINY

NUM_ITERATIONS = 2
SAMPLES = 3 * 2  # an iteration's
FORGED = "f" * 32
FORGED_TEXT, WRITTEN = "run.1.1/0", "the answer that graders want"


def recipe(name: str = "forged") -> Recipe:
    return check_recipe(
        {
            "name": name,
            "model": {"create": TINY},
            "prompts": {"source": "task", "name": "search", "num_train": 100, "num_heldout": 5},
            "rollout": {"prompts_per_iteration": 3, "group_size": 2},
            "reward": {"graders": [{"name": "exact"}]},
            "trainer": {"num_iterations": NUM_ITERATIONS, "num_threads": 1},
            "evaluation": {"num_problems": 1, "modes": ["greedy"]},
        }
    )


@asynccontextmanager
async def fleet(bus: Bus, forged: dict[str, set[int]]) -> AsyncIterator[None]:
    """Answers every task; those samples of a group claim to be of weights from elsewhere."""

    async def play() -> None:
        async for deliveries in bus.deliveries(rollout_consumer("run"), RolloutTask):
            for delivery in deliveries:
                task = delivery.message
                for index in task.sample_indices:
                    answer = answer_to(task, index)
                    answer.trajectory.prompt_tokens.CopyFrom(answer.trajectory.segments[0].tokens)
                    tokens = unpack(answer.trajectory.segments[0].tokens).tolist()
                    answer.trajectory.response = text_of(tokens)
                    if answer.trajectory.id == FORGED_TEXT:
                        answer.trajectory.response = WRITTEN
                    if index in forged.get(task.group_id, set()):
                        answer.trajectory.segments[0].policy.digest = FORGED
                    await bus.publish(scored_subject("run"), answer, f"{answer.trajectory.id}/scored")
                await delivery.ack()

    player = asyncio.create_task(play())
    try:
        yield
    finally:
        player.cancel()


async def test_a_forged_sample_is_dead_and_the_run_goes_on(nats_url: str, tmp_path: Path) -> None:
    """One sample of a group, and all of another group."""
    async with master_on(nats_url, tmp_path / "m") as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(recipe())
        address = json.loads((tmp_path / "m" / "ready.json").read_text())["address"]
        with trainer_process(tmp_path / "t", nats_url, address):
            async with fleet(bus, {"run.0.1": {1}, "run.1.0": {0, 1}}):
                run = await master.until(m.RUN_STATE_FINISHED)
        ledger = run.ledger
        assert ledger.dispatched == NUM_ITERATIONS * SAMPLES
        assert (ledger.trained, ledger.dead, ledger.in_flight) == (NUM_ITERATIONS * SAMPLES - 4, 4, 0)
        assert ledger.balanced
        versions = (await master.runs.GetRun(m.GetRunRequest(run_id="run", with_versions=True))).versions
        assert [version.num_samples for version in versions] == [0, SAMPLES - 1, SAMPLES - 3]
        assert [version.metrics.get("num_refused") for version in versions] == [None, 1, 3]
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path / 'm' / 'perilune.db'}", migrate=False) as store:
        reasons = "\n".join(await store.death_reasons("run"))
    assert f"digest {FORGED}, which this trainer never published" in reasons
    assert f"sample {FORGED_TEXT} was graded for another text than that of its tokens" in reasons


async def test_a_fleet_that_is_forged_as_a_whole_ends_the_run_and_says_why(nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path / "m") as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(recipe())
        address = json.loads((tmp_path / "m" / "ready.json").read_text())["address"]
        with trainer_process(tmp_path / "t", nats_url, address):
            async with fleet(bus, {f"run.0.{group}": {0, 1} for group in range(3)}):
                run = await master.until(m.RUN_STATE_FAILED)
    assert "every sample of iteration 0 was refused" in run.reason
    assert f"digest {FORGED}, which this trainer never published" in run.reason
