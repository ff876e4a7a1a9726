"""The main job, shortened: every service, a real model that really learns, two workers killed on the way."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.e2e.launcher import command, launch

# Two of the default recipe's three layers, a third of its warm-up and an eighth of its reinforcement learning, measured
# before and after it.
NUM_ITERATIONS, NUM_PROMPTS, NUM_PROBLEMS = 5, 48, 300
SHORT = [
    *("--set", "model.create.num_layers=2"),
    *("--set", "stages.0.num_steps=400"),
    *("--set", f"trainer.num_iterations={NUM_ITERATIONS}"),
    *("--set", f"rollout.prompts_per_iteration={NUM_PROMPTS}"),
    *("--set", f"evaluation.every={NUM_ITERATIONS}"),
    *("--set", f"evaluation.num_problems={NUM_PROBLEMS}"),
    *("--no-view", "--json"),
]


@pytest.mark.timeout(1200)
async def test_a_short_run_learns_although_workers_are_killed(tmp_path: Path) -> None:
    home = tmp_path / "runs"
    launched = await launch(home, "train", "recipes/search.toml", "--name", "learns", "--rollouts", "2", *SHORT)
    await launched.until_version("learns", 2)
    launched.kill_9("rollout-1")
    await launched.until_version("learns", 4)
    launched.kill_9("reward-1")
    run = await launched.end()

    assert run["state"] == "finished"
    before, after = measured(run, "sampled", 0), measured(run, "sampled", NUM_ITERATIONS)
    assert before["num_problems"] == after["num_problems"] == NUM_PROBLEMS
    assert before["accuracy"] <= 0.45
    assert after["accuracy"] >= before["accuracy"] + 0.25
    assert after["low"] > before["high"]
    assert measured(run, "greedy", NUM_ITERATIONS)["low"] > measured(run, "greedy", 0)["high"]
    assert [version["version"] for version in run["versions"]] == list(range(NUM_ITERATIONS + 1))
    ledger = run["ledger"]
    assert ledger["balanced"]
    assert ledger["dispatched"] == NUM_ITERATIONS * NUM_PROMPTS * 8 == ledger["trained"]
    assert ledger["in_flight"] == 0

    await the_run_is_shown_afterwards(home, run)
    the_weights_load(Path(run["model_path"]))
    assert (home / "learns" / "curves.png").stat().st_size > 10_000


def measured(run: dict[str, Any], mode: str, version: int) -> dict[str, Any]:
    (found,) = (e for e in run["evaluations"] if e["mode"] == mode and e["version"] == version)
    return found


async def the_run_is_shown_afterwards(home: Path, run: dict[str, Any]) -> None:
    """By `run show` and `ledger`, with no service running."""
    arguments = (["run", "show", "learns", "--json"], ["ledger", "learns", "--json"])
    show, ledger = [
        await asyncio.to_thread(subprocess.check_output, command(*a, "--home", str(home)), text=True) for a in arguments
    ]
    assert json.loads(show) == run
    assert json.loads(ledger) == run["ledger"]


def the_weights_load(path: Path) -> None:
    """In Hugging Face's layout, and they still solve a problem whose answer the first try finds."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    chat = [{"role": "user", "content": "which two of 3 4 10 12 15 make 7 ?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(**prompt, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer == "3 + 4 = 7 yes answer: 3 4"
