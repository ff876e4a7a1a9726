"""The whole loop: does it learn, what do the services cost, and how long does TRL take for the same.

    python benchmarks/loop.py [--seeds 0 1 2] [--json FILE]

For each seed the default recipe runs through all real services. The peer of "after" is "before": the same model
before reinforcement learning. The services' overhead is the wall time from the first commit to the last in which
neither an engine nor the trainer was at work, as a share of that time. TRL's GRPOTrainer starts from the same version 0
of the last seed, with the same prompts, batch and token limit; its clock stops while it evaluates, ours does not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Figure, report
from perilune.api.master.v1.master_pb2 import RUN_STATE_FINISHED, Run, Version
from perilune.api.rollout.v1.rollout_pb2 import GetStatusRequest
from perilune.api.rollout.v1.rollout_pb2_grpc import RolloutServiceStub
from perilune.client import AsyncRunClient
from perilune.local.cluster import local_cluster
from perilune.recipe import Recipe, load_recipe
from perilune.runtime.service import open_channel

REPOSITORY = Path(__file__).parent.parent
TARGET = 0.8


@dataclass(frozen=True)
class Poll:
    """The engines' figures at one moment between the first commit and the last."""

    time_unix_ns: int
    busy_seconds: dict[str, float]  # by worker


@dataclass(frozen=True)
class RunResult:
    """The result of one run."""

    run: Run
    versions: list[Version]
    polls: list[Poll]  # the first one after each commit that was seen
    wall_seconds: float  # from starting the services to the end of the run

    def accuracy(self, mode: str, which: int) -> float:
        return [e.accuracy for e in self.run.evaluations if e.mode == mode][which]

    @property
    def overhead(self) -> float:
        """Share of the wall time between the first poll and the last in which neither sampling nor training went on."""
        first, last = self.polls[0], self.polls[-1]
        wall = (last.time_unix_ns - first.time_unix_ns) / 1e9
        sampling = max(last.busy_seconds[w] - first.busy_seconds[w] for w in first.busy_seconds)
        window = range(first.time_unix_ns, last.time_unix_ns)
        training = sum(v.metrics["train_seconds"] for v in self.versions[1:] if v.time_unix_ns in window)
        return 1 - (training + sampling) / wall

    def seconds_to(self, accuracy: float) -> float | None:
        """From version 0 to the first evaluated version that reaches it, our own evaluations included."""
        reached = [e for e in self.run.evaluations if e.mode == "sampled" and e.accuracy >= accuracy]
        if not reached:
            return None
        return (self.versions[reached[0].policy.number].time_unix_ns - self.versions[0].time_unix_ns) / 1e9


async def run_recipe(recipe: Recipe, home: Path) -> RunResult:
    started = time.perf_counter()
    polls = []
    async with local_cluster(home) as cluster, AsyncRunClient(cluster.master_address) as client:
        run = await client.submit(recipe)
        async for answer in client.watch(run.id):
            run = answer.run
            if answer.versions and 0 < run.iteration < run.num_iterations:
                workers = [worker.address for worker in answer.fleet if worker.kind == "rollout"]
                polls.append(await poll(workers, run.id))
        versions = list(await client.versions(run.id))
    if run.state != RUN_STATE_FINISHED:
        raise SystemExit(f"the run failed: {run.reason}")
    return RunResult(run, versions, polls, time.perf_counter() - started)


async def poll(addresses: list[str], run_id: str) -> Poll:
    busy = {}
    for address in addresses:
        async with open_channel(address) as channel:
            status = await RolloutServiceStub(channel).GetStatus(GetStatusRequest())
        busy[address] = next((s.busy_seconds for s in status.runs if s.run_id == run_id), 0.0)
    return Poll(time.time_ns(), busy)


def run_trl(recipe: Recipe, model: Path, max_seconds: float) -> float | None:
    """Seconds that TRL needs to the target; None if it does not get there in time."""
    job = {
        "model": str(model),
        "task": recipe.prompts.name,
        "seed": recipe.seed,
        "num_train": recipe.prompts.num_train,
        "num_heldout": recipe.evaluation.num_problems,
        "prompts_per_iteration": recipe.rollout.prompts_per_iteration,
        "group_size": recipe.rollout.group_size,
        "steps_per_iteration": recipe.trainer.steps_per_iteration,
        "max_tokens": recipe.rollout.max_tokens,
        "max_iterations": 400,
        "learning_rate": recipe.trainer.learning_rate,
        "evaluate_every": recipe.evaluation.every,
        "target": TARGET,
        "max_seconds": max_seconds,
        "threads": 2,
    }
    with tempfile.TemporaryDirectory(prefix="perilune-trl-") as folder:
        measurements = Path(folder) / "measurements.jsonl"
        job |= {"output": folder, "measurements": str(measurements)}
        peer = [sys.executable, str(REPOSITORY / "benchmarks/peers/trl_grpo.py")]
        subprocess.run(peer, input=json.dumps(job), text=True, check=True, cwd=REPOSITORY)
        rows = [json.loads(line) for line in measurements.read_text().splitlines()]
    for row in rows:
        print(f"TRL  iteration {row['iteration']:3}  {row['seconds']:6.1f} s  sampled {row['accuracy']:.3f}")
    return next((row["seconds"] for row in rows if row["accuracy"] >= TARGET), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=REPOSITORY / "recipes/search.toml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--no-trl", action="store_true", help="leave out the comparison with TRL")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(prefix="perilune-loop-") as folder:
        for seed in arguments.seeds:
            home = Path(folder) / f"seed-{seed}"
            recipe = load_recipe(arguments.recipe, [f"seed={seed}"])
            outcome = asyncio.run(run_recipe(recipe, home))
            for mode in ("sampled", "greedy"):
                before, after = outcome.accuracy(mode, 0), outcome.accuracy(mode, -1)
                figures[f"seed {seed}: {mode} accuracy after RL"] = Figure.against(before, after, "share")
            figures[f"seed {seed}: wall time"] = Figure(outcome.wall_seconds, "s")
            figures[f"seed {seed}: services' overhead"] = Figure(outcome.overhead, "share of an iteration")
            figures[f"seed {seed}: ledger balanced"] = Figure(float(outcome.run.ledger.balanced), "1 = yes")
            report(f"The loop, seed {seed}", figures)
        if not arguments.no_trl:
            figures |= compare_with_trl(recipe, outcome, home / outcome.run.id / "checkpoints" / "v000000")
    report("The loop", figures, arguments.json)


def compare_with_trl(recipe: Recipe, outcome: RunResult, start: Path) -> dict[str, Figure]:
    """Both clocks start with version 0."""
    ours = outcome.seconds_to(TARGET)
    if ours is None:
        raise SystemExit(f"our own run did not reach {TARGET}")
    limit = 4 * ours + 30
    peer = run_trl(recipe, start, limit)
    if peer is None:
        print(f"TRL did not reach {TARGET:.0%} within {limit:.0f} s of training; the ratio is an upper bound")
    return {f"time to {TARGET:.0%} held-out accuracy, against TRL": Figure.against(peer or limit, ours, "s")}


if __name__ == "__main__":
    main()
