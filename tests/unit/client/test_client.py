"""The clients against a real gRPC server that answers as a master would."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from perilune.api.master.v1 import master_pb2 as master
from perilune.api.master.v1.master_pb2_grpc import RunServiceServicer, add_RunServiceServicer_to_server
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_EVALUATE, ScoredTrajectory, Trajectory
from perilune.client import AsyncRunClient, RunClient, grader
from perilune.errors import AlreadyExistsError, InvalidInputError, NotFoundError, StateError, UnavailableError
from perilune.recipe import check_recipe

RECIPE = check_recipe(
    {
        "name": "tiny",
        "model": {"path": "somewhere"},
        "prompts": {"source": "task", "name": "search"},
        "reward": {"graders": [{"name": "exact"}]},
        "trainer": {"num_iterations": 1},
    }
)


class Master(RunServiceServicer):
    """Runs in a dictionary; unavailable for its first `num_refusals` calls."""

    def __init__(self) -> None:
        self.runs: dict[str, master.Run] = {}
        self.requests: list[Any] = []
        self.num_refusals = 0

    def _find(self, request: Any, context: Any) -> master.Run:
        self.requests.append(request)
        if self.num_refusals:
            self.num_refusals -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        if request.run_id not in self.runs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no run {request.run_id!r}")
        return self.runs[request.run_id]

    def SubmitRun(self, request: Any, context: Any) -> master.SubmitRunResponse:
        if request.recipe_json == "{}":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "name: is required and missing")
        if request.run_id in self.runs:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "taken")
        run = master.Run(id=request.run_id or "made", recipe_json=request.recipe_json, iteration=3)
        self.runs[run.id] = run
        return master.SubmitRunResponse(run=run)

    def GetRun(self, request: Any, context: Any) -> master.GetRunResponse:
        versions = [master.Version(num_samples=8)] if request.with_versions else []
        return master.GetRunResponse(run=self._find(request, context), versions=versions)

    def ListRuns(self, request: Any, context: Any) -> master.ListRunsResponse:
        return master.ListRunsResponse(runs=self.runs.values())

    def WatchRun(self, request: Any, context: Any) -> Iterator[master.WatchRunResponse]:
        run = self._find(request, context)
        for iteration in range(3):
            yield master.WatchRunResponse(run=master.Run(id=run.id, iteration=iteration))

    def StopRun(self, request: Any, context: Any) -> master.StopRunResponse:
        run = self._find(request, context)
        if run.state == master.RUN_STATE_STOPPED:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "it has stopped already")
        run.state = master.RUN_STATE_STOPPED
        return master.StopRunResponse(run=run)

    def ResumeRun(self, request: Any, context: Any) -> master.ResumeRunResponse:
        run = self._find(request, context)
        run.state = master.RUN_STATE_PENDING
        return master.ResumeRunResponse(run=run)

    def GetLedger(self, request: Any, context: Any) -> master.GetLedgerResponse:
        self._find(request, context)
        return master.GetLedgerResponse(ledger=master.Ledger(dispatched=8, trained=8, balanced=True))

    def ListSamples(self, request: Any, context: Any) -> master.ListSamplesResponse:
        self._find(request, context)
        samples = [ScoredTrajectory(trajectory=Trajectory(id=f"g/{i}")) for i in range(request.limit)]
        return master.ListSamplesResponse(samples=samples)


@pytest.fixture
def server() -> Iterator[tuple[Master, str]]:
    servicer = Master()
    running = grpc.server(ThreadPoolExecutor(4))
    add_RunServiceServicer_to_server(servicer, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield servicer, f"127.0.0.1:{port}"
    running.stop(None)


@pytest.fixture
def runs(server: tuple[Master, str]) -> Iterator[RunClient]:
    with RunClient(server[1]) as client:
        yield client


@pytest.fixture
async def async_runs(server: tuple[Master, str]) -> AsyncIterator[AsyncRunClient]:
    async with AsyncRunClient(server[1]) as client:
        yield client


def test_a_run_from_submission_to_samples(runs: RunClient, server: tuple[Master, str]) -> None:
    run = runs.submit(RECIPE, run_id="a")
    assert check_recipe(json.loads(run.recipe_json)) == RECIPE
    assert runs.submit(RECIPE.model_dump_json()).id == "made"
    assert [listed.id for listed in runs.list()] == ["a", "made"]
    assert runs.get("a").iteration == 3
    assert [version.num_samples for version in runs.versions("a")] == [8]
    assert [seen.run.iteration for seen in runs.watch("a")] == [0, 1, 2]
    assert runs.stop("a").state == master.RUN_STATE_STOPPED
    assert runs.resume("a").state == master.RUN_STATE_PENDING
    assert runs.ledger("a").balanced
    assert [sample.trajectory.id for sample in runs.samples("a", purpose="evaluate", mode="greedy", limit=2)] == [
        "g/0",
        "g/1",
    ]
    asked = server[0].requests[-1]
    assert (asked.purpose, asked.mode, asked.iteration) == (PURPOSE_EVALUATE, "greedy", 0)


async def test_the_same_with_asyncio(async_runs: AsyncRunClient) -> None:
    assert (await async_runs.submit(RECIPE, run_id="a")).id == "a"
    assert [listed.id for listed in await async_runs.list()] == ["a"]
    assert (await async_runs.get("a")).iteration == 3
    assert [version.num_samples for version in await async_runs.versions("a")] == [8]
    assert [seen.run.iteration async for seen in async_runs.watch("a")] == [0, 1, 2]
    assert (await async_runs.stop("a")).state == master.RUN_STATE_STOPPED
    assert (await async_runs.resume("a")).state == master.RUN_STATE_PENDING
    assert (await async_runs.ledger("a")).balanced
    assert len(await async_runs.samples("a", limit=3)) == 3


async def test_failures_are_perilune_errors(runs: RunClient, async_runs: AsyncRunClient) -> None:
    runs.submit(RECIPE, run_id="a")
    with pytest.raises(NotFoundError, match="no run 'b'"):
        runs.get("b")
    with pytest.raises(NotFoundError, match="no run 'b'"):
        await async_runs.get("b")
    with pytest.raises(NotFoundError, match="no run 'b'"):
        list(runs.watch("b"))
    with pytest.raises(NotFoundError, match="no run 'b'"):
        _ = [seen async for seen in async_runs.watch("b")]
    with pytest.raises(InvalidInputError, match="name: is required"):
        runs.submit("{}")
    with pytest.raises(AlreadyExistsError):
        runs.submit(RECIPE, run_id="a")
    runs.stop("a")
    with pytest.raises(StateError):
        runs.stop("a")


async def test_a_service_that_comes_back_is_tried_again(
    runs: RunClient, async_runs: AsyncRunClient, server: tuple[Master, str]
) -> None:
    runs.submit(RECIPE, run_id="a")
    for attempt in (lambda: runs.get("a").id, lambda: next(runs.watch("a")).run.id):
        server[0].num_refusals = 2
        assert attempt() == "a"
    server[0].num_refusals = 2
    assert (await async_runs.get("a")).id == "a"


@pytest.mark.slow
async def test_a_service_that_stays_away_is_an_error_in_time() -> None:
    start = time.monotonic()
    with RunClient("127.0.0.1:9", deadline_s=2) as runs, pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9"):
        runs.list()
    async with AsyncRunClient("127.0.0.1:9", deadline_s=2) as async_runs:
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9"):
            await async_runs.list()
    assert time.monotonic() - start < 6


def test_a_grader_choice_spells_its_options_as_text() -> None:
    choice = grader("exact", options={"marker": "answer:", "unordered": True})
    assert dict(choice.options) == {"marker": "answer:", "unordered": "True"}
    assert choice.weight == 1.0


def test_the_client_imports_nothing_heavy() -> None:
    heavy = [
        "torch",
        "numpy",
        "nats",
        "sqlalchemy",
        "opentelemetry",
        "transformers",
        "perilune.runtime.service",
        "services",
    ]
    script = f"import sys, perilune.client; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
