"""The trainer as a process, between a NATS server, a master that hands out two batches, and a rollout worker's eyes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import Popen

import grpc
from transformers import AutoModelForCausalLM

from perilune.api.master.v1 import master_pb2 as pb
from perilune.api.master.v1.master_pb2_grpc import TrainingServiceServicer, add_TrainingServiceServicer_to_server
from perilune.api.trajectory.v1.trajectory_pb2 import Event, PolicyVersion
from perilune.api.weights.v1.weights_pb2 import SubscribeRequest
from perilune.api.weights.v1.weights_pb2_grpc import WeightServiceStub
from perilune.recipe import Recipe
from perilune.runtime.bus import Bus
from perilune.runtime.service import open_channel
from perilune.runtime.subjects import EVENT_CONSUMER
from perilune.weights import Stage
from services.trainer.stages.progress import ProgressFile
from services.trainer.versions.origin import origin_of
from tests.unit.trainer.messages import batch
from tests.unit.trainer.models import recipe

PATIENCE_S = 180
NUM_ITERATIONS = 3


class Master(TrainingServiceServicer):
    """As much of a master as the trainer sees: one run, its batches, and what was committed."""

    def __init__(self, document: Recipe, hold_at: int | None = None) -> None:
        self.document = document
        self.hold_at = hold_at  # the batch of this iteration is not complete yet
        self.trainer_address = ""
        self.committed: list[pb.CommitVersionRequest] = []
        self.failure: str | None = None
        self.requested: list[int] = []
        self.changed = asyncio.Event()
        self.stop = asyncio.Event()
        self.num_leases = 0

    def _policy(self) -> PolicyVersion | None:
        return self.committed[-1].version.policy if self.committed else None

    def _note(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def until(self, condition) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await self.changed.wait()

    @property
    def ended(self) -> bool:
        return self.failure is not None or len(self.committed) > NUM_ITERATIONS

    async def AcquireRun(self, request, context):
        self.trainer_address = request.weights_address
        self.num_leases += 1
        if not self.ended:
            assignment = pb.Assignment(
                run_id="run", recipe_json=self.document.model_dump_json(), committed=self._policy()
            )
            yield pb.AcquireRunResponse(assignment=assignment)
            await self.stop.wait()
            self.stop.clear()
            yield pb.AcquireRunResponse(stop=pb.Stop(reason="asked to"))
        self._note()
        await asyncio.sleep(3600)

    async def GetBatch(self, request, context):
        self.requested.append(request.iteration)
        self._note()
        if request.iteration == self.hold_at:
            await asyncio.sleep(3600)
        for group in batch(request.iteration, self.committed[request.iteration].version.policy):
            yield pb.GetBatchResponse(groups=[group])

    async def CommitVersion(self, request, context):
        number = request.version.policy.number
        if number == len(self.committed) - 1:  # whoever takes the run over says once more what it serves
            assert request.version.policy == self.committed[-1].version.policy
            return pb.CommitVersionResponse(finished=self.ended)
        if number != len(self.committed):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not the next version")
        self.committed.append(request)
        self._note()
        return pb.CommitVersionResponse(finished=self.ended)

    async def FailRun(self, request, context):
        self.failure = request.reason
        self._note()
        return pb.FailRunResponse()


@asynccontextmanager
async def serving(master: Master) -> AsyncIterator[str]:
    server = grpc.aio.server()
    add_TrainingServiceServicer_to_server(master, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@contextmanager
def trainer_process(home: Path, nats_url: str, master_address: str) -> Iterator[Popen[bytes]]:
    environment = os.environ | {
        "PERILUNE_HOME": str(home),
        "PERILUNE_NATS_URL": nats_url,
        "PERILUNE_MASTER_ADDRESS": master_address,
        "PERILUNE_EXIT_WITH_PARENT": "1",
    }
    process = Popen([sys.executable, "-m", "services.trainer"], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def short_recipe(**trainer: object) -> Recipe:
    warmup = {"type": "warmup", "task": "search", "num_steps": 60, "batch_size": 32, "learning_rate": 1e-2}
    warmup |= {"checkpoint_every": 20}
    return recipe(
        stages=[warmup],
        rollout={"temperature": 0.9},  # at which the batches' tokens say what they were drawn with
        num_iterations=NUM_ITERATIONS,
        num_threads=1,
        steps_per_iteration=2,
        **trainer,
    )


async def test_a_run_from_warm_up_to_its_last_version(tmp_path: Path, nats_url: str, bus: Bus) -> None:
    """Meanwhile the lease is stopped once, and the process killed in the middle of a stage and between two versions:
    the versions stay those of one straight run."""
    master = Master(short_recipe())
    async with serving(master) as address:
        with trainer_process(tmp_path / "straight", nats_url, address) as process:
            await master.until(lambda: master.ended)
            newest = await _newest(master.trainer_address)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 20) == 0

    last = master.committed[-1]
    assert newest.version == last.version.policy
    assert last.version.num_samples == 12
    assert last.version.metrics["reward"] == 0.25
    assert master.committed[0].version.metrics["warmup_loss"] < 3.5
    assert AutoModelForCausalLM.from_pretrained(last.model_path).num_parameters() > 0
    assert Path(master.committed[0].model_path).is_dir()
    await _check_what_was_told(bus)

    broken = Master(short_recipe(), hold_at=1)
    progress = ProgressFile(tmp_path / "broken" / "run" / "stage.pt", f"{origin_of(broken.document)}/0")
    async with serving(broken) as address:
        with trainer_process(tmp_path / "broken", nats_url, address) as process:
            async with asyncio.timeout(PATIENCE_S):
                while (kept := progress.load()) is None:
                    await asyncio.sleep(0.02)
            process.kill()
        assert kept.step in (20, 40)
        assert not broken.committed
        with trainer_process(tmp_path / "broken", nats_url, address) as process:
            await broken.until(lambda: 1 in broken.requested)
            broken.stop.set()
            await broken.until(lambda: broken.requested.count(1) == 2)  # let go, and leased again
            process.kill()
        broken.hold_at = None
        with trainer_process(tmp_path / "broken", nats_url, address):
            await broken.until(lambda: broken.ended)
    assert [c.version.policy for c in broken.committed] == [c.version.policy for c in master.committed]


async def test_a_run_that_cannot_start_fails_with_the_reason(tmp_path: Path, nats_url: str, bus: Bus) -> None:
    master = Master(recipe(model={"path": "/no/such/model"}))
    async with serving(master) as address:
        with trainer_process(tmp_path, nats_url, address):
            await master.until(lambda: master.ended)
    assert master.failure is not None
    assert "/no/such/model" in master.failure
    assert "give model.path" in master.failure


async def _newest(address: str):
    """The version that the trainer streams after the run has ended, verified."""
    async with open_channel(address) as channel:
        call = WeightServiceStub(channel).Subscribe(SubscribeRequest(run_id="run", worker_id="eyes"))
        stage = Stage((await call.read()).manifest)
        while (frame := await call.read()).WhichOneof("frame") == "chunk":
            stage.add(frame.chunk)
        stage.commit(frame.commit)
        return stage.manifest


async def _check_what_was_told(bus: Bus) -> None:
    """The warm-up's progress; and, as the batches' log-probabilities are made up, how far off they are."""
    kinds = set()
    async for deliveries in bus.deliveries(EVENT_CONSUMER, Event):
        for event in (delivery.message for delivery in deliveries):
            kinds.add(event.kind)
            if event.kind == "stage":
                assert (event.stage.name, event.stage.num_steps) == ("warmup", 60)
                assert 0 < event.stage.step <= 60
                assert {"loss", "tokens_per_second", "learning_rate", "grad_norm"} <= {*event.stage.metrics}
            else:
                assert "nats (engine_gap; more than 0.02" in event.text
        if kinds == {"stage", "warning"}:
            return
