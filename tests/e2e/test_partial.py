"""Partial trajectories while services are killed: every sample is trained on once, and no token is lost or doubled."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from perilune.api.trajectory.v1.trajectory_pb2 import ScoredTrajectory
from perilune.codec import num_response_tokens, unpack
from tests.e2e.launcher import SMALL, launch

NUM_ITERATIONS = 6
QUICK = [
    "recipes/partial.toml",
    *SMALL,
    *("--set", "stages.0.num_steps=60"),
    *("--set", f"trainer.num_iterations={NUM_ITERATIONS}"),
    *("--set", "rollout.prompts_per_iteration=16"),
    *("--set", "rollout.budget_tokens=6"),
    *("--set", "evaluation.num_problems=20"),
    *("--rollouts", "2", "--no-view", "--json"),
]


@pytest.mark.timeout(1200)
async def test_kills_in_the_middle_of_partial_trajectories_cost_nothing_but_time(tmp_path: Path) -> None:
    launched = await launch(tmp_path, "train", *QUICK, "--name", "partial")
    await launched.until_version("partial", 2)
    launched.kill_9("rollout-1")
    await launched.until_version("partial", 4)
    launched.kill_9("master")
    run = await launched.end()
    assert run["state"] == "finished"
    ledger = run["ledger"]
    assert ledger["balanced"]
    assert ledger["dispatched"] == ledger["trained"] == NUM_ITERATIONS * 16 * 8
    assert ledger["in_flight"] == ledger["dead"] == ledger["stale"] == 0

    samples = trained_samples(tmp_path / "perilune.db")
    assert len(samples) == NUM_ITERATIONS * 16 * 8
    # What the trainer says it trained on is what the database holds of these samples.
    batches = Counter[int]()
    for batch, sample in samples:
        batches[batch] += num_response_tokens(sample.trajectory)
    assert {v["version"] - 1: v["num_tokens"] for v in run["versions"][1:]} == batches
    carried = 0
    for batch, sample in samples:
        versions = [segment.policy.number for segment in sample.trajectory.segments]
        assert versions == sorted(versions)
        assert batch - min(versions) <= 3  # rollout.max_staleness
        carried += len(set(versions)) > 1
        assert all(len(unpack(s.tokens)) == len(unpack(s.logprobs)) for s in sample.trajectory.segments)
    assert carried > 100  # else it says nothing


def trained_samples(database: Path) -> list[tuple[int, ScoredTrajectory]]:
    query = "SELECT groups.batch, payload FROM samples JOIN groups ON groups.id = group_id WHERE state = 'trained'"
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        return [(batch, ScoredTrajectory.FromString(payload)) for batch, payload in db.execute(query)]
