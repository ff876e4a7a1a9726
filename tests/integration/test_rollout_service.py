"""The rollout service as it runs: a real NATS server, gRPC streams of weights and assignments, a tiny model."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio

import perilune.runtime.bus
from perilune.api.master.v1.master_pb2 import (
    JoinRequest,
    JoinResponse,
    ReportServingRequest,
    ReportServingResponse,
    RunAssignment,
)
from perilune.api.master.v1.master_pb2_grpc import FleetServiceServicer, add_FleetServiceServicer_to_server
from perilune.api.reward.v1.reward_pb2 import GraderChoice
from perilune.api.rollout.v1.rollout_pb2 import GetStatusRequest, RolloutTask
from perilune.api.rollout.v1.rollout_pb2_grpc import RolloutServiceStub
from perilune.api.trajectory.v1.trajectory_pb2 import (
    DTYPE_INT32,
    ENDING_STOP,
    PURPOSE_TRAIN,
    ChatMessage,
    DeadLetter,
    Event,
    PackedArray,
    PolicyVersion,
    Prompt,
    SamplingParams,
    Trajectory,
)
from perilune.api.weights.v1.weights_pb2 import SubscribeRequest, SubscribeResponse
from perilune.api.weights.v1.weights_pb2_grpc import WeightServiceServicer, add_WeightServiceServicer_to_server
from perilune.codec import pack, unpack
from perilune.recipe import CalculatorEnvironment, GuessEnvironment, check_recipe
from perilune.runtime import subjects
from perilune.runtime.bus import Bus, Delivery
from perilune.runtime.service import Service, open_channel
from perilune.runtime.subjects import Consumer
from perilune.weights import frames, manifest_of
from services.rollout import door, server, stall, worker
from services.rollout.config import RolloutSettings
from services.rollout.door import MAX_TRIALS, TOGETHER
from services.rollout.engines.embedded.engine import TorchEngine
from services.rollout.environments import ENVIRONMENTS, asking
from services.rollout.environments.base import Observation, Outcome
from services.rollout.environments.calculator import Calculator
from services.trainer.policy.created import CHAT_TEMPLATE as CREATED_TEMPLATE
from tests.unit.rollout.tiny import EOS, WORDS, model_files, raw_tensors, tiny_llama, tiny_tokenizer

RUN = "run1"
RECIPE = check_recipe(
    {
        "name": "test",
        "model": {"create": {"task": "search"}},
        "prompts": {"source": "task", "name": "search"},
        "rollout": {"max_running": 16, "group_size": 4},
        "reward": {"graders": [{"name": "exact"}]},
        "trainer": {"num_iterations": 1},
    }
)


class Master(FleetServiceServicer):
    """Assigns what it is told to assign, and keeps what it is told."""

    def __init__(self) -> None:
        self.runs: list[RunAssignment] = []
        self.served: list[int] = []
        self.changed = asyncio.Condition()

    async def assign(self, *runs: RunAssignment) -> None:
        async with self.changed:
            self.runs = list(runs)
            self.changed.notify_all()

    async def Join(self, request: JoinRequest, context: Any) -> AsyncIterator[JoinResponse]:
        while True:
            yield JoinResponse(runs=self.runs)
            async with self.changed:
                await self.changed.wait()

    async def ReportServing(self, request: ReportServingRequest, context: Any) -> ReportServingResponse:
        async with self.changed:
            self.served.append(request.policy.number)
            self.changed.notify_all()
        return ReportServingResponse()

    async def until_served(self, number: int) -> None:
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: number in self.served), 30)


@dataclass
class Trainer(WeightServiceServicer):
    """Streams the newest version; corrupts the next one if told to."""

    number: int = -1
    corrupt_next: bool = False
    without: str = "/"  # beginning of the names of files that are left out
    incomplete: int | None = None  # the version that lacks a tensor
    files: dict[str, bytes] = field(default_factory=dict)  # instead of the model's own
    asked_with: list[int | None] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def publish(self, number: int) -> None:
        async with self.changed:
            self.number = number
            self.changed.notify_all()

    async def Subscribe(self, request: SubscribeRequest, context: Any) -> AsyncIterator[SubscribeResponse]:
        sent = request.have.number if request.HasField("have") else None
        self.asked_with.append(sent)
        while True:
            async with self.changed:
                while self.number in (-1, sent):
                    await self.changed.wait()
            model = tiny_llama(seed=self.number)
            tensors = raw_tensors(model)
            if self.number == self.incomplete:
                tensors.pop()
            manifest = manifest_of(self.number, tensors)
            if sent is None:
                manifest.model_files.update(
                    {name: file for name, file in model_files(model).items() if not name.startswith(self.without)}
                    | self.files
                )
            for frame in frames(manifest, tensors):
                if frame.HasField("chunk") and self.corrupt_next:
                    self.corrupt_next = False
                    frame.chunk.data = frame.chunk.data[:-1] + bytes([frame.chunk.data[-1] ^ 1])
                yield frame
            sent = self.number


@dataclass
class World:
    """The service under test, and everything around it."""

    bus: Bus
    master: Master
    trainer: Trainer
    trainer_address: str
    settings: RolloutSettings
    service: Service | None = None
    running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.service = Service("rollout", self.settings)
        self.running = asyncio.create_task(server.run(self.service))

    async def stop(self) -> None:
        assert self.service is not None
        assert self.running is not None
        self.service.stopping.set()
        await asyncio.wait_for(self.running, 30)
        await self.service.server.stop(0)

    async def assign(self, **rollout: Any) -> None:
        recipe = RECIPE.model_copy(update={"rollout": RECIPE.rollout.model_copy(update=rollout)})
        run = RunAssignment(run_id=RUN, recipe_json=recipe.model_dump_json(), weights_address=self.trainer_address)
        await self.master.assign(run)


@pytest_asyncio.fixture
async def world(bus: Bus, nats_url: str) -> AsyncIterator[World]:
    async with world_on(bus, nats_url) as world:
        yield world


@asynccontextmanager
async def world_on(bus: Bus, nats_url: str) -> AsyncIterator[World]:
    outside = grpc.aio.server()
    master, trainer = Master(), Trainer()
    add_FleetServiceServicer_to_server(master, outside)
    add_WeightServiceServicer_to_server(trainer, outside)
    address = f"127.0.0.1:{outside.add_insecure_port('127.0.0.1:0')}"
    await outside.start()
    await bus.declare_consumer(subjects.rollout_consumer(RUN))
    settings = RolloutSettings(nats_url=nats_url, master_address=address, kv_cache_gib=0.01)
    world = World(bus, master, trainer, address, settings)
    await world.start()
    yield world
    await world.stop()
    await outside.stop(0)


def task(group: str, text: str = "w5 w9", version: int = 0, num_samples: int = 4) -> RolloutTask:
    return RolloutTask(
        run_id=RUN,
        group_id=group,
        purpose=PURPOSE_TRAIN,
        iteration=3,
        prompt=Prompt(id="p1", messages=[ChatMessage(role="user", content=text)], reference="1"),
        sample_indices=range(num_samples),
        sampling=SamplingParams(temperature=1, max_tokens=30, seed=5),
        policy=PolicyVersion(number=version),
        graders=[GraderChoice(name="exact")],
    )


async def send(bus: Bus, *tasks: RolloutTask) -> None:
    for each in tasks:
        await bus.publish(subjects.prompt_subject(RUN), each, f"{each.group_id}/dispatch")


async def received(bus: Bus, consumer: Consumer, kind: Any, count: int) -> list[Any]:
    found: list[Any] = []

    async def collect() -> None:
        async for batch in bus.deliveries(consumer, kind):
            for delivery in batch:
                found.append(delivery.message)
                await delivery.ack()
            if len(found) >= count:
                return

    await asyncio.wait_for(collect(), 120)
    return found


async def trajectories(bus: Bus, count: int) -> dict[str, Trajectory]:
    """Those that have ended, whole, by id."""
    texts = await received(bus, subjects.REWARD_CONSUMER, Trajectory, count)
    assert not any(text.segments or text.prompt_tokens.data for text in texts)  # no grader reads them
    found = [whole for text in texts if (whole := await bus.whole_of(text))]
    return {each.id: each for each in found}


async def test_groups_become_trajectories_with_everything_that_scoring_and_training_need(world: World) -> None:
    await send(world.bus, *(task(f"g{i}") for i in range(12)))
    await world.trainer.publish(0)
    await world.assign()
    found = await trajectories(world.bus, 48)
    assert found.keys() == {f"g{group}/{index}" for group in range(12) for index in range(4)}
    one = found["g7/2"]
    assert (one.run_id, one.group_id, one.sample_index, one.iteration) == (RUN, "g7", 2, 3)
    assert one.purpose == PURPOSE_TRAIN
    assert one.prompt == task("").prompt
    assert one.graders == task("").graders
    assert [WORDS[token] for token in unpack(one.prompt_tokens)] == ["<bos>", "w5", "w9"]
    policy = manifest_of(0, raw_tensors(tiny_llama(seed=0))).version
    for each in found.values():
        assert [segment.policy for segment in each.segments] == [policy]
        segment = each.segments[0]
        tokens = unpack(segment.tokens)
        assert tokens.dtype == np.int32
        assert len(tokens) == len(unpack(segment.logprobs)) == len(unpack(segment.full_logprobs)) <= 30
        assert each.response == " ".join(WORDS[token] for token in tokens if token >= WORDS.index("w0"))
        assert (each.ending == ENDING_STOP) == (tokens[-1] == EOS)
    assert (await left_over(world.bus)) == 0


async def left_over(bus: Bus) -> int:
    """Prompts that nobody acked; the last ack may still be on its way."""
    for _ in range(50):
        info = await bus._jetstream.consumer_info(subjects.PROMPTS, f"rollout-{RUN}")
        if not (open_prompts := (info.num_pending or 0) + (info.num_ack_pending or 0)):
            break
        await asyncio.sleep(0.1)
    return open_prompts


async def test_a_group_waits_for_the_version_it_asks_for(world: World) -> None:
    await world.trainer.publish(0)
    await world.assign()
    await world.master.until_served(0)
    await send(world.bus, task("later", version=1), task("now"))
    found = await trajectories(world.bus, 4)
    assert {each.group_id for each in found.values()} == {"now"}
    await world.trainer.publish(1)
    found = await trajectories(world.bus, 4)
    assert {(each.group_id, each.segments[0].policy.number) for each in found.values()} == {("later", 1)}
    assert world.master.served == [0, 1]
    assert world.trainer.asked_with == [None]


async def test_a_corrupt_version_is_dropped_and_asked_for_again(world: World) -> None:
    await world.trainer.publish(0)
    await world.assign()
    await world.master.until_served(0)
    world.trainer.corrupt_next = True
    await world.trainer.publish(1)
    await world.master.until_served(1)
    assert world.trainer.asked_with == [None, 0]
    assert world.master.served == [0, 1]


async def test_a_version_that_is_not_the_models_is_refused_and_the_next_one_served(world: World) -> None:
    await world.trainer.publish(0)
    await world.assign()
    await world.master.until_served(0)
    world.trainer.incomplete = 1
    await world.trainer.publish(1)
    await send(world.bus, task("g"))
    assert len(await trajectories(world.bus, 4)) == 4  # by version 0, which goes on
    await world.trainer.publish(2)
    await world.master.until_served(2)
    assert world.master.served == [0, 2]


async def test_prompts_that_cannot_be_answered_are_set_aside_with_the_reason(world: World) -> None:
    await world.trainer.publish(0)
    await world.assign()
    await send(world.bus, task("long", text="w5 " * 200), task("fine"))
    (letter,) = await received(world.bus, subjects.DEAD_CONSUMER, DeadLetter, 1)
    assert letter.reason == (
        "prompt p1 has 201 tokens and leaves no room for a response: the model's context is 128; shorten the prompt "
        "or choose a model with a longer context"
    )
    assert letter.run_id == RUN
    assert letter.trajectory_ids == [f"long/{index}" for index in range(4)]
    assert len(await trajectories(world.bus, 4)) == 4
    assert (await left_over(world.bus)) == 0


async def test_a_worker_that_ends_gives_its_groups_to_the_next(world: World) -> None:
    await world.trainer.publish(0)
    await world.assign()
    await world.master.until_served(0)
    await send(world.bus, task("g", version=1))
    await until_taken(world.bus)
    await world.stop()
    await world.trainer.publish(1)
    await world.start()
    found = await trajectories(world.bus, 4)  # much sooner than the bus would give up on a silent worker
    assert {each.segments[0].policy.number for each in found.values()} == {1}


async def until_taken(bus: Bus) -> None:
    for _ in range(100):
        if (await bus._jetstream.consumer_info(subjects.PROMPTS, f"rollout-{RUN}")).num_ack_pending:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("no worker took the group")


async def test_an_unassigned_run_is_left_and_taken_up_again(world: World) -> None:
    await world.trainer.publish(0)
    await world.assign()
    await world.master.until_served(0)
    await send(world.bus, task("g", version=1))
    await until_taken(world.bus)
    await world.master.assign()
    await world.trainer.publish(1)
    await world.assign()
    assert len(await trajectories(world.bus, 4)) == 4


async def test_status_counts_what_was_generated(world: World) -> None:
    await world.trainer.publish(0)
    await world.assign()
    await send(world.bus, task("g"))
    found = await trajectories(world.bus, 4)
    assert world.service is not None
    async with open_channel(world.service.address) as channel:
        status = await RolloutServiceStub(channel).GetStatus(GetStatusRequest())
    (run,) = status.runs
    assert (run.run_id, run.engine, run.policy.number, run.max_running) == (RUN, "torch", 0, 16)
    assert run.num_generated_tokens == sum(len(unpack(each.segments[0].tokens)) for each in found.values())
    assert 0 < run.busy_seconds < 30
    assert (run.num_running, run.num_waiting) == (0, 0)


@pytest.mark.parametrize(
    ("without", "files", "reason"),
    [
        ("tokenizer", {}, "tokenizer"),
        ("/", {"": b"x"}, "a model file may not be called ''"),
        ("/", {"config.json": b"[]"}, "must be a mapping, not list"),
        ("/", {"tokenizer.json": b"{}"}, "no tokenizer that can be read"),
        ("/", {"a\0b": b""}, "cannot be served"),
    ],
)
async def test_a_run_whose_model_cannot_be_served_is_said_aloud(
    world: World, without: str, files: dict[str, bytes], reason: str
) -> None:
    world.trainer.without, world.trainer.files = without, files
    await world.trainer.publish(0)
    await world.assign()
    (event,) = await received(world.bus, subjects.EVENT_CONSUMER, Event, 1)
    assert event.kind == "rollout_failed"
    assert reason in event.text


NO_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('no system role here') }}"
    "{% endif %}{{ ' ' + message['content'] }}{% endfor %}"
)


async def test_a_row_that_the_chat_template_refuses_is_set_aside_alone(world: World) -> None:
    world.trainer.files = {"chat_template.jinja": NO_SYSTEM.encode()}
    await world.trainer.publish(0)
    await world.assign()
    refused = task("refused")
    refused.prompt.messages.insert(0, ChatMessage(role="system", content="w1"))
    await send(world.bus, task("g0"), refused, *(task(f"g{i}") for i in range(1, 8)))
    (letter,) = await received(world.bus, subjects.DEAD_CONSUMER, DeadLetter, 1)
    assert "chat template" in letter.reason
    assert "no system role here" in letter.reason
    assert letter.trajectory_ids == [f"refused/{index}" for index in range(4)]
    assert {each.group_id for each in (await trajectories(world.bus, 32)).values()} == {f"g{i}" for i in range(8)}
    assert (await left_over(world.bus)) == 0


def malformed_tasks() -> Iterator[RolloutTask]:
    """Groups of which nothing can be sampled."""
    for number, change in enumerate(
        [
            {"run_id": "another"},
            {"run_id": ""},
            {"sample_indices": []},
            {"sample_indices": [1, 1]},
            {"sample_indices": range(100_000)},
            {"policy": PolicyVersion(number=2**63)},
            {"prompt": Prompt(id="\r\n\0")},
            {"sampling": SamplingParams(temperature=float("nan"), max_tokens=4)},
            {"sampling": SamplingParams(temperature=-1, max_tokens=4)},
            {"sampling": SamplingParams(top_p=float("inf"), max_tokens=4)},
            {"sampling": SamplingParams(top_k=2**32 - 1, max_tokens=4)},
            {"sampling": SamplingParams(stop=[""], max_tokens=4)},
            {"unfinished": Trajectory(prompt_tokens=PackedArray(dtype=DTYPE_INT32, data=b"1234567"))},
            {"unfinished": Trajectory(prompt_tokens=pack(np.array([1, 999], np.int32)))},
            {"unfinished": Trajectory(prompt_tokens=pack(np.array([1, -5], np.int32)))},
            {"unfinished": Trajectory()},
        ]
    ):
        broken = task(f"bad{number}")
        for name in change:
            broken.ClearField(name)  # type: ignore[arg-type]
        broken.MergeFrom(RolloutTask(**change))  # type: ignore[arg-type]
        yield broken


async def test_no_group_ends_the_worker(world: World) -> None:
    await world.trainer.publish(0)
    await world.assign()
    broken = list(malformed_tasks())
    await send(world.bus, *broken, task("fine"))
    await world.bus._jetstream.publish(subjects.prompt_subject(RUN), b"\xff\xfe no protobuf")
    found = await received(world.bus, subjects.DEAD_CONSUMER, DeadLetter, len(broken) + 1)
    assert {each.message_id for each in found} == {*(f"{each.group_id}/dispatch" for each in broken), ""}
    assert all(each.reason for each in found)
    assert {each.group_id for each in (await trajectories(world.bus, 4)).values()} == {"fine"}
    assert (await left_over(world.bus)) == 0


class Broken(Calculator):
    """Fails in the way that its option `call` names."""

    async def step(self, action: str) -> Any:
        match self._call:
            case "raises":
                raise KeyError("no such tool")
            case "exits":
                raise SystemExit(1)
            case "hangs":
                await asyncio.sleep(60)
            case "nonsense":
                return {"text": "hello"}
            case "role":
                return Observation(messages=[{"role": "wizard", "content": "w1"}])
        return Observation(outcome=Outcome(math.nan))


FAILURES = {
    "raises": "the environment 'calculator' failed: KeyError: 'no such tool'",
    "exits": "the environment 'calculator' failed: SystemExit: 1",
    "hangs": "the environment 'calculator': no answer in 0.3 s",
    "nonsense": "the environment 'calculator': answered with {'text': 'hello'} (dict), and not with an Observation",
    "role": "the environment 'calculator': answered with a message of the role 'wizard'; it may be system, developer, "
    "user, tool",
    "nan": "the environment 'calculator': gave an outcome of nan; its value must be a finite number",
}


def at(group: str, environment: str) -> RolloutTask:
    """A group whose prompt names its environment."""
    made = task(group, num_samples=1)
    made.prompt.environment_json = environment
    return made


async def test_what_an_environment_does_wrong_is_the_failure_of_its_sample(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENTS, CalculatorEnvironment, f"{__name__}:Broken")
    monkeypatch.setattr(asking, "PATIENCE_S", 0.3)
    await world.trainer.publish(0)
    await world.assign(environment=CalculatorEnvironment(type="calculator", end="w"))
    wrong = [at(how, json.dumps({"type": "calculator", "call": how, "end": "w", "hue": 1})) for how in FAILURES]
    await send(world.bus, *wrong, at("unknown", '{"type": "chess"}'), at("without", ""))
    found = await received(world.bus, subjects.DEAD_CONSUMER, DeadLetter, len(wrong) + 1)
    reasons = {"".join(each.trajectory_ids).removesuffix("/0"): each.reason for each in found}
    assert reasons.pop("unknown").startswith("the environment of prompt p1: ")
    assert reasons == FAILURES
    assert (await trajectories(world.bus, 1)).keys() == {"without/0"}
    assert (await left_over(world.bus)) == 0


async def test_a_game_by_chat_messages_ends_with_an_outcome(world: World) -> None:
    tokenizer = tiny_tokenizer(CREATED_TEMPLATE)
    world.trainer.files = {name: file for name, file in model_files(tiny_llama(), tokenizer).items() if "chat" in name}
    await world.trainer.publish(0)
    await world.assign(environment=GuessEnvironment(type="guess", guesses=2))
    await send(world.bus, task("g", num_samples=8))
    for each in (await trajectories(world.bus, 8)).values():
        assert each.HasField("outcome")
        assert (each.outcome.value, each.outcome.reason[:17]) == (0, "1 was not found i")


async def die_with_what_is_there(nats_url: str, count: int, times: int) -> None:
    """A worker that is killed with everything in hand, again and again."""
    for _ in range(times):
        async with Bus.connect(nats_url, "doomed") as doomed:
            held = 0
            async for batch in doomed.deliveries(subjects.rollout_consumer(RUN), RolloutTask):
                held += len(batch)
                if held >= count:
                    break


async def test_deaths_of_a_worker_give_no_group_up(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perilune.runtime.bus, "ACK_WAIT_S", 0.4)
    async with Bus.connect(nats_url, "test") as bus:
        await bus.declare()
        async with world_on(bus, nats_url) as world:
            await send(bus, *(task(f"g{i}") for i in range(3)))
            await die_with_what_is_there(nats_url, 3, times=6)
            await world.trainer.publish(0)
            await world.assign()
            found = await trajectories(bus, 12)
            assert {each.group_id for each in found.values()} == {"g0", "g1", "g2"}
            assert await bus.num_dead_letters() == 0
            assert (await left_over(bus)) == 0


async def test_a_group_that_ends_its_worker_each_time_it_is_tried_alone_is_given_up(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perilune.runtime.bus, "ACK_WAIT_S", 0.4)
    async with Bus.connect(nats_url, "test") as bus:
        await bus.declare()
        async with world_on(bus, nats_url) as world:
            await send(bus, task("culprit"))
            async for held, *_ in bus.deliveries(subjects.rollout_consumer(RUN), RolloutTask):
                await bus.note_trials(held, MAX_TRIALS)  # as many workers died with it alone
                break
            for _ in range(TOGETHER):
                await held.retry(delay_s=0.01)
                async for batch in bus.deliveries(subjects.rollout_consumer(RUN), RolloutTask):
                    if batch:
                        (held,) = batch
                        break
            await held.retry(delay_s=0.01)
            await send(bus, task("innocent"))
            await world.trainer.publish(0)
            await world.assign()
            (letter,) = await received(bus, subjects.DEAD_CONSUMER, DeadLetter, 1)
            assert letter.reason == f"it was sampled alone {MAX_TRIALS} times, and each time its worker died"
            assert letter.trajectory_ids == [f"culprit/{index}" for index in range(4)]
            assert {each.group_id for each in (await trajectories(bus, 4)).values()} == {"innocent"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the engine's, which is told
async def test_a_group_that_breaks_the_engine_is_found_and_the_others_are_sampled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "BACK_OFF_S", 0.05)
    step = TorchEngine._step

    def break_at_culprit(engine: TorchEngine) -> None:
        here = [*engine._decoder.rows, *engine._decoder.waiting]
        if any(WORDS.index("w7") in running.sample.tokens for running in here):
            raise RuntimeError("illegal memory access")
        step(engine)

    monkeypatch.setattr(TorchEngine, "_step", break_at_culprit)
    await world.trainer.publish(0)
    await world.assign()
    await send(world.bus, task("g0"), task("culprit", text="w7"), task("g1"))
    letters = asyncio.create_task(received(world.bus, subjects.DEAD_CONSUMER, DeadLetter, 1))
    num_deaths = 0
    while not letters.done():
        assert world.running
        assert world.service
        await asyncio.wait([world.running, letters], return_when=asyncio.FIRST_COMPLETED, timeout=30)
        if world.running.done():
            assert "illegal memory access" in repr(world.running.exception())
            num_deaths += 1
            await world.service.server.stop(0)
            await world.start()
    (letter,) = await letters
    assert letter.trajectory_ids == [f"culprit/{index}" for index in range(4)]
    assert MAX_TRIALS <= num_deaths <= MAX_TRIALS + TOGETHER
    assert {each.group_id for each in (await trajectories(world.bus, 8)).values()} == {"g0", "g1"}
    assert (await left_over(world.bus)) == 0


async def test_work_is_taken_from_an_engine_that_is_stuck(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perilune.runtime.bus, "ACK_WAIT_S", 0.4)
    monkeypatch.setattr(stall, "STALL_S", 0.5)
    monkeypatch.setattr(worker, "LOOK_EVERY_S", 0.1)
    async with Bus.connect(nats_url, "test") as bus:
        await bus.declare()
        async with world_on(bus, nats_url) as world:
            await world.trainer.publish(0)
            await world.assign()
            await world.master.until_served(0)
            hung = threading.Event()
            monkeypatch.setattr(TorchEngine, "_step", lambda self: hung.wait(20))
            await send(bus, task("g"))
            await until_taken(bus)
            async with asyncio.timeout(15):
                (taken,) = await another_takes(bus)
            assert taken.num_deliveries >= 2
            await taken.ack()
            monkeypatch.undo()
            hung.set()
            assert len(await trajectories(bus, 4)) == 4  # the engine gets on again: the effect is the same


async def another_takes(bus: Bus) -> list[Delivery[RolloutTask]]:
    async for batch in bus.deliveries(subjects.rollout_consumer(RUN), RolloutTask):
        if batch:
            return batch
    raise AssertionError
