"""A run's versions measured by its recipe's `[[evaluate]]`, with a real master and real weights."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import insert

from perilune.api.master.v1.master_pb2 import RunState
from perilune.client import EvaluationClient, RunClient
from perilune.evaluation.following import Follower
from perilune.recipe import CreateModel, Recipe, check_recipe
from services.master.store import Store
from services.master.tables import VersionRow
from services.trainer.policy.created import create_policy
from tests.conftest import start_nats
from tests.web.conftest import start_master

RUN = "followed"
MODEL = {"task": "search", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "max_positions": 128}


def recipe() -> Recipe:
    document: dict[str, Any] = {
        "name": RUN,
        "model": {"create": MODEL},
        "prompts": {"source": "task", "name": "search"},
        "reward": {"graders": [{"name": "exact", "options": {"marker": "answer:"}}]},
        "trainer": {"num_iterations": 3},
        "evaluate": [
            {"task": "search", "limit": 2, "max_tokens": 8, "versions": [1]},
            {"task": "math500=nowhere.jsonl"},
        ],
    }
    return check_recipe(document, RUN)


@dataclass(frozen=True)
class Ended:
    home: Path
    master: str


@pytest_asyncio.fixture
async def ended(tmp_path: Path) -> AsyncIterator[Ended]:
    """A master with a finished run of versions 0 to 3; the weights of 1 are gone."""
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path / 'perilune.db'}") as store:
        await store.add_run(RUN, recipe().model_dump_json())
        await store.set_state(RUN, RunState.RUN_STATE_FINISHED)
        async with store.engine.begin() as db:
            for number in range(4):
                row = {
                    "run_id": RUN, "number": number, "digest": f"digest {number}", "num_samples": 0, "num_tokens": 0,
                    "metrics": {}, "committed_ns": number, "model_path": "", "closed": True, "policy": "policy",
                }  # fmt: skip
                await db.execute(insert(VersionRow).values(row))
    policy = create_policy(CreateModel(**MODEL), seed=0)
    for number in (0, 3):
        folder = tmp_path / RUN / "checkpoints" / f"v{number:06d}"
        folder.mkdir(parents=True)
        policy.save(folder, None)
    nats, nats_url = start_nats(tmp_path)
    master, ready = start_master(tmp_path, nats_url)
    try:
        yield Ended(tmp_path, ready["address"])
    finally:
        for process in (master, nats):
            process.terminate()
            process.wait()


@pytest.mark.slow
async def test_versions_that_are_due_are_measured_and_what_cannot_be_is_said(ended: Ended) -> None:
    said: list[str] = []
    follower = Follower(RUN, ended.home, ended.master, None, said.append)
    failures = dict(await follower.follow())
    assert failures.keys() == {"v1", "v0 math500=nowhere.jsonl", "v3 math500=nowhere.jsonl"}
    assert "are not on this machine" in failures["v1"]
    with EvaluationClient(ended.master) as client, RunClient(ended.master) as runs:
        found = client.list(RUN)
        assert [(each.policy.number, each.policy.digest, each.task) for each in found] == [
            (3, "digest 3", "search"),
            (0, "digest 0", "search"),
        ]
        assert len({each.scores[0].value for each in found}) == 1  # the same weights, greedily: to the digit
        assert runs.get(RUN).ledger.dispatched == 0
    assert not list((ended.home / "evaluations" / "versions").iterdir())
    shutil.rmtree(ended.home / RUN)
    said.clear()
    again = dict(await follower.follow())  # what is recorded needs no weights
    assert "v0 search" not in again
    assert not any("search" in line for line in said)


def test_versions_are_due_by_number() -> None:
    first, last = recipe().evaluate
    assert [number for number in range(4) if first.is_due(number, 3)] == [0, 1, 3]
    assert [number for number in range(4) if last.is_due(number, 3)] == [0, 3]
    every = last.model_copy(update={"every": 2})
    assert [number for number in range(8) if every.is_due(number, 7)] == [0, 2, 4, 6, 7]
