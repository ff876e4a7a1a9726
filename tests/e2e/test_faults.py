"""What may die in mid-run; how a run stops and resumes. The model is barely warmed up: the ledger is what counts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.launcher import SMALL, Launched, command, launch

NUM_ITERATIONS = 6
QUICK = [
    "recipes/search.toml",
    *SMALL,
    *("--set", "stages.0.num_steps=60"),
    *("--set", f"trainer.num_iterations={NUM_ITERATIONS}"),
    *("--set", "rollout.prompts_per_iteration=16"),
    *("--set", "rollout.group_size=4"),
    *("--set", "evaluation.num_problems=20"),
    *("--rollouts", "1", "--no-view", "--json"),
]
NUM_SAMPLES = NUM_ITERATIONS * 16 * 4


async def quick_run(home: Path, *arguments: str, **environment: str) -> Launched:
    return await launch(home, "train", *QUICK, "--name", "quick", *arguments, **environment)


FAULTS = ["--faults", "6", "--seed", "1097", "--longest", "3", "--rollouts", "1"]  # six kinds


@pytest.mark.ci
def test_faults_of_many_kinds_cost_nothing_but_time(tmp_path: Path) -> None:
    recipe = [argument for argument in QUICK if argument not in ("--no-view", "--rollouts", "1")]
    status, said = perilune("chaos", *recipe, *FAULTS, "--home", str(tmp_path), PERILUNE_SPARE="1")
    assert status == 0, said
    report = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert report["is_well"]
    assert (report["num_lost"], report["num_twice"], report["num_too_old"], report["num_hung"]) == (0, 0, 0, 0)
    assert [fault["number"] for fault in report["faults"]] == [1, 2, 3, 4, 5, 6]
    num_runs = len(report["runs"])
    assert report["num_samples"] == num_runs * (NUM_SAMPLES + 3 * 40)  # evaluated at 0, 5 and 6, in two modes


@pytest.mark.timeout(1200)
async def test_ctrl_c_stops_cleanly_a_killed_launcher_leaves_nothing_running_and_both_are_resumed(
    tmp_path: Path,
) -> None:
    launched = await quick_run(tmp_path)
    await launched.until_version("quick", 1)
    launched.process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(launched.process.communicate(), 60)
    assert launched.process.returncode == 130
    assert "perilune run resume quick" in err.decode()

    resumed = await launch(tmp_path, "run", "resume", "quick", "--no-view", "--json")
    await resumed.until_version("quick", 3)
    resumed.process.kill()
    await resumed.process.wait()

    run = await (await launch(tmp_path, "run", "resume", "quick", "--no-view", "--json")).end()
    assert run["state"] == "finished"
    assert [version["version"] for version in run["versions"]] == list(range(NUM_ITERATIONS + 1))
    assert run["ledger"]["balanced"]
    assert run["ledger"]["dispatched"] == NUM_SAMPLES == run["ledger"]["trained"]
    await nothing_runs_in(tmp_path)


async def nothing_runs_in(home: Path) -> None:
    for _ in range(50):
        found = await asyncio.to_thread(subprocess.run, ["pgrep", "-f", str(home)], stdout=subprocess.PIPE, text=True)
        if not found.stdout.strip():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"still running: {found.stdout}")


def perilune(*arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        command(*arguments), env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_missing_model_fails_the_run_with_what_to_do(tmp_path: Path) -> None:
    recipe = tmp_path / "missing.toml"
    recipe.write_text(
        'name = "missing"\nmodel.path = "/nowhere/at-all"\n'
        'prompts = { source = "task", name = "search" }\n'
        'reward.graders = [{ name = "exact" }]\ntrainer.num_iterations = 1\n'
    )
    status, said = perilune("train", str(recipe), "--home", str(tmp_path / "runs"), "--no-view")
    assert status == 1
    assert "/nowhere/at-all" in said
    assert "Traceback" not in said


def test_a_misspelt_grader_fails_the_run_with_the_nearest_name(tmp_path: Path) -> None:
    overrides = [argument for argument in QUICK if argument != "--json"]
    overrides += ["--set", 'reward.graders=[{name="exakt"}]', "--home", str(tmp_path)]
    status, said = perilune("train", *overrides)
    assert status == 1
    assert "exact" in said.replace("exakt", "")


def test_a_wrong_recipe_is_refused_before_anything_starts(tmp_path: Path) -> None:
    status, said = perilune(
        "train", "recipes/search.toml", "--set", "trainer.objective.taw=1", "--home", str(tmp_path / "runs")
    )
    assert status == 1
    assert "trainer.objective.taw: no such key; did you mean 'tau'?" in said
    assert not (tmp_path / "runs").exists()


def test_a_port_in_use_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, said = perilune("serve", "reward", "--listen", address, "--home", str(tmp_path))
    assert status == 2
    assert f"cannot listen on {address}" in said


def test_a_missing_nats_server_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    status, said = perilune("serve", "master", "--nats", "nats://127.0.0.1:1", "--home", str(tmp_path))
    assert status == 1
    assert "no NATS server answers at nats://127.0.0.1:1: " in said
    assert "start one (`perilune serve nats`)" in said
