"""Long-tailed lengths: what waiting for the longest response costs, and what partial rollouts and asynchrony give back.

    python benchmarks/rollouts.py [--part throughput|pause|context|learning ...] [--seeds 0 1 2] [--json FILE]

throughput  A model is taught to write responses of which nine in ten are short and the tenth is long, and holds most
            tokens. Every score is 0, so that training costs what it costs and changes nothing: lengths stay as they
            are. Trained tokens a second, from the first commit to the last: waiting for all (the peer), partial
            rollouts, and asynchrony on top of them.
pause       A swap of weights while the torch engine decodes: from the last token before it to the first after.
context     One trajectory of up to 131,072 tokens through the message, the database, the batch, the packing and the
            loss of a tiny model: seconds and memory of each stage, at an eighth of that length and at all of it.
learning    The recipes search, partial and asynchronous, on the same seeds and with the same number of samples: sampled
            held-out accuracy in the end, and the lengths of what was generated and of what was trained on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from benchmarks.loop import Outcome, run_recipe
from benchmarks.report import Figure, report
from perilune.api.master.v1.master_pb2 import ScoredGroup
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, Score
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_TRAIN, PolicyVersion, ScoredTrajectory, Segment
from perilune.codec import pack
from perilune.recipe import Recipe, check_recipe, load_recipe
from services.master.tables import SampleState

PARTS = ["throughput", "pause", "context", "learning"]
REPOSITORY = Path(__file__).parent.parent
MAX_TOKENS = 768
MEAN_SHORT, MEAN_LONG, LONG_SHARE = 8, 600, 0.1
BUDGET = 96
NUM_ITERATIONS = 14
MODES: dict[str, dict[str, Any]] = {
    "waiting for all": {},
    "partial": {"budget_tokens": BUDGET, "max_staleness": 10},
    "asynchronous": {"max_staleness": 4, "asynchronous": True},
}


def long_tailed(folder: Path, mode: str, num_iterations: int) -> Recipe:
    """The recipe of one contestant; they differ in nothing but [rollout] and which segments are trained on."""
    traces = folder / "traces.jsonl"
    if not traces.exists():
        write_traces(traces, 4000)
    return check_recipe(
        {
            "name": "long-tailed",
            "model": {
                "create": {
                    "task": "search",
                    "hidden_size": 64,
                    "intermediate_size": 128,
                    "num_layers": 2,
                    "num_heads": 2,
                    "max_positions": 1024,
                }
            },
            "warmup": {"path": str(traces), "num_steps": 150, "batch_size": 32, "learning_rate": 3e-3},
            "prompts": {"source": "task", "name": "search", "num_heldout": 8},
            "rollout": {"prompts_per_iteration": 16, "max_tokens": MAX_TOKENS, "max_running": 256} | MODES[mode],
            "reward": {"graders": [{"name": "exact", "options": {"marker": "answer:"}}]},
            "trainer": {
                "num_iterations": num_iterations,
                "segments": "current" if mode == "waiting for all" else "all",
                "checkpoint_every": 100,
                "num_threads": 1,
            },
            "evaluation": {"num_problems": 1, "modes": ["greedy"]},
        }
    )


def write_traces(path: Path, num_examples: int) -> None:
    """The first word says whether a response is of the long kind; from then on each word may be the last."""
    rng = Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(num_examples):
            kind, mean = ("high", MEAN_LONG) if rng.random() < LONG_SHARE else ("low", MEAN_SHORT)
            length = min(MAX_TOKENS - 8, 1 + int(rng.expovariate(1 / mean)))
            words = [kind, *(str(rng.randint(1, 15)) for _ in range(length))]
            file.write(json.dumps({"question": "which ?", "response": " ".join(words)}) + "\n")


def trained_rate(outcome: Outcome) -> float:
    """Tokens in the loss a second, from version 0 to the last."""
    seconds = (outcome.versions[-1].time_unix_ns - outcome.versions[0].time_unix_ns) / 1e9
    return sum(version.metrics["num_loss_tokens"] for version in outcome.versions[1:]) / seconds


def measure_throughput(folder: Path, num_iterations: int) -> dict[str, Figure]:
    figures, rates, peer = {}, {}, 0.0
    for mode in MODES:
        outcome = asyncio.run(run_recipe(long_tailed(folder, mode, num_iterations), folder / mode.replace(" ", "-")))
        rates[mode] = trained_rate(outcome)
        peer = peer or rates[mode]
        last = outcome.versions[-1].metrics
        figures[f"{mode}: trained tokens/s"] = Figure.against(peer, rates[mode], "tokens/s")
        figures[f"{mode}: mean length of what was generated"] = Figure(last["generated_length_mean"], "tokens")
        figures[f"{mode}: nine in ten are no longer than"] = Figure(last["generated_length_p90"], "tokens")
        oldest = max(version.metrics.get("staleness_max", 0.0) for version in outcome.versions[1:])
        figures[f"{mode}: oldest token trained on"] = Figure(oldest, "versions")
        figures[f"{mode}: ledger balanced"] = Figure(float(outcome.run.ledger.balanced), "1 = yes")
        report(f"Long-tailed lengths: {mode}", figures)
    on_top = Figure.against(rates["partial"], rates["asynchronous"], "tokens/s")
    return figures | {"asynchronous, against partial": on_top}


def measure_pause(num_swaps: int = 12, period_s: float = 1.0, num_samples: int = 256) -> dict[str, Figure]:
    """With as many samples running as the default recipe has, and their contexts half full."""
    import torch

    from perilune.weights import manifest_of
    from services.rollout.engines.base import Sample, Sampling
    from services.rollout.engines.torch_engine import TorchEngine
    from services.trainer.model import make_policy
    from services.trainer.publisher import raw_tensors

    torch.set_num_threads(1)
    recipe = load_recipe(REPOSITORY / "recipes/asynchronous.toml", ["model.create.max_positions=4096"])
    policy = make_policy(recipe)
    tensors = raw_tensors(policy.model, torch.float32)
    engine = TorchEngine(policy.small_files, manifest_of(0, tensors).version, tensors, lambda _: None, 256, 1 << 31)
    prompt = policy.tokenizer("which two of 3 4 10 12 15 make 7 ?", return_tensors="np")["input_ids"][0]
    samples = [Sample(f"s{n}", prompt.astype("int32"), 4000, Sampling(), seed=1, index=n) for n in range(num_samples)]
    engine.submit(samples)
    wait_for_tokens(engine, num_samples * 36)
    pauses = []
    for number in range(1, num_swaps + 1):
        time.sleep(period_s)
        before = time.perf_counter()
        engine.load(manifest_of(number, tensors).version, tensors).result()
        wait_for_tokens(engine, engine.capacity().num_generated_tokens + 1)
        pauses.append(time.perf_counter() - before)
    engine.close()
    return {
        "a swap in mid-generation, median": Figure(statistics.median(pauses), "s"),
        "a swap in mid-generation, longest": Figure(max(pauses), "s"),
    }


def wait_for_tokens(engine: Any, num_tokens: int) -> None:
    while engine.capacity().num_generated_tokens < num_tokens:
        time.sleep(0.0002)


def measure_context(lengths: tuple[int, int] = (16_384, 131_072)) -> dict[str, Figure]:
    """Each length in a process of its own, for its memory."""
    short, long = (
        json.loads(subprocess.check_output([sys.executable, __file__, "--context", str(length)], text=True))
        for length in lengths
    )
    unit = {"message": "bytes", "memory": "bytes more than at the start"}
    return {
        f"{lengths[1]:,} tokens, {stage}": Figure.against(short[stage], long[stage], unit.get(stage, "s"))
        for stage in long
    }


async def pass_through(num_tokens: int) -> dict[str, float]:
    """Stage by stage, in seconds; the size of the message and of the memory that was taken, in bytes."""
    import torch

    from perilune.recipe import CreateModel
    from services.master.intake import partial_of, scored_of
    from services.master.store import Group, Store
    from services.trainer.batch import Ages, read_group
    from services.trainer.learner import Learner
    from services.trainer.model import create_policy

    torch.set_num_threads(1)
    recipe = load_recipe(REPOSITORY / "recipes/partial.toml", ["trainer.segments='all'"])
    table = {"task": "search", "hidden_size": 16, "intermediate_size": 32, "num_layers": 1, "num_heads": 1}
    learner = Learner(create_policy(CreateModel.model_validate(table | {"max_positions": num_tokens + 8}), 0), recipe)
    policy = PolicyVersion(number=0, digest="d")
    seconds: dict[str, float] = {}
    started, at_start = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def ended(stage: str) -> None:
        nonlocal started
        seconds[stage] = time.perf_counter() - started
        started = time.perf_counter()

    scored = scored_pair(num_tokens, policy)
    ended("segments")
    payloads = [each.SerializeToString() for each in scored]
    read = [ScoredTrajectory.FromString(payload) for payload in payloads]
    ended("messages")
    with tempfile.TemporaryDirectory() as name:
        async with Store.open(f"sqlite+aiosqlite:///{name}/perilune.db") as store:
            await store.add_run("run", "{}")
            await store.add_groups([Group("g", "run", 0, PURPOSE_TRAIN, "", 0, 0, 2)])
            started = time.perf_counter()
            await store.record_partials(
                [partial_of(each.trajectory, each.trajectory.SerializeToString()) for each in read]
            )
            (_, awaited), *_ = await store.open_groups("run", SampleState.PARTIAL)
            await store.mark_continued(awaited)
            for each in read:
                each.trajectory.round = 1
            await store.record_scores([scored_of(each, each.SerializeToString()) for each in read])
            await store.close_batch("run", 0, {"g": None})
            groups = [
                ScoredGroup(group_id=key, samples=map(ScoredTrajectory.FromString, found))
                async for key, _, found in store.batch("run", 0)
            ]
            ended("store")
    batch = [read_group(group, Ages.of(recipe, policy), {"d"}) for group in groups]
    ended("batch")
    learner.train(0, batch)
    ended("packing, forward and backward pass")
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - at_start
    return seconds | {"message": float(len(payloads[0])), "memory": taken * 1024.0}


def scored_pair(num_tokens: int, policy: PolicyVersion) -> list[ScoredTrajectory]:
    """A group of two: one sample as long as the context, in eight segments, and a short one to compare it with."""
    rng = np.random.default_rng(0)
    scored = [ScoredTrajectory(score=Score(status=SCORE_STATUS_OK, value=float(index))) for index in range(2)]
    for index, each in enumerate(scored):
        sample = each.trajectory
        sample.id, sample.group_id, sample.sample_index, sample.purpose = f"g/{index}", "g", index, PURPOSE_TRAIN
        sample.prompt_tokens.CopyFrom(pack(np.array([1, 5], np.int32)))
        for piece in np.array_split(rng.integers(4, 40, num_tokens - 2 if index == 0 else 30), 8):
            noise = pack(rng.normal(-1, 0.1, len(piece)).astype(np.float32))
            tokens = pack(piece.astype(np.int32))
            sample.segments.append(Segment(policy=policy, tokens=tokens, logprobs=noise, full_logprobs=noise))
    return scored


def measure_learning(folder: Path, seeds: list[int]) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for seed in seeds:
        peer = 0.0
        for name in ("search", "partial", "asynchronous"):
            recipe = load_recipe(REPOSITORY / f"recipes/{name}.toml", [f"seed={seed}", "evaluation.every=30"])
            outcome = asyncio.run(run_recipe(recipe, folder / f"{name}-{seed}"))
            accuracy, last = outcome.accuracy("sampled", -1), outcome.versions[-1].metrics
            peer = peer or accuracy
            figures[f"seed {seed}, {name}: sampled accuracy"] = Figure.against(peer, accuracy, "share")
            for what in ("mean", "p90"):
                figures[f"seed {seed}, {name}: length trained on, {what}, against generated"] = Figure.against(
                    last[f"generated_length_{what}"], last[f"trained_length_{what}"], "tokens"
                )
            report(f"Learning, seed {seed}", figures)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--iterations", type=int, default=NUM_ITERATIONS, help="of each contestant in throughput")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--context", type=int, help=argparse.SUPPRESS)  # one length, in a process of its own
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.context:
        print(json.dumps(asyncio.run(pass_through(arguments.context))))
        return
    parts, figures = arguments.part or PARTS, {}
    with tempfile.TemporaryDirectory(prefix="perilune-bench-") as name:
        if "throughput" in parts:
            figures |= measure_throughput(Path(name), arguments.iterations)
        if "pause" in parts:
            figures |= measure_pause()
        if "context" in parts:
            figures |= measure_context()
        if "learning" in parts:
            figures |= measure_learning(Path(name), arguments.seeds)
    report("Rollouts", figures, arguments.json)


if __name__ == "__main__":
    main()
