"""The weight stream over a real socket: what arrives is what was published, and only the newest of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
import torch

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.api.weights.v1.weights_pb2 import (
    ListVersionsRequest,
    PinVersionRequest,
    ServeVersionRequest,
    SubscribeRequest,
)
from perilune.api.weights.v1.weights_pb2_grpc import WeightServiceStub
from perilune.runtime.service import open_channel
from perilune.weights import RawTensor, Stage, State
from perilune.weights.store import VersionStore
from services.trainer.versions.publisher import Publisher
from services.trainer.versions.quantize import Kind
from services.trainer.versions.snapshot import PublishedVersion, snapshot
from tests.unit.trainer.models import tiny_policy


class Served:
    def __init__(self, publisher: Publisher, stub: WeightServiceStub) -> None:
        self.publisher, self.stub = publisher, stub

    def subscribe(self, have: PolicyVersion | None = None, run_id: str = "run"):
        return self.stub.Subscribe(SubscribeRequest(run_id=run_id, worker_id="w", have=have))


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Served]:
    server, publisher = grpc.aio.server(), Publisher()
    publisher.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        yield Served(publisher, WeightServiceStub(channel))
    await server.stop(None)


async def receive(call) -> tuple[Stage, list[RawTensor]]:
    """The next whole version of a stream, verified as a rollout worker does."""
    stage = Stage((await call.read()).manifest)
    while True:
        frame = await call.read()
        if frame.WhichOneof("frame") == "commit":
            return stage, stage.commit(frame.commit)
        stage.add(frame.chunk)


def as_torch(raw: RawTensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(raw.data, dtype=dtype).reshape(raw.shape)


async def test_a_version_arrives_whole_with_the_files_of_its_model(served: Served) -> None:
    policy = tiny_policy()
    version = snapshot(policy, 3, torch.float32)
    served.publisher.open("run")
    served.publisher.publish("run", version)
    stage, tensors = await receive(served.subscribe())
    state = policy.model.state_dict()
    assert stage.manifest.version == version.policy == PolicyVersion(number=3, digest=version.policy.digest)
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= set(
        stage.manifest.model_files
    )
    # The output embedding is tied to the input's: it comes once.
    assert {raw.name for raw in tensors} == set(state) - {"lm_head.weight"}
    for raw in tensors:
        assert torch.equal(as_torch(raw, torch.float32), state[raw.name])


async def test_weights_are_rounded_to_the_recipes_dtype(served: Served) -> None:
    policy = tiny_policy()
    served.publisher.open("run")
    served.publisher.publish("run", snapshot(policy, 0, torch.bfloat16))
    _, tensors = await receive(served.subscribe())
    for raw in tensors:
        assert torch.equal(as_torch(raw, torch.bfloat16), policy.model.state_dict()[raw.name].bfloat16())


@pytest.mark.parametrize("kind", ["int8", "fp8"])
async def test_the_digest_of_a_quantised_version_is_that_of_what_is_served(served: Served, kind: Kind) -> None:
    """Not of what was trained: the fleet samples from the rounded policy, and stamps its tokens with this digest."""
    exact = snapshot(tiny_policy(), 0, torch.float32)
    rounded = snapshot(tiny_policy(), 0, torch.float32, quantize=kind)
    assert rounded.policy.digest != exact.policy.digest
    served.publisher.open("run")
    served.publisher.publish("run", rounded)
    stage, tensors = await receive(served.subscribe())
    assert stage.manifest.version == rounded.policy == State.of(0, tensors).version
    assert sum(raw.data.nbytes for raw in tensors) < 0.4 * exact.state.manifest.num_bytes


async def test_training_in_place_does_not_reach_a_published_version(served: Served) -> None:
    policy = tiny_policy()
    before = policy.model.state_dict()["model.norm.weight"].clone()
    served.publisher.open("run")
    served.publisher.publish("run", snapshot(policy, 0, torch.float32))
    with torch.no_grad():
        policy.model.model.norm.weight += 1
    _, tensors = await receive(served.subscribe())
    (norm,) = (raw for raw in tensors if raw.name == "model.norm.weight")
    assert torch.equal(as_torch(norm, torch.float32), before)


async def test_a_subscriber_gets_what_it_lacks_and_skips_to_the_newest(served: Served) -> None:
    policy = tiny_policy()
    versions = []
    for number in range(4):
        with torch.no_grad():
            policy.model.model.norm.weight += 1
        versions.append(snapshot(policy, number, torch.float32))
    served.publisher.open("run")
    early = served.subscribe()  # waits for the first version
    served.publisher.publish("run", versions[0])
    assert (await receive(early))[0].manifest.version.number == 0
    up_to_date = served.subscribe(have=versions[0].policy)
    for version in versions[1:]:
        served.publisher.publish("run", version)
    for call in (early, up_to_date):
        stage, _ = await receive(call)
        assert stage.manifest.version.number == 3
        assert not stage.manifest.model_files


async def test_a_version_that_was_given_up_is_replaced_by_an_older_one(served: Served) -> None:
    served.publisher.open("run")
    served.publisher.publish("run", snapshot(tiny_policy(), 1, torch.float32))
    call = served.subscribe(have=PolicyVersion(number=5, digest="lost"))
    assert (await receive(call))[0].manifest.version.number == 1


async def test_an_unknown_run_is_not_found(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await served.subscribe(run_id="other").read()
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


async def test_an_older_version_is_served_until_told_otherwise(served: Served, tmp_path: Path) -> None:
    policy, store = tiny_policy(), VersionStore(tmp_path, num_kept=3)
    served.publisher.open("run", store)
    with pytest.raises(grpc.aio.AioRpcError, match="published nothing yet") as raised:
        await served.stub.ServeVersion(ServeVersionRequest(run_id="run", number=1))
    assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    versions: list[PublishedVersion] = []
    for number in range(4):
        with torch.no_grad():
            policy.model.model.norm.weight += 1
        versions.append(snapshot(policy, number, torch.float32, versions[-1] if versions else None))
        store.add(versions[-1].state, None, versions[-1].model_files)
        if number < 3:
            served.publisher.publish("run", versions[-1])
    call = served.subscribe()
    assert (await receive(call))[0].manifest.version == versions[2].policy
    answer = await served.stub.ServeVersion(ServeVersionRequest(run_id="run", number=1))
    assert answer.served == versions[1].policy
    stage, tensors = await receive(call)
    assert stage.manifest.version == versions[1].policy
    assert [bytes(raw.data) for raw in tensors] == [bytes(raw.data) for raw in versions[1].state.tensors]
    served.publisher.publish("run", versions[3])  # held back
    listed = await served.stub.ListVersions(ListVersionsRequest(run_id="run"))
    assert [kept.version.number for kept in listed.versions] == [1, 2, 3]
    assert (listed.served, listed.held) == (versions[1].policy, True)
    assert (await served.stub.ServeVersion(ServeVersionRequest(run_id="run"))).served == versions[3].policy
    assert (await receive(call))[0].manifest.version == versions[3].policy
    with pytest.raises(grpc.aio.AioRpcError, match="version 0 is not kept") as raised:
        await served.stub.ServeVersion(ServeVersionRequest(run_id="run", number=0))
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


async def test_versions_are_pinned_from_outside(served: Served, tmp_path: Path) -> None:
    store = VersionStore(tmp_path)
    served.publisher.open("run", store)
    version = snapshot(tiny_policy(), 5, torch.float32)
    store.add(version.state, None, version.model_files)
    await served.stub.PinVersion(PinVersionRequest(run_id="run", number=5))
    assert [kept.is_pinned for kept in store.versions()] == [True]
    await served.stub.PinVersion(PinVersionRequest(run_id="run", number=5, unpin=True))
    assert [kept.is_pinned for kept in store.versions()] == [False]


async def test_an_adapter_has_versions_of_its_own(served: Served) -> None:
    model, adapter = snapshot(tiny_policy(), 3, torch.float32), snapshot(tiny_policy(seed=1), 8, torch.float32)
    served.publisher.open("run", adapter="poet")
    served.publisher.publish_base("run", model)
    served.publisher.publish("run", adapter)
    assert (await receive(served.subscribe()))[0].manifest.version == model.policy
    call = served.stub.Subscribe(SubscribeRequest(run_id="run", worker_id="w", adapter="poet"))
    assert (await receive(call))[0].manifest.version == adapter.policy
    served.publisher.open("run")  # the run starts anew: its adapters end
    with pytest.raises(grpc.aio.AioRpcError, match="no adapter 'poet' of run 'run'") as raised:
        await call.read()
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
