"""The reward API under load: many callers at once, one grader stuck, both faces.

A reward service is started as a process of its own, with a plug-in that never answers. Measured from outside: whether
all of 1,000 requests at one time are answered, and how evenly; how long batches take that have a deadline and some
answers for the stuck grader; what a call costs over gRPC, in batches and over HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles

from benchmarks.report import Figure, report
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, SCORE_STATUS_TIMEOUT, Score
from perilune.client import AsyncRewardClient, score_request
from perilune.grading.plugin import start_grader

NUM_CONCURRENT = 1000
NUM_CALLERS, NUM_BATCHES, BATCH_SIZE, DEADLINE_S = 8, 3, 100, 3.0  # each caller sends one batch after the other
STUCK_EVERY = 10  # one answer in so many is for the grader that is stuck


async def stuck(response: str) -> float:
    """Never answers."""
    await asyncio.sleep(3600)
    return 0.0


@asynccontextmanager
async def service(folder: Path, plugin: str) -> AsyncIterator[tuple[str, str]]:
    """A reward service with the plug-in; gives its two addresses."""
    ready = folder / "ready.json"
    settings = {
        "PERILUNE_SERVE_RUNS": "0",
        "PERILUNE_READY_FILE": str(ready),
        "PERILUNE_HTTP_LISTEN": "127.0.0.1:0",
        "PERILUNE_PLUGINS": json.dumps({"stuck": plugin}),
    }
    command = [sys.executable, "-m", "services.reward"]
    root = Path(__file__).parent.parent
    process = await asyncio.create_subprocess_exec(*command, env=os.environ | settings, cwd=root)
    try:
        while not ready.exists():
            if process.returncode is not None:
                raise SystemExit("the service ended before it was ready; its message is above")
            await asyncio.sleep(0.05)
        facts = json.loads(ready.read_text())
        yield facts["address"], facts["http"]
    finally:
        process.terminate()
        await process.wait()


async def at_once(rewards: AsyncRewardClient) -> tuple[list[float], int]:
    """Seconds of each of many calls made together, and how many did not get the right score."""
    start = time.perf_counter()

    async def call(number: int) -> tuple[float, bool]:
        score = await rewards.score(f"\\boxed{{{number}}}", str(number), ["math"])
        return time.perf_counter() - start, score.status == SCORE_STATUS_OK and score.value == 1.0

    results = await asyncio.gather(*(call(number) for number in range(NUM_CONCURRENT)))
    return [seconds for seconds, _ in results], sum(not right for _, right in results)


async def batches_beside_a_stuck_grader(rewards: AsyncRewardClient) -> tuple[list[float], int, int]:
    """Seconds of each batch, how many of the healthy scores were wrong, and how many of the stuck came as TIMEOUT."""

    async def batch() -> tuple[float, Sequence[Score]]:
        requests = [
            score_request(f"answer: {i}", str(i), ["stuck" if i % STUCK_EVERY == 0 else "numeric"])
            for i in range(BATCH_SIZE)
        ]
        start = time.perf_counter()
        scores = await rewards.score_all(requests, deadline_s=DEADLINE_S)
        return time.perf_counter() - start, scores

    async def call() -> list[tuple[float, Sequence[Score]]]:
        return [await batch() for _ in range(NUM_BATCHES)]

    results = [result for results in await asyncio.gather(*(call() for _ in range(NUM_CALLERS))) for result in results]
    numbered = [pair for _, scores in results for pair in enumerate(scores)]
    num_wrong = sum(i % STUCK_EVERY > 0 and score.value != 1.0 for i, score in numbered)
    num_late = sum(i % STUCK_EVERY == 0 and score.status == SCORE_STATUS_TIMEOUT for i, score in numbered)
    return [seconds for seconds, _ in results], num_wrong, num_late


async def one_batch(rewards: AsyncRewardClient, size: int) -> float:
    """Scores a second in one large batch."""
    requests = [score_request(f"answer: {i}", str(i), ["numeric"]) for i in range(size)]
    start = time.perf_counter()
    await rewards.score_all(requests)
    return size / (time.perf_counter() - start)


def over_http(address: str, count: int) -> float:
    """Scores a second by single calls over HTTP, eight at a time, each on a connection of its own."""
    body = json.dumps({"response": "answer: 4", "reference": "4", "graders": [{"name": "numeric"}]}).encode()

    def call(_: int) -> None:
        request = urllib.request.Request(f"{address}/reward/v1/score", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()

    start = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(count)))
    return count / (time.perf_counter() - start)


async def measure() -> dict[str, Figure]:
    plugin, plugin_address = await start_grader(stuck, "1")
    with tempfile.TemporaryDirectory() as folder:
        async with service(Path(folder), plugin_address) as (address, http), AsyncRewardClient(address, 60) as rewards:
            await one_batch(rewards, 100)  # warm
            together, num_failed = await at_once(rewards)
            batches, num_wrong, num_late = await batches_beside_a_stuck_grader(rewards)
            batched = await one_batch(rewards, 5000)
            single = await asyncio.to_thread(over_http, http, 500)
    await plugin.stop(None)
    return {
        f"{NUM_CONCURRENT} requests at once: not answered rightly": Figure(num_failed, "requests"),
        f"{NUM_CONCURRENT} requests at once: first 1 % answered after": Figure(quantiles(together, n=100)[0], "s"),
        f"{NUM_CONCURRENT} requests at once: 99 % answered after": Figure(quantiles(together, n=100)[98], "s"),
        f"{NUM_CONCURRENT} requests at once: rate": Figure(NUM_CONCURRENT / max(together), "scores/s"),
        f"batches of {BATCH_SIZE} with a stuck grader: deadline": Figure(DEADLINE_S, "s"),
        f"batches of {BATCH_SIZE} with a stuck grader: 99 % there after": Figure(
            quantiles(batches, n=100, method="inclusive")[98], "s"
        ),
        f"batches of {BATCH_SIZE} with a stuck grader: slowest": Figure(max(batches), "s"),
        "healthy scores of those batches that are wrong": Figure(num_wrong, "scores"),
        "stuck scores of those batches that came as TIMEOUT": Figure(
            num_late / (NUM_CALLERS * NUM_BATCHES * BATCH_SIZE // STUCK_EVERY) * 100, "%"
        ),
        "one batch of 5000": Figure(batched, "scores/s"),
        "single calls over HTTP": Figure(single, "scores/s"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    report("The reward API under load", asyncio.run(measure()), arguments.json)


if __name__ == "__main__":
    main()
