"""Long rollouts: what waiting for the longest response costs, and what partial rollouts and asynchrony give back.

    python benchmarks/rollouts.py [--part throughput|pause|context|learning|quantized] [--home FOLDER] [--json FILE]

throughput  A model is taught to write responses of which nine in ten are short and the tenth is long, and holds most
            tokens. Every score is 0, so that training costs what it costs and changes nothing: lengths stay as they
            are. Trained tokens a second, from the first commit to the last: waiting for all (the peer), partial
            rollouts, and asynchrony on top of them, with the same bound on age.
pause       The torch engine while it decodes: the time without a token when a version is swapped in, and what
            generation loses by it, as shares of the time between versions of `recipes/asynchronous.toml`; with contexts
            recomputed, and with contexts kept.
context     See `benchmarks/long_context.py`: one trajectory of 131,072 tokens.
learning    The same model learns to search in the three ways, and in the third with contexts kept at a swap, from the
            same seeds and on as many samples: sampled held-out accuracy in the end (the peer: waiting for all), and the
            lengths of what was trained on against those of what was generated (the last batch is not yet among them).
quantized   The same, with rollouts whose weights are rounded to int8: without a correction and with `adaptive`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from benchmarks import long_context
from benchmarks.loop import RunResult, run_recipe
from benchmarks.report import Figure, report
from perilune.api.master.v1.master_pb2 import WatchRunResponse
from perilune.recipe import Recipe, TorchEngineTable, check_recipe, load_recipe
from perilune.weights import manifest_of
from services.rollout.engines import make_engine
from services.rollout.engines.base import EngineSpec, SampleRequest, Sampling
from services.trainer.policy.sources import make_policy
from services.trainer.versions.snapshot import raw_tensors

RECIPES = Path(__file__).parent.parent / "recipes"
WAITING, PARTIAL, ASYNCHRONOUS = "waiting for all", "partial", "asynchronous"
KEEPING = "asynchronous, contexts kept"


def ran(recipe: Recipe, folder: Path) -> RunResult:
    """Runs the recipe in the folder, or reads what a run there left."""
    kept = folder / "outcome"
    if not kept.exists():
        outcome = asyncio.run(run_recipe(recipe, folder))
        kept.write_bytes(WatchRunResponse(run=outcome.run, versions=outcome.versions).SerializeToString())
    found = WatchRunResponse.FromString(kept.read_bytes())
    return RunResult(found.run, list(found.versions), polls=[], wall_seconds=0.0)


def warmed_up(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The recipe with a model that has its warm-up behind it, so that all contestants begin with the same one."""
    trainer = document["trainer"] | {"num_iterations": 0}
    outcome = ran(check_recipe(document | {"trainer": trainer}), folder)
    started = {"model": {"path": str(folder / outcome.run.id / "checkpoints" / "v000000")}}
    return {key: table for key, table in document.items() if key != "stages"} | started


def with_tables(document: dict[str, Any], **tables: dict[str, Any]) -> Recipe:
    """The recipe with some tables' keys overruled."""
    return check_recipe(document | {name: document[name] | table for name, table in tables.items()})


# --- Throughput ---------------------------------------------------------------------------------------------------

MAX_TOKENS = 768
MEAN_SHORT, MEAN_LONG, LONG_SHARE = 8, 600, 0.1
MAX_AGE = 10  # versions
LONG_TAILED = {
    WAITING: {"rollout": {}, "trainer": {}},
    PARTIAL: {"rollout": {"budget_tokens": 96, "max_staleness": MAX_AGE}, "trainer": {"segments": "all"}},
    ASYNCHRONOUS: {"rollout": {"asynchronous": True, "max_staleness": MAX_AGE}, "trainer": {"segments": "all"}},
}


