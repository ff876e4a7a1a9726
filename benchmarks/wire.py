"""A finished sample's way through the bus: bytes and processor time that the reward service and the master spend on it.

The peer is the former form, measured in the same run: the whole trajectory goes to the reward service, and comes back
with its score. Both go through a real NATS server, the reward worker's own loop (grader `exact`) and the master's
intake with SQLite; each in a process of its own, whose processor time is counted from its first message to its last.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.report import Figure, report
from perilune.api.reward.v1.reward_pb2 import GraderChoice
from perilune.api.trajectory.v1.trajectory_pb2 import ENDING_STOP, PURPOSE_TRAIN, Prompt, Segment, Trajectory
from perilune.codec import pack
from perilune.ids import GroupId, SampleId, StageId
from perilune.runtime.bus import Bus
from perilune.runtime.subjects import MASTER_CONSUMER, REWARD_CONSUMER, Consumer, finished_subject
from perilune.runtime.wholes import text_of
from services.master.intake import take_scores
from services.master.records import Group
from services.master.store import Store
from services.reward.processes import Processes
from services.reward.worker import work
from tests.conftest import start_nats

RUN = "run"
GROUP = str(GroupId(RUN, 0, 0))
CHARS_A_TOKEN = 4


def measure(num_samples: int, num_tokens: int) -> dict[str, Figure]:
    """Returns what one sample costs each service, beside the former form."""
    former, present = (_one_form(num_samples, num_tokens, is_former) for is_former in (True, False))
    unit = {name: "ms" if "processor" in name else "bytes" for name in present}
    return {name: Figure.against(former[name], present[name], unit[name]) for name in present}


def _one_form(num_samples: int, num_tokens: int, is_former: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        server, url = start_nats(Path(folder))
        with server:
            try:
                asyncio.run(_publish(url, num_samples, num_tokens, is_former))
                costs = {stage: _in_a_process(stage, url, num_samples, folder) for stage in ("reward", "master")}
            finally:
                server.kill()
    return {f"{stage}: {name}": cost for stage, each in costs.items() for name, cost in each.items()}


def _in_a_process(stage: str, url: str, num_samples: int, folder: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.wire", "--stage", stage, "--url", url, "--folder", folder]
    return json.loads(subprocess.check_output([*command, "--samples", str(num_samples)], text=True))


async def _publish(url: str, num_samples: int, num_tokens: int, is_former: bool) -> None:
    """As a rollout worker does, or did."""
    async with Bus.connect(url, "rollout") as bus:
        await bus.declare()
        for index in range(num_samples):
            sample = _sample(index, num_tokens)
            message = sample if is_former else text_of(sample, await bus.keep_whole(sample))
            message_id = StageId(SampleId(GROUP, index), "finished", 0)
            await bus.publish(finished_subject(RUN), message, str(message_id))


def _sample(index: int, num_tokens: int) -> Trajectory:
    random = np.random.default_rng(index)
    logprobs = pack(random.standard_normal(num_tokens, dtype=np.float32))
    tokens = pack(random.integers(0, 50_000, num_tokens, dtype=np.int32))
    return Trajectory(
        id=str(SampleId(GROUP, index)),
        run_id=RUN,
        group_id=GROUP,
        sample_index=index,
        purpose=PURPOSE_TRAIN,
        prompt=Prompt(id="p", reference="4"),
        prompt_tokens=pack(np.arange(100, dtype=np.int32)),
        segments=[Segment(tokens=tokens, logprobs=logprobs, full_logprobs=logprobs)],
        ending=ENDING_STOP,
        response="w" * (CHARS_A_TOKEN * num_tokens - 1) + "4",
        graders=[GraderChoice(name="exact")],
    )


async def _stage(stage: str, url: str, num_samples: int, folder: Path) -> dict[str, float]:
    async with Bus.connect(url, stage) as bus:
        if stage == "reward":
            with Processes(1, 5.0, 1 << 30) as processes:
                return await _cost(bus, work(bus, processes, 64, 60.0), REWARD_CONSUMER, num_samples)
        async with Store.open(f"sqlite+aiosqlite:///{folder}/wire.db") as store:
            await store.add_run(RUN, "{}")
            await store.add_groups([Group(GROUP, RUN, 0, PURPOSE_TRAIN, "", 0, 0, num_samples)])
            return await _cost(bus, take_scores(bus, store, lambda run_id: None), MASTER_CONSUMER, num_samples)


async def _cost(bus: Bus, task: Coroutine[Any, Any, None], consumer: Consumer, num_samples: int) -> dict[str, float]:
    started, before = time.process_time(), dict(bus.traffic)
    working = asyncio.create_task(task)
    while await bus.num_unfinished(consumer):
        await asyncio.sleep(0.1)
    spent, after = time.process_time() - started, bus.traffic
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return {
        "bytes read a sample": (after["in_bytes"] - before["in_bytes"]) / num_samples,
        "bytes sent a sample": (after["out_bytes"] - before["out_bytes"]) / num_samples,
        "processor time a sample": 1000 * spent / num_samples,
    }


def main(
    samples: int = 200,
    tokens: Annotated[int, typer.Option(help="Response tokens of each sample.")] = 131_072,
    json_path: Annotated[Path | None, typer.Option("--json")] = None,
    stage: Annotated[str, typer.Option(hidden=True)] = "",
    url: Annotated[str, typer.Option(hidden=True)] = "",
    folder: Annotated[Path, typer.Option(hidden=True)] = Path(),
) -> None:
    if stage:
        print(json.dumps(asyncio.run(_stage(stage, url, samples, folder))))
    else:
        report(f"{samples} samples of {tokens:,} tokens", measure(samples, tokens), json_path)


if __name__ == "__main__":
    typer.run(main)
