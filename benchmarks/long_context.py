"""One trajectory of 131,072 tokens through the whole path: segments, messages, database, batch, packing, loss.

    python benchmarks/long_context.py [--length 131072] [--json FILE]     (or benchmarks/rollouts.py --part context)

Seconds and memory of each stage; the peer is the same at an eighth of the length, so that a ratio of 8 is linear. The
model is tiny (one layer, one head of 16). The products of attention grow with the square of the length, so the pass is
timed a second time without attention.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from benchmarks.report import Figure, report
from perilune.api.master.v1.master_pb2 import ScoredGroup
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, Score
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_TRAIN, PolicyVersion, ScoredTrajectory, Segment
from perilune.codec import pack
from perilune.recipe import CreateModel, load_recipe
from services.master.intake import partial_of, scored_of
from services.master.records import Group
from services.master.store import Store
from services.master.tables import SampleState
from services.trainer.batch import Ages, read_group
from services.trainer.learner import Learner
from services.trainer.policy.created import create_policy

LENGTH = 131_072
RECIPE = Path(__file__).parent.parent / "recipes/partial.toml"
TINY = {"hidden_size": 16, "intermediate_size": 32, "num_layers": 1, "num_heads": 1}
MEMORY, MESSAGE, LOSS = "memory taken", "message", "packing, forward and backward pass"
WITHOUT_ATTENTION = f"{LOSS}, without attention"


def measure(length: int = LENGTH) -> dict[str, Figure]:
    """Each length in a process of its own, for its memory."""
    short, long = (
        json.loads(subprocess.check_output([sys.executable, __file__, "--alone", str(tokens)], text=True))
        for tokens in (length // 8, length)
    )
    unit = {MESSAGE: "bytes", MEMORY: "bytes"}
    return {f"{length:,} tokens: {name}": Figure.against(short[name], long[name], unit.get(name, "s")) for name in long}


class Clock:
    """Seconds of stages, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def ended(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self._started = now - self._started, now


async def pass_through(num_tokens: int) -> dict[str, float]:
    """Stage by stage, in seconds; the size of the message and of the memory that was taken, in bytes."""
    torch.set_num_threads(1)
    recipe = load_recipe(RECIPE, ["trainer.segments='all'"])
    model = CreateModel(task="search", max_positions=num_tokens + 8, **TINY)
    learner = Learner(create_policy(model, seed=0), recipe)
    policy = PolicyVersion(number=0, digest="d")
    at_start, clock = max_memory(), Clock()
    scored = scored_pair(num_tokens, policy)
    clock.ended("segments")
    payloads = [each.SerializeToString() for each in scored]
    read = [ScoredTrajectory.FromString(payload) for payload in payloads]
    clock.ended("messages")
    group = await through_the_database(read)
    clock.ended("database")
    batch = [read_group(group, Ages.of(recipe, policy), {"d"})]
    clock.ended("batch")
    learner.train(0, batch)
    clock.ended(LOSS)
    taken = max_memory() - at_start
    leave_attention_out(learner.policy.model)
    learner.train(0, batch)
    clock.ended(WITHOUT_ATTENTION)
    return clock.seconds | {MESSAGE: float(len(payloads[0])), MEMORY: float(taken)}


def scored_pair(num_tokens: int, policy: PolicyVersion) -> list[ScoredTrajectory]:
    """A group of two: one sample as long as the context, in eight segments, and a short one to compare it with."""
    rng = np.random.default_rng(0)
    scored = [ScoredTrajectory(score=Score(status=SCORE_STATUS_OK, value=float(index))) for index in range(2)]
    for index, each in enumerate(scored):
        sample = each.trajectory
        sample.id, sample.group_id, sample.sample_index, sample.purpose = (
            f"run.g/{index}",
            "run.g",
            index,
            PURPOSE_TRAIN,
        )
        sample.prompt_tokens.CopyFrom(pack(np.array([1, 5], np.int32)))
        for piece in np.array_split(rng.integers(4, 40, num_tokens - 2 if index == 0 else 30), 8):
            noise = pack(rng.normal(-1, 0.1, len(piece)).astype(np.float32))
            tokens = pack(piece.astype(np.int32))
            sample.segments.append(Segment(policy=policy, tokens=tokens, logprobs=noise, full_logprobs=noise))
    return scored


async def through_the_database(scored: Sequence[ScoredTrajectory]) -> ScoredGroup:
    """Saved unfinished, sent out again, scored, and read as a batch."""
    with tempfile.TemporaryDirectory() as name:
        async with Store.open(f"sqlite+aiosqlite:///{name}/perilune.db") as store:
            await store.add_run("run", "{}")
            await store.add_groups([Group("run.g", "run", 0, PURPOSE_TRAIN, "", 0, 0, len(scored))])
            unfinished = [each.trajectory for each in scored]
            await store.record_partials([partial_of(each, each.SerializeToString()) for each in unfinished])
            (_, awaited), *_ = await store.open_groups("run", SampleState.PARTIAL)
            await store.mark_continued(awaited)
            for each in unfinished:
                each.round = 1
            await store.record_scores([scored_of(each, each.SerializeToString()) for each in scored])
            await store.close_batch("run", 0, {"run.g": None})
            ((group_id, _, found),) = [row async for row in store.batch("run", 0)]
    return ScoredGroup(group_id=group_id, samples=map(ScoredTrajectory.FromString, found))


def leave_attention_out(model: PreTrainedModel) -> None:
    """Every token from now on attends to itself alone."""
    ALL_ATTENTION_FUNCTIONS.register(
        "itself", lambda module, query, key, value, *_, **__: (value.transpose(1, 2), None)
    )
    model.set_attn_implementation("itself")


def max_memory() -> int:
    """The process's peak memory so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens (default: 131,072)")
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)  # one length, in a process of its own
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(asyncio.run(pass_through(arguments.alone))))
    else:
        report("A long context", measure(arguments.length), arguments.json)


if __name__ == "__main__":
    main()
