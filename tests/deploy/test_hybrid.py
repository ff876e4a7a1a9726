"""Trainer and engine that take turns on one device: locks, shared weights, memory, and what is written across turns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.errors import UnavailableError, WeightStreamError
from perilune.models.machine import give_memory_back
from perilune.runtime.device_lock import DeviceLock
from perilune.weights import State
from perilune.weights.shared_memory import SharedVersions
from services.rollout.engines import ENGINES, EngineRow
from services.rollout.engines.base import EngineSpec, SampleRequest, Sampling, Span
from services.rollout.engines.hybrid_engine import HybridEngine
from services.trainer.hybrid import Offload
from tests.e2e.launcher import launch
from tests.unit.rollout.tiny import Caller, logprobs, raw_tensors, response, sample, spec_of, tiny_llama

MEBIBYTE = 1 << 20
HOLDER = "import sys, time; from perilune.runtime.device_lock import DeviceLock; from pathlib import Path\n" + (
    "d = DeviceLock(Path(sys.argv[1])); d.take(); print('has it', flush=True)\n"
    "while not d.is_wanted(): time.sleep(0.001)\n"
    "print('is asked', flush=True); sys.stdin.readline(); d.leave(); print('left', flush=True); sys.stdin.readline()\n"
)


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that takes the device, says when it is asked for it, and leaves it when it is told to."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_the_device_is_there_for_one_process_and_its_holder_is_asked(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        assert other.stdout
        assert other.stdin
        assert other.stdout.readline() == "has it\n"
        device = DeviceLock(tmp_path)
        waiting = threading.Thread(target=device.take)
        waiting.start()
        assert other.stdout.readline() == "is asked\n"
        assert waiting.is_alive()
        other.stdin.write("leave\n")
        other.stdin.flush()
        assert other.stdout.readline() == "left\n"
        waiting.join()
        assert not device.is_wanted()
        other.kill()


def test_a_turn_ends_with_its_process(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        assert other.stdout
        assert other.stdout.readline() == "has it\n"
        device = DeviceLock(tmp_path)
        assert not device.try_take()
        os.kill(other.pid, signal.SIGKILL)
        device.take()


def test_who_waits_comes_before_who_has_just_left(tmp_path: Path) -> None:
    first, second, third = DeviceLock(tmp_path), DeviceLock(tmp_path), DeviceLock(tmp_path)
    first.take()
    assert not second.try_take()
    assert first.is_wanted()
    first.leave()
    assert not first.try_take()
    assert not third.try_take()
    assert second.try_take()


def test_who_stops_waits_no_more_and_asks_no_more(tmp_path: Path) -> None:
    holding, waiting = DeviceLock(tmp_path), DeviceLock(tmp_path)
    holding.take()
    with pytest.raises(UnavailableError, match="device"):
        waiting.take(should_stop=lambda: True)
    assert not holding.is_wanted()


def test_a_version_in_shared_memory_is_what_was_put_there_and_stays_for_who_has_it(tmp_path: Path) -> None:
    versions = SharedVersions.of(tmp_path, "run")
    assert versions.newest() is None
    first, second = State.of(1, raw_tensors(tiny_llama(1))), State.of(2, raw_tensors(tiny_llama(2)))
    shared = versions.put(first, {"config.json": b"{}"})
    manifest = versions.newest()
    assert manifest
    read = versions.read(manifest)
    assert read
    assert read.model_files == {"config.json": b"{}"}
    versions.put(second, {})
    for state in (shared.tensors, read.tensors):
        assert [bytes(tensor.data) for tensor in state] == [bytes(tensor.data) for tensor in first.tensors]
    assert versions.read(manifest) is None  # a newer one has its place
    newest = versions.newest()
    assert newest
    assert newest.version == second.version


def test_a_damaged_version_is_not_served(tmp_path: Path) -> None:
    versions = SharedVersions.of(tmp_path, "run")
    versions.put(State.of(1, raw_tensors(tiny_llama(1))), {})
    (data,) = versions.folder.glob("v*")
    damaged = bytearray(data.read_bytes())
    damaged[1000] ^= 1
    data.write_bytes(damaged)
    manifest = versions.newest()
    assert manifest
    with pytest.raises(WeightStreamError, match="digest"):
        versions.read(manifest)


def anonymous_bytes() -> int:
    """This process's own memory: what it shares with others through files is not counted."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon"))


def test_what_is_put_away_leaves_memory_and_comes_back_the_same(tmp_path: Path) -> None:
    weights = [torch.randn(4 * MEBIBYTE) for _ in range(8)]  # 16 MiB each
    expected = [weight.clone().sum() for weight in weights]
    offload = Offload(tmp_path / "away")
    give_memory_back()  # what others left behind does not count
    before = anonymous_bytes()
    assert offload.put_away(weights) == 128 * MEBIBYTE
    assert before - anonymous_bytes() > 120 * MEBIBYTE
    offload.bring_back()
    assert [weight.sum() for weight in weights] == expected
    assert before - anonymous_bytes() < 8 * MEBIBYTE
    assert not (tmp_path / "away").exists()


