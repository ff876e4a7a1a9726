"""Reward models in kind (k1.5 §2.3.5): a value head against a judge that reasons, on the same labelled answers.

    python benchmarks/reward_models.py [--seed N ...] [--json FILE]

The question is always the same: five digits of which no two make the reference. A response is right or not whatever
other right ones there are, so it has to be checked: ten sums. A value head has one forward pass for that; a judge tries
the pairs one after another. Both start from the same small model with random weights and learn from the same answers. A
value head reads fewer tokens, so it has a second training of as many passes as the judge's CPU time buys.

Everything is measured on answers that no training saw, through the product: the value head is served as a plug-in, the
judge by the torch engine behind the OpenAI-compatible endpoint, and the reward service asks both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from random import Random

# One thread each: CPU seconds are compared.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers.utils.logging import disable_progress_bar

from benchmarks.report import Figure, report
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, GraderChoice
from perilune.grading.labelled_answers import Agreement, LabelledAnswer, agreement
from perilune.grading.plugin import start_grader
from perilune.runtime.service import Service
from services.reward.graders.grader import GradingSample
from services.reward.plugins import plugged_in
from services.reward.processes import Processes
from services.reward.scoring import read_choices, score
from services.rollout import standalone
from services.trainer.policy.model import Policy
from services.trainer.reward_models.classic import RewardModel, opening_of
from services.trainer.reward_models.judges import judge_examples
from services.trainer.reward_models.plan import Plan
from services.trainer.reward_models.server import Batches, grader_of
from services.trainer.reward_models.small import SmallSize, small_policy
from services.trainer.reward_models.training import train_classic, train_judge

NUM_DIGITS = 5
HELD_OUT_IN = 10  # one answer in ten, by its content
SIZE = SmallSize(hidden_size=128, intermediate_size=256, num_layers=2, num_heads=4, max_positions=192)
BATCH_SIZE = 32
RATE = 3e-3
PROMPT = "bare"


# --- The answers --------------------------------------------------------------------------------------------------


def labelled_answer(seed: int, index: int, *, held_out: bool = False) -> LabelledAnswer:
    """Answer `index` of the endless set `seed`, half of them right; those held out and the others never meet, for any
    two seeds."""
    rng = Random(f"{seed}/{index}")
    correct = rng.random() < 0.5
    while True:
        digits, total = rng.sample(range(10), NUM_DIGITS), rng.randint(3, 15)
        avoids = all(a + b != total for a, b in combinations(digits, 2))
        content = f"{sorted(digits)} {total}"
        if avoids == correct and (zlib.crc32(content.encode()) % HELD_OUT_IN == 0) == held_out:
            response = " ".join(map(str, digits))
            return LabelledAnswer(
                reference=f"{total:02}", response=response, correct=correct, reasoning=reasoning(digits, total)
            )


def reasoning(digits: Sequence[int], total: int) -> str:
    """The sums of the pairs in order, and how each compares with the total; the first that is equal ends it.

    >>> reasoning([3, 8, 1], 9)
    '3+8=11> 3+1=04< 8+1=09!'
    """
    steps = []
    for a, b in combinations(digits, 2):
        steps.append(f"{a}+{b}={a + b:02}{'!' if a + b == total else '<' if a + b < total else '>'}")
        if a + b == total:
            break
    return " ".join(steps)


# --- Training -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A model in its folder, and what it took."""

    folder: Path
    num_parameters: int
    cpu_s: float
    num_passes: float


def small_model(rows: list[LabelledAnswer], seed: int) -> Policy:
    """The model that both kinds start from: the same weights, and a vocabulary for either's texts."""
    replies = [text for prompt, reply in judge_examples(rows, PROMPT, seed) for text in (prompt[-1]["content"], reply)]
    return small_policy([*replies, *(opening_of(row.question, row.reference) for row in rows)], seed, SIZE)


def classic(rows: list[LabelledAnswer], seed: int, num_passes: float, folder: Path) -> Trained:
    model = RewardModel(small_model(rows, seed), SIZE.max_positions)
    plan = Plan(num_passes, BATCH_SIZE, RATE, seed=seed)
    cpu_s = cpu_seconds(lambda: train_classic(model, rows, plan, progress(f"value head, seed {seed}")))
    model.save(folder, {})
    return Trained(folder, sum(parameter.numel() for parameter in model.parameters()), cpu_s, num_passes)


def judge(rows: list[LabelledAnswer], seed: int, num_passes: float, folder: Path) -> Trained:
    policy, examples = small_model(rows, seed), judge_examples(rows, PROMPT, seed)
    plan = Plan(num_passes, BATCH_SIZE, RATE, seed=seed)
    cpu_s = cpu_seconds(lambda: train_judge(policy, examples, plan, progress(f"judge, seed {seed}")))
    policy.save(folder)
    return Trained(folder, sum(parameter.numel() for parameter in policy.model.parameters()), cpu_s, num_passes)