def write_traces(path: Path, num_examples: int = 8000) -> None:
    """Responses of small numbers are short and those of large ones long; after each word the end is equally likely."""
    rng = Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(num_examples):
            numbers, mean = ((8, 15), MEAN_LONG) if rng.random() < LONG_SHARE else ((1, 7), MEAN_SHORT)
            length = min(MAX_TOKENS - 8, 1 + int(rng.expovariate(1 / mean)))
            words = [str(rng.randint(*numbers)) for _ in range(length)]
            file.write(json.dumps({"question": "which ?", "response": " ".join(words)}) + "\n")


def long_tailed(traces: Path, num_iterations: int) -> dict[str, Any]:
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_layers": 2, "num_heads": 2, "max_positions": 1024}
    return {
        "name": "long-tailed",
        "model": {"create": {"task": "search"} | shape},
        "stages": [{"type": "sft", "path": [str(traces)], "num_steps": 250, "batch_size": 32, "learning_rate": 3e-3}],
        "prompts": {"source": "task", "name": "search", "num_heldout": 1},
        "rollout": {"prompts_per_iteration": 16, "max_tokens": MAX_TOKENS, "max_running": 256},
        "reward": {"graders": [{"name": "exact", "options": {"marker": "answer:"}}]},
        "trainer": {"num_iterations": num_iterations, "checkpoint_every": 100, "num_threads": 1},
        "evaluation": {"num_problems": 1, "modes": ["greedy"]},
    }


def trained_rate(outcome: RunResult) -> float:
    """Tokens in the loss a second, from version 0 to the last."""
    seconds = (outcome.versions[-1].time_unix_ns - outcome.versions[0].time_unix_ns) / 1e9
    return sum(version.metrics["num_loss_tokens"] for version in outcome.versions[1:]) / seconds


def measure_throughput(folder: Path, arguments: argparse.Namespace) -> dict[str, Figure]:
    """The contestants take turns; of their rates the medians count."""
    write_traces(folder / "traces.jsonl")
    document = warmed_up(long_tailed(folder / "traces.jsonl", arguments.iterations), folder / "warm-up")
    figures: dict[str, Figure] = {}
    rates: dict[str, list[float]] = {mode: [] for mode in LONG_TAILED}
    for number in range(arguments.rounds):
        for mode, tables in LONG_TAILED.items():
            outcome = ran(with_tables(document, **tables), folder / f"{mode}-{number}")
            rates[mode].append(trained_rate(outcome))
            print(f"round {number + 1}, {mode}: {rates[mode][-1]:,.0f} trained tokens/s", flush=True)
            figures |= lengths_and_ages(mode, outcome)
    medians = {mode: statistics.median(found) for mode, found in rates.items()}
    for mode, rate in medians.items():
        figures[f"{mode}: trained tokens/s"] = Figure.against(medians[WAITING], rate, "tokens/s")
    on_top = Figure.against(medians[PARTIAL], medians[ASYNCHRONOUS], "tokens/s")
    return figures | {"asynchronous, against partial": on_top}


def lengths_and_ages(mode: str, outcome: RunResult) -> dict[str, Figure]:
    last = outcome.versions[-1].metrics
    oldest = max(version.metrics.get("staleness_max", 0.0) for version in outcome.versions[1:])
    return {
        f"{mode}: mean length of what was generated": Figure(last["generated_length_mean"], "tokens"),
        f"{mode}: nine in ten are no longer than": Figure(last["generated_length_p90"], "tokens"),
        f"{mode}: oldest token trained on": Figure(oldest, "versions"),
        f"{mode}: ledger balanced": Figure(float(outcome.run.ledger.balanced), "1 = yes"),
    }


# --- Learning -----------------------------------------------------------------------------------------------------

