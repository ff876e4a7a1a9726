"""Engines with a process of their own: a process that dies costs nothing but its start."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from perilune.api.master.v1.master_pb2 import HeartbeatRequest
from perilune.errors import InvalidInputError, UnavailableError
from perilune.runtime.vitals import cpu_seconds
from perilune.weights import manifest_of
from services.master.liveness import Liveness
from services.rollout.engines import make_engine
from services.rollout.engines.base import SampleRequest, Sampling
from services.rollout.engines.process.engine import MAX_DEATHS, ProcessEngine
from tests.conformance.conftest import OPTIONS, installed_engines, llama
from tests.unit.rollout.tiny import PATIENCE_S, Caller, raw_tensors, recomputed, response, sample, spec_of


@pytest.fixture(scope="module", params=[engine for engine in installed_engines() if not engine.startswith("torch")])
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    """Serves a model whose head is not tied to its embedding."""
    caller = Caller(llama(seed=0, tied=False), options=OPTIONS[request.param]())
    yield caller
    caller.engine.close()


def kill(caller: Caller) -> int:
    assert isinstance(caller.engine, ProcessEngine)
    os.kill(caller.engine.pid, signal.SIGKILL)
    return caller.engine.pid


def long_samples(started: threading.Semaphore) -> list[SampleRequest]:
    return [
        SampleRequest(str(i), np.array([5 + i, 9]), 110, Sampling(), seed=i, watch=lambda _: started.release())
        for i in range(12)
    ]


def test_samples_go_on_where_a_process_died(caller: Caller) -> None:
    model = llama(seed=0, tied=False)
    samples = long_samples(threading.Semaphore(0))
    wanted = caller.generate(samples)
    started = threading.Semaphore(0)
    caller.delivered = []
    caller.engine.submit(long_samples(started))
    for _ in range(20):
        assert started.acquire(timeout=PATIENCE_S)
    dead = kill(caller)
    generated = {each.sample.id: each for each in caller.wait_for(len(samples))}
    assert caller.engine.pid != dead
    assert len(caller.delivered) == len(samples)
    # The same random numbers: where the roundings of two batches part a sample, its log-probabilities still hold.
    assert sum(response(generated[name]) == response(wanted[name]) for name in wanted) >= len(samples) - 1
    for each in generated.values():
        assert np.abs(recomputed(model, each) - np.concatenate([s.full_logprobs for s in each.spans])).max() < 2e-3


def test_a_process_that_is_stopped_shows_in_the_vital_signs_of_the_worker_that_lives(caller: Caller) -> None:
    """No token, and no processor time of the processes below: that is stuck, though the worker answers."""
    assert isinstance(caller.engine, ProcessEngine)
    liveness, clock = Liveness(lambda: clock[0]), [0.0]
    started = threading.Semaphore(0)
    caller.delivered = []
    caller.engine.submit(long_samples(started))
    assert started.acquire(timeout=PATIENCE_S)
    os.kill(caller.engine.pid, signal.SIGSTOP)
    time.sleep(0.2)  # what it had said is read
    try:
        with liveness.belonging("rollout-1"):
            for _ in range(8):  # 21 s of heartbeats
                capacity = caller.engine.capacity()
                assert capacity.num_running
                clock[0] += 3
                liveness.hear(
                    HeartbeatRequest(
                        worker_id="rollout-1",
                        doing="samples run",
                        progress=capacity.num_generated_tokens,
                        cpu_seconds=cpu_seconds(),
                    )
                )
            (change,) = liveness.look()
            assert change.text.startswith("rollout-1 has made no progress (samples run) since ")
    finally:
        os.kill(caller.engine.pid, signal.SIGCONT)
    assert len(caller.wait_for(12)) == 12


def test_a_version_that_comes_while_the_process_is_dead_is_served_by_the_next(caller: Caller) -> None:
    newer = llama(seed=1, tied=False)
    tensors = raw_tensors(newer)
    kill(caller)
    caller.engine.load(manifest_of(1, tensors).version, tensors).result(PATIENCE_S)
    each = caller.generate([sample("after", [5, 9], 20)])["after"]
    assert [span.policy.number for span in each.spans] == [1]
    assert np.abs(recomputed(newer, each) - each.spans[0].full_logprobs).max() < 2e-3


def test_processes_that_die_one_after_the_other_end_the_engine(caller: Caller) -> None:
    for _ in range(MAX_DEATHS + 1):
        dead = kill(caller)
        while caller.engine.pid == dead and not caller.engine.stopped.done():
            threading.Event().wait(0.05)
    with pytest.raises(UnavailableError, match=f"died {MAX_DEATHS + 1} times in a row"):
        caller.engine.stopped.result(PATIENCE_S)


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_a_python_without_the_library_is_named(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERILUNE_ENGINE_PYTHON", "/usr/bin/no-such-python")
    with pytest.raises(InvalidInputError, match="PERILUNE_ENGINE_PYTHON=/usr/bin/no-such-python cannot be run"):
        make_engine(spec_of(llama(seed=0), lambda _: None, options=OPTIONS[engine]()))
