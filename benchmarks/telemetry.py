"""The cost of traces and metrics for an iteration: the same run with and without an endpoint to send them to, in turns.

    python benchmarks/deploy.py --part telemetry

Every service of recipes/search.toml as a process on this machine; what is compared is CPU seconds of all services and
time on the clock, for each iteration after the second. Traces and metrics go over gRPC to a sink in this process, whose
own work is not counted. The peer is the run that exports nothing.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.report import Figure
from perilune.client import AsyncRunClient
from perilune.local.cluster import LocalCluster, local_cluster
from perilune.recipe import load_recipe

RECIPE = Path(__file__).parent.parent / "recipes" / "search.toml"
NUM_PAIRS, FIRST = 2, 2  # versions before FIRST are not counted: processes are still warming up
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Sink(grpc.GenericRpcHandler):
    """Takes whatever is exported, and counts it."""

    def __init__(self) -> None:
        self.num_bytes = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._take)

    def _take(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.num_bytes += len(request)
        return b""


@contextmanager
def sink() -> Iterator[tuple[Sink, str]]:
    handler, server = Sink(), grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"http://127.0.0.1:{port}"
    server.stop(None)


@dataclass(frozen=True)
class Cost:
    """The cost of one iteration, on average."""

    cpu_s: float
    clock_s: float


def measure(num_iterations: int) -> dict[str, Figure]:
    """Medians over runs, with and without in turns."""
    disabled, exporting = [], []
    with sink() as (taken, endpoint):
        for number in range(NUM_PAIRS):
            order = [("", disabled), (endpoint, exporting)]
            for where, costs in order if number % 2 == 0 else reversed(order):
                costs.append(asyncio.run(_run(num_iterations, where)))
        exported = taken.num_bytes / NUM_PAIRS / num_iterations

    def compare(field: str) -> Figure:
        off, on = (statistics.median(getattr(cost, field) for cost in costs) for costs in (disabled, exporting))
        return Figure.against(off, on, "s")

    return {
        "an iteration, CPU seconds of all services": compare("cpu_s"),
        "an iteration, on the clock": compare("clock_s"),
        "exported by an iteration": Figure(exported / 1e3, "kB"),
    }


async def _run(num_iterations: int, endpoint: str) -> Cost:
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint  # for the services, which inherit it
    overrides = [
        f"trainer.num_iterations={num_iterations}",
        "stages.0.num_steps=100",
        "rollout.prompts_per_iteration=32",
        "evaluation.every=1000",
    ]
    recipe = load_recipe(str(RECIPE), overrides)
    with tempfile.TemporaryDirectory() as home:
        async with (
            local_cluster(Path(home), 1, 1, lambda notice: None) as cluster,
            AsyncRunClient(cluster.master_address) as client,
        ):
            await client.submit(recipe, "run")
            return await cluster.run(_follow(cluster, client, num_iterations))


async def _follow(cluster: LocalCluster, client: AsyncRunClient, num_iterations: int) -> Cost:
    started = None
    async for snapshot in client.watch("run"):
        number = snapshot.run.policy.number
        if started is None and number >= FIRST:
            started = (number, _cpu_s(cluster), time.monotonic())
        if number == num_iterations:
            break
    assert started, "the run ended before it began"
    first, cpu_s, clock_s = started
    count = num_iterations - first
    return Cost((_cpu_s(cluster) - cpu_s) / count, (time.monotonic() - clock_s) / count)


def _cpu_s(cluster: LocalCluster) -> float:
    """User and system time of every service, all threads."""
    total = 0
    for pid in cluster.pids.values():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S