CORRECTED = {"segments": "all", "objective": {"correction": "decoupled"}}
LEARNING = {
    WAITING: {"rollout": {}, "trainer": {}},
    PARTIAL: {"rollout": {"budget_tokens": 24, "max_staleness": 3}, "trainer": CORRECTED},
    ASYNCHRONOUS: {"rollout": {"asynchronous": True, "max_staleness": 2}, "trainer": CORRECTED},
    KEEPING: {
        "rollout": {"asynchronous": True, "max_staleness": 2, "engine": {"context_at_swap": "keep"}},
        "trainer": CORRECTED,
    },
}
QUANTIZED = {
    "as it is": {"rollout": {}, "trainer": {}},
    "int8, uncorrected": {"rollout": {"engine": {"quantization": "int8"}}, "trainer": {}},
    "int8, adaptive": {
        "rollout": {"engine": {"quantization": "int8"}},
        "trainer": {"segments": "all", "objective": {"correction": "adaptive"}},
    },
}


def small_search(seed: int) -> dict[str, Any]:
    """The default recipe, with less of everything."""
    document = tomllib.loads((RECIPES / "search.toml").read_text(encoding="utf-8"))
    return document | {
        "seed": seed,
        "stages": [document["stages"][0] | {"num_steps": 900}],
        "rollout": document["rollout"] | {"prompts_per_iteration": 32},
        "trainer": document["trainer"] | {"num_iterations": 12, "checkpoint_every": 100, "num_threads": 1},
        "evaluation": {"num_problems": 500, "modes": ["sampled"]},
    }


def measure_learning(folder: Path, arguments: argparse.Namespace) -> dict[str, Figure]:
    return compare_learning(LEARNING, folder, arguments.seeds)


def measure_quantized(folder: Path, arguments: argparse.Namespace) -> dict[str, Figure]:
    return compare_learning(QUANTIZED, folder, arguments.seeds)


def compare_learning(
    contestants: dict[str, dict[str, dict[str, Any]]], folder: Path, seeds: list[int]
) -> dict[str, Figure]:
    """Against the first of them, seed by seed, and over all seeds."""
    figures: dict[str, Figure] = {}
    accuracies: dict[str, list[float]] = {name: [] for name in contestants}
    first = next(iter(contestants))
    for seed in seeds:
        document = warmed_up(small_search(seed), folder / f"warm-up-{seed}")
        for name, tables in contestants.items():
            outcome = ran(with_tables(document, **tables), folder / f"{name}-{seed}")
            accuracies[name].append(outcome.accuracy("sampled", -1))
            print(
                f"seed {seed}, {name}: {outcome.accuracy('sampled', 0):.3f} -> {accuracies[name][-1]:.3f}", flush=True
            )
            figures |= what_it_learnt(f"seed {seed}, {name}", outcome, accuracies[first][-1])
    for name, found in accuracies.items():
        mean = Figure.against(statistics.fmean(accuracies[first]), statistics.fmean(found), "share")
        figures[f"{name}: sampled accuracy, mean of the seeds"] = mean
    return figures


def what_it_learnt(name: str, outcome: RunResult, peer: float) -> dict[str, Figure]:
    trained = [version.metrics for version in outcome.versions[1:]]
    figures = {
        f"{name}: sampled accuracy": Figure.against(peer, outcome.accuracy("sampled", -1), "share"),
        f"{name}: tokens trained on": Figure(sum(each["num_loss_tokens"] for each in trained), "tokens"),
        f"{name}: oldest token": Figure(max(each["staleness_max"] for each in trained), "versions"),
        f"{name}: engine's log-probabilities off by up to": Figure(max(each["engine_gap"] for each in trained), "nats"),
    }
    if "effective_share" in trained[-1]:
        share = statistics.fmean(each["effective_share"] for each in trained)
        figures[f"{name}: effective share of the tokens"] = Figure(share, "share")
    for what in ("mean", "p90"):
        lengths = trained[-1][f"generated_length_{what}"], trained[-1][f"trained_length_{what}"]
        figures[f"{name}: length trained on, {what}, against generated"] = Figure.against(*lengths, "tokens")
    return figures


# --- The pause of a swap ------------------------------------------------------------------------------------------

NUM_SAMPLES, NUM_SWAPS, HALF_FULL = 256, 12, 36


