"""A trainer of two ranks among all other services: one of them is killed, and the run goes on to its end."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from perilune.api.trajectory.v1.trajectory_pb2 import ScoredTrajectory
from tests.e2e.launcher import Launched, launch

NUM_ITERATIONS, NUM_PROMPTS = 4, 8
QUICK = [
    "recipes/search.toml",
    *("--set", "stages.0.num_steps=200"),
    *("--set", f"trainer.num_iterations={NUM_ITERATIONS}"),
    *("--set", "trainer.checkpoint_every=2"),
    *("--set", f"rollout.prompts_per_iteration={NUM_PROMPTS}"),
    *("--set", "evaluation.num_problems=10"),
    *("--rollouts", "2", "--no-view", "--json"),
]


def other_rank(launched: Launched) -> int:
    """The process beside the first rank's, which torchrun started too."""
    first = launched.pid_of("trainer")
    torchrun = json.loads((launched.home / "services" / "trainer.json").read_text())["parent"]
    children = Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()
    (other,) = [int(child) for child in children if int(child) != first]
    return other


@pytest.mark.timeout(1200)
async def test_a_rank_that_is_killed_costs_nothing_but_time(tmp_path: Path) -> None:
    launched = await launch(tmp_path, "train", *QUICK, "--trainer-ranks", "2", "--name", "ranks")
    await launched.until_version("ranks", 2)
    os.kill(other_rank(launched), signal.SIGKILL)
    run = await launched.end()
    assert run["state"] == "finished"
    ledger = run["ledger"]
    assert ledger["balanced"]
    assert ledger["dispatched"] == ledger["trained"] == NUM_ITERATIONS * NUM_PROMPTS * 8
    assert ledger["in_flight"] == ledger["dead"] == ledger["stale"] == 0

    log = (tmp_path / "logs" / "trainer.log").read_text()
    assert log.count("trainer-1-rank-1 answers at") == log.count("trainer-1.2-rank-1 answers at") == 1
    assert "trainer-1.3" not in log
    # Every sample was drawn with what both ranks' parts made: nobody else knows the digest of all of them, and the
    # engines' log-probabilities are the trainer's.
    digests = {(version["version"], version["digest"]) for version in run["versions"]}
    assert len({digest for _, digest in digests}) == NUM_ITERATIONS + 1
    assert drawn_with(tmp_path / "perilune.db") == {pair for pair in digests if pair[0] < NUM_ITERATIONS}
    assert all(version["metrics"]["engine_gap"] < 1e-3 for version in run["versions"][1:])


def drawn_with(database: Path) -> set[tuple[int, str]]:
    """Number and digest of the versions that wrote what was trained on."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        payloads = db.execute("SELECT payload FROM samples WHERE state = 'trained'").fetchall()
    segments = [
        segment for (payload,) in payloads for segment in ScoredTrajectory.FromString(payload).trajectory.segments
    ]
    return {(segment.policy.number, segment.policy.digest) for segment in segments}