def cpu_seconds(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def progress(name: str) -> Callable[[int, float], None]:
    def on_step(step: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"{name}: step {step}, loss {loss:.3f}", flush=True)

    return on_step


# --- Asking them, as the reward service does ----------------------------------------------------------------------


async def measure_classic(trained: Trained, rows: list[LabelledAnswer]) -> Agreement:
    model = RewardModel.load(trained.folder)
    with Batches(model.probabilities, max_batch=64, max_waiting=len(rows)) as batches:
        work = asyncio.create_task(batches.work())
        server, address = await start_grader(grader_of(batches), "1", name="value-head")
        async with plugged_in({"value-head": address}):
            found = await grade_all(GraderChoice(name="value-head", options={"threshold": ""}), rows)
        await server.stop(None)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    return found


async def measure_judge(trained: Trained, rows: list[LabelledAnswer], votes: int) -> Agreement:
    async with served(trained.folder) as url:
        os.environ |= {"PERILUNE_JUDGE_URL": url, "PERILUNE_JUDGE_MODEL": "judge", "PERILUNE_JUDGE_PROMPT": PROMPT}
        os.environ["PERILUNE_JUDGE_MAX_TOKENS"] = "120"
        return await grade_all(GraderChoice(name="judge", options={"votes": str(votes)}), rows)


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[str]:
    settings = standalone.StandaloneSettings(model=str(folder), model_name="judge", http_listen="127.0.0.1:0")
    service = Service("model", settings)
    running = asyncio.create_task(standalone.run(service))
    try:
        while not service.http_address:
            assert not running.done(), running.exception()
            await asyncio.sleep(0.05)
        yield f"{service.http_address}/v1"
    finally:
        service.stopping.set()
        await running
        await service.server.stop(None)


async def grade_all(grader: GraderChoice, rows: list[LabelledAnswer]) -> Agreement:
    choices, room = read_choices([grader]), asyncio.Semaphore(64)

    async def value_of(row: LabelledAnswer) -> float | None:
        async with room:
            found = await score(GradingSample(row.question, row.reference, row.response), choices, processes)
        return found.value if found.status == SCORE_STATUS_OK else None

    with Processes(1, 5.0, 1 << 30) as processes:
        values = await asyncio.gather(*map(value_of, rows))
    return agreement(values, [row.correct for row in rows])


# --- The comparison -----------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, action="append", help="may be given often; 1 if not given")
    parser.add_argument("--num-rows", type=int, default=24_000, help="labelled answers to train on")
    parser.add_argument("--passes", type=float, default=1.0, help="over them")
    parser.add_argument("--num-heldout", type=int, default=500, help="answers to measure on")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    disable_progress_bar()
    torch.set_num_threads(1)
    figures: dict[str, Figure] = {}
    for seed in arguments.seed or [1]:
        figures |= dict(compare(seed, arguments.num_rows, arguments.num_heldout, arguments.passes))
    report("Reward models on held-out answers, one thread", figures, arguments.json)


def compare(seed: int, num_rows: int, num_heldout: int, num_passes: float) -> Iterator[tuple[str, Figure]]:
    rows = [labelled_answer(seed, index) for index in range(num_rows)]
    heldout = [labelled_answer(seed, index, held_out=True) for index in range(num_heldout)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reasoning_one = judge(rows, seed, num_passes, folder / "judge")
        judged = asyncio.run(measure_judge(reasoning_one, heldout, votes=1))
        same_passes = classic(rows, seed, num_passes, folder / "same passes")
        more = max(num_passes, num_passes * reasoning_one.cpu_s / same_passes.cpu_s)
        same_cpu = classic(rows, seed, more, folder / "same cpu")
        for label, trained in (("value head, as many passes", same_passes), ("value head, as much CPU time", same_cpu)):
            found = asyncio.run(measure_classic(trained, heldout))
            yield from _figures(f"seed {seed}: {label}", trained, found)
            yield f"seed {seed}: {label}: calibration error", Figure(found.calibration_error, "")
    yield from _figures(f"seed {seed}: judge", reasoning_one, judged)
    yield f"seed {seed}: judge: without a verdict", Figure(judged.num_without, f"of {judged.num_rows}")


def _figures(name: str, trained: Trained, found: Agreement) -> Iterator[tuple[str, Figure]]:
    yield f"{name}: right", Figure(100 * found.accuracy, f"% of {found.num_rows}")
    yield f"{name}: false positives", Figure(found.num_false_positives, f"of {found.num_rows}")
    yield f"{name}: training", Figure(trained.cpu_s, "CPU s")
    yield f"{name}: passes", Figure(trained.num_passes, "")
    yield f"{name}: parameters", Figure(trained.num_parameters, "")


if __name__ == "__main__":
    main()