def test_training_goes_on_as_if_nothing_had_been_away(tmp_path: Path) -> None:
    models = [tiny_llama(3), tiny_llama(3)]
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True) for model in models]
    tokens = torch.tensor([[4, 5, 6, 7, 8]])

    def step(index: int) -> None:
        models[index](tokens, labels=tokens).loss.backward()
        optimizers[index].step()
        optimizers[index].zero_grad()

    offload = Offload(tmp_path / "away")
    for _ in range(2):
        step(0)
        step(1)
        moments = [value for state in optimizers[1].state.values() for value in state.values()]
        offload.put_away([*models[1].parameters(), *models[1].buffers(), *moments])
        offload.bring_back()
    assert models[1].get_input_embeddings().weight is models[1].get_output_embeddings().weight  # still tied
    for undisturbed, moved in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(undisturbed, moved)


class InTurns(Caller):
    """As `Caller`, with an engine that takes turns."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.delivered = []
        self._arrived = threading.Condition()
        self.engine = HybridEngine(spec_of(tiny_llama(seed), self._take), DeviceLock(folder))


def test_what_is_written_across_turns_is_what_one_engine_writes(tmp_path: Path) -> None:
    samples = [sample(f"s{index}", [1, 5, 6, 7], 100, Sampling(), index) for index in range(4)]
    expected = Caller(tiny_llama(2)).generate(samples)  # up to a hundred tokens

    caller, trainer = InTurns(tmp_path, seed=2), DeviceLock(tmp_path)
    drawn = threading.Semaphore(0)

    def watch(span: Span) -> None:
        drawn.release()
        time.sleep(0.001)  # slow enough to be interrupted

    num_turns = 0
    caller.engine.submit([replace(each, watch=watch) for each in samples])
    while len(caller.delivered) < len(samples):
        if drawn.acquire(timeout=0.05):
            trainer.take()
            assert caller.engine.capacity().num_running == 0
            trainer.leave()
            num_turns += 1
    assert num_turns > 1
    for got in caller.delivered:
        assert got.sample.tokens.tolist() == [1, 5, 6, 7]
        assert response(got) == response(expected[got.sample.id])
        assert got.ending == expected[got.sample.id].ending
        np.testing.assert_allclose(logprobs(got), logprobs(expected[got.sample.id]), atol=1e-4)
    assert any(len(got.spans) > 1 for got in caller.delivered)
    caller.engine.close()


def test_a_version_that_comes_while_the_engine_is_away_writes_from_its_next_turn_on(tmp_path: Path) -> None:
    caller, trainer = InTurns(tmp_path), DeviceLock(tmp_path)
    trainer.take()
    caller.load(1, tiny_llama(1))  # served, as far as the worker is concerned
    caller.engine.submit([sample("late", [1, 5], 20)])
    trainer.leave()
    (late,) = caller.wait_for(1)
    assert {span.policy.number for span in late.spans} == {1}
    caller.engine.close()


def test_a_sample_that_nobody_wants_is_given_back_also_while_the_engine_is_away(tmp_path: Path) -> None:
    caller, trainer = InTurns(tmp_path), DeviceLock(tmp_path)
    trainer.take()
    caller.engine.submit([sample("unwanted", [1, 5], 20)])
    caller.engine.interrupt(["unwanted", "unknown"])
    (given_back,) = caller.wait_for(1)
    assert given_back.ending == trajectory.ENDING_ABORTED
    assert response(given_back) == []
    caller.engine.close()
    trainer.close()


def test_an_engine_that_fails_in_its_turn_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "torch", EngineRow(f"{__name__}:Broken"))
    caller, trainer = InTurns(tmp_path), DeviceLock(tmp_path)
    trainer.take()
    caller.engine.submit([SampleRequest("s", np.array([1], dtype=np.int32), 4, Sampling())])
    trainer.leave()
    with pytest.raises(UnavailableError, match="no more"):
        caller.engine.stopped.result(60)
    trainer.take()  # and lets go of the device


class Broken:
    """An engine that does not start."""

    def __init__(self, spec: EngineSpec) -> None:
        raise UnavailableError("no more engines of this kind")


def test_who_stops_while_the_engine_is_away_waits_for_nothing(tmp_path: Path) -> None:
    trainer = DeviceLock(tmp_path)
    trainer.take()
    caller = InTurns(tmp_path)
    caller.engine.submit([sample("late", [1, 5], 20)])
    caller.engine.close()
    assert caller.delivered == []
    assert not trainer.is_wanted()


@pytest.mark.timeout(900)
async def test_a_run_of_real_services_in_turns(tmp_path: Path) -> None:
    launched = await launch(
        tmp_path / "home",
        *("train", "recipes/search.toml", "--name", "turns", "--rollouts", "1", "--no-view", "--json"),
        *("--set", "trainer.num_iterations=2", "--set", "stages.0.num_steps=20"),
        *("--set", "rollout.prompts_per_iteration=4", "--set", "evaluation.num_problems=8"),
        PERILUNE_HYBRID=str(tmp_path / "shm"),
    )
    run = await launched.end()
    assert run["state"] == "finished"
    assert run["ledger"]["balanced"]
    assert run["ledger"]["trained"] == 2 * 4 * 8
    logs = tmp_path / "home" / "logs"
    assert (logs / "trainer.log").read_text().count("left the device") == 2
    assert (logs / "rollout-1.log").read_text().count("took the device; version") >= 2