def measure_pause(folder: Path, arguments: argparse.Namespace) -> dict[str, Figure]:
    """Against the time between versions in the same run."""
    path, short = RECIPES / "asynchronous.toml", ["trainer.num_iterations=10", "stages.0.num_steps=600"]
    versions = ran(load_recipe(path, [*short, "evaluation.num_problems=50"]), folder / "asynchronous").versions[1:]
    between_s = statistics.median(b.time_unix_ns - a.time_unix_ns for a, b in pairwise(versions)) / 1e9
    figures = {"time between versions": Figure(between_s, "s")}
    # The watched samples must not end: their contexts may be longer than the recipe's.
    recipe = load_recipe(path, ["model.create.max_positions=4096"])
    contestants = {"contexts recomputed": TorchEngineTable(), "contexts kept": TorchEngineTable(context_at_swap="keep")}
    for name, options in contestants.items():
        steps, silences, losses = zip(*swap_while_decoding(recipe, options), strict=True)
        figures |= {
            f"{name}: between two tokens of a sample, usually": Figure(statistics.median(steps), "s"),
            f"{name}: no token at all at a swap": Figure.against(between_s, statistics.median(silences), "s"),
            f"{name}: generation lost by a swap": Figure.against(between_s, statistics.median(losses), "s"),
        }
    return figures


def swap_while_decoding(recipe: Recipe, options: TorchEngineTable) -> list[tuple[float, float, float]]:
    """Each swap, in seconds: a usual step, the time without any token, and what was lost until all samples went on.

    As many samples as one engine of the default recipe has, their contexts half as long as they get there.
    """
    torch.set_num_threads(1)
    policy = make_policy(recipe)
    tensors = raw_tensors(policy.model, torch.float32)
    version, newer = manifest_of(0, tensors).version, manifest_of(1, tensors).version
    prompt = policy.tokenizer("which two of 3 4 10 12 15 make 7 ?", return_tensors="np")["input_ids"][0].astype("int32")
    swaps = []
    for number in range(NUM_SWAPS):
        times: list[float] = []  # of each token

        def watch(span: object, times: list[float] = times) -> None:
            times.append(time.perf_counter())

        spec = EngineSpec(policy.model_files, version, tensors, lambda _: None, NUM_SAMPLES, 1 << 31, options)
        engine = make_engine(spec)
        engine.submit(
            [
                SampleRequest(f"s{index}", prompt, 4000, Sampling(), seed=number, index=index, watch=watch)
                for index in range(NUM_SAMPLES)
            ]
        )
        wait_for_tokens(times, NUM_SAMPLES * HALF_FULL)
        num_before = len(times)
        engine.load(newer, tensors).result()
        while engine.capacity().num_waiting:
            time.sleep(0.001)
        wait_for_tokens(times, len(times) + NUM_SAMPLES)
        engine.close()
        token_s = (times[num_before - 1] - times[num_before // 2]) / (num_before - 1 - num_before // 2)
        after = np.array(times[num_before - 1 :])
        lost_s = after[-1] - after[0] - (len(after) - 1) * token_s
        swaps.append((token_s * NUM_SAMPLES, float(np.diff(after).max()), lost_s))
    return swaps


def wait_for_tokens(times: list[float], num_tokens: int) -> None:
    while len(times) < num_tokens:
        time.sleep(0.001)


PARTS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Figure]]] = {
    "throughput": measure_throughput,
    "pause": measure_pause,
    "context": lambda folder, arguments: long_context.measure(),
    "learning": measure_learning,
    "quantized": measure_quantized,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--iterations", type=int, default=20, help="of each contestant in throughput")
    parser.add_argument("--rounds", type=int, default=1, help="of throughput")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of learning and quantized")
    parser.add_argument("--home", type=Path, help="keep the runs here; one that has ended here is not run again")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(prefix="perilune-bench-") as name:
        for part in arguments.part or PARTS:
            folder = (arguments.home or Path(name)).resolve() / part
            folder.mkdir(parents=True, exist_ok=True)
            figures |= PARTS[part](folder, arguments)
    report("Rollouts", figures, arguments.json)


if __name__ == "__main__":
    main()
