"""An engine in a hybrid pod (`perilune.weights.shared_memory`): it is there only while it has the device.

    away ──(there is work, the device is free)──▶ here ──(the trainer wants it)──▶ away
            make an engine, swap the version in,           interrupt, keep what was written,
            go on with what was interrupted                end the engine, leave the device

Any engine of the table can share its device so: it is made each time again, from its specification with the newest
version, which lies in shared memory. What is not delivered yet is kept here with every token.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import PeriluneError, UnavailableError
from perilune.models.files import read_config
from perilune.models.machine import give_memory_back
from perilune.runtime.device_lock import POLL_S, DeviceLock
from perilune.weights import RawTensor
from services.rollout.engines import make_engine
from services.rollout.engines.base import (
    Capacity,
    Engine,
    EngineSpec,
    Generated,
    SampleRequest,
    Span,
    TokenScores,
    TokensToScore,
    promise,
)
from services.rollout.engines.calls import Calls

logger = logging.getLogger(__name__)


@dataclass
class _Held:
    """A sample that is not delivered yet, and what earlier turns wrote of it."""

    sample: SampleRequest
    spans: tuple[Span, ...] = ()
    is_unwanted: bool = False  # its caller interrupted it

    def rest(self) -> SampleRequest:
        """The sample with what is left of it to do."""
        written = [span.tokens for span in self.spans]
        start = self.sample.response_start
        return replace(
            self.sample,
            tokens=np.concatenate([self.sample.tokens, *written]),
            max_new_tokens=self.sample.max_new_tokens - sum(map(len, written)),
            response_start=len(self.sample.tokens) if start is None else start,
        )


@dataclass(frozen=True, eq=False)
class _Reading:
    """A text that is to be scored, in this turn or a later one."""

    wanted: TokensToScore
    done: Future[TokenScores]


@dataclass(frozen=True)
class _Loading:
    """A version that is to be served from now on."""

    policy: PolicyVersion
    tensors: Sequence[RawTensor]
    done: Future[None]


class HybridEngine:
    """See `services.rollout.engines.base.Engine`."""

    def __init__(self, spec: EngineSpec, device: DeviceLock) -> None:
        """The first turn begins when there is work."""
        self._spec, self._device = spec, device  # the specification has the newest version
        self._held: dict[str, _Held] = {}
        self._running: set[str] = set()  # of them, those that the engine has
        self._readings: list[_Reading] = []
        self._loading: _Loading | None = None
        self._engine: Engine | None = None
        self._before = Capacity(0, 0, spec.max_running, 0, 0.0)  # what earlier turns' engines did
        self._closing = False
        self._calls = Calls()
        self.stopped = promise()
        gc.freeze()  # an engine is a web of objects, which only a collection ends: let it look at engines alone
        self.max_context = int(read_config(spec.model_files).get_text_config().max_position_embeddings)
        self._thread = threading.Thread(target=self._run, name="hybrid-engine", daemon=True)
        self._thread.start()

    # What others call, from any thread.

    def submit(self, samples: Sequence[SampleRequest]) -> None:
        """Queues samples; they wait while the engine is away."""
        self._calls.put(self._submit, samples)

    def interrupt(self, sample_ids: Sequence[str]) -> None:
        """Ends samples where they are, also while the engine is away."""
        self._calls.put(self._interrupt, sample_ids)

    def load(self, policy: PolicyVersion, tensors: Sequence[RawTensor]) -> Future[None]:
        """Has the engine swap a version in; where it is away, its next turn begins with it."""
        loading = _Loading(policy, tensors, promise())
        self._calls.put(self._load, loading)
        return loading.done

    def score(self, wanted: TokensToScore) -> Future[TokenScores]:
        """Has a text scored; it waits while the engine is away."""
        reading = _Reading(wanted, promise())
        self._calls.put(self._score, reading)
        return reading.done

    def capacity(self) -> Capacity:
        """Sums over all turns; while the engine is away, all samples wait."""
        engine, before = self._engine, self._before
        if engine is None:
            return replace(before, num_waiting=len(self._held))
        now = engine.capacity()
        return replace(
            now,
            num_generated_tokens=before.num_generated_tokens + now.num_generated_tokens,
            busy_s=before.busy_s + now.busy_s,
        )

    def close(self) -> None:
        """Ends the engine, and leaves the device."""
        self._closing = True
        self._calls.wake()
        self._thread.join()

    # On a thread of its own.

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except PeriluneError as error:
            self.stopped.set_exception(error)
        finally:
            if self._engine:
                self._engine.close()
            for reading in self._readings:
                reading.done.set_exception(UnavailableError("the engine ended; try again in a moment"))
            self._engine, self._spec = None, replace(self._spec, tensors=())
            self._device.close()
            if not self.stopped.done():
                self.stopped.set_result(None)

    def _turn(self) -> None:
        """Makes one call; takes the device for work, and leaves it where the trainer wants it."""
        has_work = bool(self._held or self._readings)
        if self._engine is None and has_work and self._device.try_take():
            self._start()
        self._calls.make_next(wait_s=POLL_S if self._engine or has_work else None)
        if self._engine and self._engine.stopped.done():
            self._engine.stopped.result()
        elif self._engine and not self._closing and self._device.is_wanted():
            self._leave(self._engine)

    def _start(self) -> None:
        started = time.perf_counter()
        self._engine = make_engine(replace(self._spec, deliver=self._arrived))
        self._running = set(self._held)
        self._engine.submit([held.rest() for held in self._held.values()])
        for reading in self._readings:
            self._pass_on(self._engine, reading)
        ready_s = time.perf_counter() - started
        logger.info("took the device; version %d is served after %.2f s", self._spec.policy.number, ready_s)

    def _leave(self, engine: Engine) -> None:
        """Returns when nothing of the engine is left. What it had in hand stays held."""
        started, did = time.perf_counter(), self.capacity()
        self._engine = None
        engine.interrupt(list(self._running))
        while self._running and not engine.stopped.done():
            self._calls.make_next(wait_s=POLL_S)
        self._before = replace(did, num_running=0, num_waiting=0)
        engine.close()
        if self._loading:
            self._served()
        del engine
        gc.collect()
        give_memory_back()
        self._device.leave()
        left_s = time.perf_counter() - started
        logger.info("left the device after %.2f s, with %d samples in hand", left_s, len(self._held))

    def _arrived(self, batch: Sequence[Generated]) -> None:
        """On the inner engine's thread."""
        self._calls.put(self._take_results, batch)

    def _take_results(self, batch: Sequence[Generated]) -> None:
        ended = []
        for generated in batch:
            held = self._held[generated.sample.id]
            self._running.discard(held.sample.id)
            if generated.ending == trajectory.ENDING_ABORTED and not (held.is_unwanted or generated.error):
                held.spans += generated.spans
            else:
                ended.append(self._end(held, generated))
        if ended:
            self._spec.deliver(ended)

    def _end(self, held: _Held, last: Generated) -> Generated:
        del self._held[held.sample.id]
        return replace(last, sample=held.sample, spans=(*held.spans, *last.spans))

    def _submit(self, samples: Sequence[SampleRequest]) -> None:
        self._held |= {sample.id: _Held(sample) for sample in samples}
        if self._engine:
            self._running |= {sample.id for sample in samples}
            self._engine.submit(samples)

    def _interrupt(self, sample_ids: Sequence[str]) -> None:
        known = [self._held[sample_id] for sample_id in sample_ids if sample_id in self._held]
        for held in known:
            held.is_unwanted = True
        if self._engine:
            self._engine.interrupt(sample_ids)
        away = [held for held in known if held.sample.id not in self._running]
        if away:
            self._spec.deliver(
                [self._end(held, Generated(held.sample, (), trajectory.ENDING_ABORTED)) for held in away]
            )

    def _score(self, reading: _Reading) -> None:
        self._readings.append(reading)
        if self._engine:
            self._pass_on(self._engine, reading)

    def _pass_on(self, engine: Engine, reading: _Reading) -> None:
        scored = engine.score(reading.wanted)
        scored.add_done_callback(lambda scored: self._calls.put(self._scored, engine, reading, scored))

    def _scored(self, engine: Engine, reading: _Reading, scored: Future[TokenScores]) -> None:
        """Takes what an engine made of a text; one that left before it had read it leaves it to the next turn."""
        error = scored.exception()
        if reading not in self._readings or (error and engine is not self._engine):
            return
        self._readings.remove(reading)
        if error:
            reading.done.set_exception(error)
        else:
            reading.done.set_result(scored.result())

    def _load(self, loading: _Loading) -> None:
        """Returns where the engine is away, its next turn begins with this version."""
        self._loading = loading
        if self._engine:
            swapped = self._engine.load(loading.policy, loading.tensors)
            swapped.add_done_callback(lambda swapped: self._calls.put(self._loaded, loading, swapped))
        else:
            self._served()

    def _loaded(self, loading: _Loading, swapped: Future[None]) -> None:
        if self._loading is not loading:
            return  # the engine left meanwhile
        if error := swapped.exception():
            self._loading = None
            loading.done.set_exception(error)
        else:
            self._served()

    def _served(self) -> None:
        assert self._loading is not None
        loading, self._loading = self._loading, None
        self._spec = replace(self._spec, policy=loading.policy, tensors=loading.tensors)
        loading.done.set_result(None)
