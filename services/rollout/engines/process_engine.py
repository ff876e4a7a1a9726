"""An engine in a process of its own: what the worker sees of vLLM and SGLang.

    worker ── Engine's calls ──▶ ProcessEngine ── wire ──▶ child.py ──▶ a driver ──▶ vLLM or SGLang

The process may run in another Python environment (PERILUNE_ENGINE_PYTHON), for these libraries pin half of theirs. All
that cannot be made again is kept on this side: the samples with every token that was drawn, and the version that is
served. So a process that dies costs nothing but its start: another takes over where it was.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import Ending, PolicyVersion
from perilune.errors import InvalidInputError, UnavailableError, WeightStreamError
from perilune.weights import RawTensor
from services.rollout.config import RolloutSettings
from services.rollout.engines import sampling, wire
from services.rollout.engines.base import Capacity, Deliver, Generated, Sample, Span
from services.rollout.engines.model import TORCH_DTYPE, end_tokens
from services.rollout.engines.stopping import StopTexts
from services.rollout.prompts import build_tokenizer
from services.rollout.repetition import Cycle, RepetitionDetector

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[3]  # that `services` is imported from
MAX_DEATHS = 3  # of the process, with no token in between
STOP_PATIENCE_S = 5.0
ALIGNMENT_BYTES = 64  # of a tensor in the weights' file


@dataclass
class _Piece:
    """Consecutive tokens of one version."""

    policy: PolicyVersion
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    full_logprobs: list[float] = field(default_factory=list)

    def span(self) -> Span:
        return Span(
            self.policy,
            np.array(self.tokens, dtype=np.int32),
            np.array(self.logprobs, dtype=np.float32),
            np.array(self.full_logprobs, dtype=np.float32),
        )


@dataclass(eq=False)
class _Running:
    """A sample that is not yet delivered."""

    sample: Sample
    tokens: list[int]  # prompt and response
    limit: int  # tokens at which it ends
    response_start: int
    stop: StopTexts | None
    repetition: RepetitionDetector | None
    cycle: Cycle | None = None  # that it ended with
    pieces: list[_Piece] = field(default_factory=list)

    def add(self, policy: PolicyVersion, token: int, logprob: float, full_logprob: float) -> None:
        if not self.pieces or self.pieces[-1].policy is not policy:
            self.pieces.append(_Piece(policy))
        self.tokens.append(token)
        self.pieces[-1].tokens.append(token)
        self.pieces[-1].logprobs.append(logprob)
        self.pieces[-1].full_logprobs.append(full_logprob)

    def generated(self, ending: Ending.ValueType) -> Generated:
        return Generated(self.sample, tuple(piece.span() for piece in self.pieces), ending, self.cycle)


@dataclass
class _Version:
    """A version on its way into the process, or in it."""

    order: wire.Load
    policy: PolicyVersion
    served: Future[None]
    life: int = -1  # of the process that was told of it


class ProcessEngine:
    """See `services.rollout.engines.base.Engine`."""

    def __init__(
        self,
        driver: str,
        model_files: Mapping[str, bytes],
        policy: PolicyVersion,
        tensors: Sequence[RawTensor],
        deliver: Deliver,
        max_running: int,
        kv_cache_bytes: int,
    ) -> None:
        self._driver = driver
        self._deliver = deliver
        self._tokenizer = build_tokenizer(model_files)
        self._vocab_size = _vocab_size(model_files)
        self._end_tokens = end_tokens(model_files, self._tokenizer)
        self._stop_texts: dict[tuple[str, ...], StopTexts] = {}
        self._layout = _layout(tensors)
        self._folder = tempfile.TemporaryDirectory(prefix="perilune-engine-")
        for name, content in model_files.items():  # `build_tokenizer` refused names that are not plain
            (Path(self._folder.name) / name).write_bytes(content)
        self._start_order = wire.Start(
            self._folder.name, _dtype(tensors), max_running, kv_cache_bytes, sorted(self._end_tokens)
        )
        # Everything below is shared between threads, under the lock.
        self._lock = threading.Lock()
        self._running: dict[int, _Running] = {}
        self._num_samples = 0
        self._num_generated_tokens = 0
        self._busy_s = 0.0
        self._busy_since = 0.0
        self._num_deaths = 0  # since the last token
        self._closing = False
        self._life = 0  # counts processes
        self._version = self._write(policy, tensors, serial=0)
        self._next_version: _Version | None = None
        self._process, self._connection, self.max_context = self._spawn(self._version)
        self.stopped: Future[None] = _promise()
        self._orders = ThreadPoolExecutor(1, f"{driver}-orders")
        self._thread = threading.Thread(target=self._run, name=f"{driver}-engine", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of the process that lives now."""
        return self._process.pid

    # What others call, from any thread. The executor's one thread does it in turn.

    def submit(self, samples: Sequence[Sample]) -> None:
        self._orders.submit(self._submit, samples)

    def interrupt(self, sample_ids: Sequence[str]) -> None:
        self._orders.submit(self._interrupt, set(sample_ids))

    def load(self, policy: PolicyVersion, tensors: Sequence[RawTensor]) -> Future[None]:
        served = _promise()
        self._orders.submit(self._load, policy, tensors, served)
        return served

    def capacity(self) -> Capacity:
        with self._lock:
            places = self._start_order.max_running
            busy_s = self._busy_s + (time.perf_counter() - self._busy_since if self._running else 0.0)
            num_running = min(len(self._running), places)
            num_waiting = len(self._running) - num_running
            return Capacity(num_running, num_waiting, places, self._num_generated_tokens, busy_s)

    def close(self) -> None:
        with self._lock:
            self._closing = True
            process = self._process
        process.kill()
        self._thread.join()
        self._orders.shutdown()
        self._folder.cleanup()

    # Orders to the process.

    def _submit(self, samples: Sequence[Sample]) -> None:
        fresh, full = {}, []
        for sample in samples:
            running = self._admit(sample)
            if 0 < len(sample.tokens) < running.limit:
                fresh[self._num_samples] = running
                self._num_samples += 1
            else:
                full.append(running.generated(trajectory.ENDING_LENGTH))
        with self._lock:
            life = self._life
            if fresh and not self._running:
                self._busy_since = time.perf_counter()
            self._running |= fresh
        if full:
            self._deliver(full)
        if fresh:
            self._send(life, _submission(fresh))

    def _admit(self, sample: Sample) -> _Running:
        stop = sample.sampling.stop
        if stop and stop not in self._stop_texts:
            self._stop_texts[stop] = StopTexts(self._tokenizer, self._vocab_size, stop)
        tokens = sample.tokens.tolist()
        limit = min(len(tokens) + sample.max_new_tokens, self.max_context)
        start = len(tokens) if sample.response_start is None else sample.response_start
        rule = sample.sampling.repetition
        detector = RepetitionDetector(rule, tokens[start:]) if rule else None
        return _Running(sample, tokens, limit, start, self._stop_texts.get(stop), detector)

    def _interrupt(self, sample_ids: set[str]) -> None:
        with self._lock:
            life = self._life
            found = {ref: running for ref, running in self._running.items() if running.sample.id in sample_ids}
            self._forget(found)
        self._send(life, wire.Abort(list(found)))
        self._deliver([running.generated(trajectory.ENDING_ABORTED) for running in found.values()])

    def _load(self, policy: PolicyVersion, tensors: Sequence[RawTensor], served: Future[None]) -> None:
        if problem := _difference(self._layout, _layout(tensors)):
            served.set_exception(WeightStreamError(problem))
            return
        version = self._write(policy, tensors, self._version.order.serial + 1, served)
        with self._lock:
            life, self._next_version = self._life, version
        self._tell_next_version(life)

    def _tell_next_version(self, life: int) -> None:
        with self._lock:
            version = self._next_version
            if version is None or version.life == life:
                return
            version.life = life
        self._send(life, version.order)

    def _catch_up(self, life: int) -> None:
        """Tells a new process what the one before had not done."""
        self._tell_next_version(life)
        with self._lock:
            running = dict(self._running) if life == self._life else {}
        if running:
            self._send(life, _submission(running))

    def _send(self, life: int, order: wire.Order) -> None:
        """To the process that lived when the order was made; the next one learns all it needs at its start."""
        with self._lock:
            connection = self._connection if life == self._life else None
        if connection is None:
            return
        try:
            wire.send(connection, order)
        except OSError:
            logger.info("the %s engine's process ended before it took an order", self._driver)

    # News from the process, on the engine's thread.

    def _run(self) -> None:
        try:
            while not self._closing:
                try:
                    self._take_news()
                except (EOFError, OSError):
                    if not self._closing:
                        self._restart()
        except BaseException as error:  # whoever waits for this thread must learn why it ended
            self._give_up_next_version("its engine has ended")
            self.stopped.set_exception(error)
            if not isinstance(error, UnavailableError):
                raise
        else:
            self.stopped.set_result(None)
        finally:
            _end(self._process)

    def _take_news(self) -> None:
        match wire.receive(self._connection):
            case wire.Drawn() as drawn:
                self._record(drawn)
            case wire.Loaded() as loaded:
                version = self._next_version
                assert version is not None
                assert version.order.serial == loaded.serial
                self._serve(version)
            case wire.Failed() as failed:
                logger.error("the %s engine's process: %s", self._driver, failed.reason)

    def _serve(self, version: _Version) -> None:
        """From now on, what is drawn is of this version."""
        with self._lock:
            old, self._version, self._next_version = self._version, version, None
        Path(old.order.path).unlink()
        version.served.set_result(None)

    def _record(self, drawn: wire.Drawn) -> None:
        policy = self._version.policy
        ended: list[Generated] = []
        overdue: list[int] = []
        watched: list[tuple[Callable[[Span], None], Span]] = []
        assert drawn.serial == self._version.order.serial
        columns = (drawn.refs, drawn.tokens, drawn.logprobs, drawn.full_logprobs)
        with self._lock:
            self._num_deaths = 0
            for ref, token, logprob, full_logprob in zip(*(column.tolist() for column in columns), strict=True):
                running = self._running.get(ref)
                if running is None:  # it ended here, and the process has not yet heard of it
                    continue
                running.add(policy, token, logprob, full_logprob)
                self._num_generated_tokens += 1
                if running.sample.watch:
                    watched.append((running.sample.watch, _Piece(policy, [token], [logprob], [full_logprob]).span()))
                ending = self._ending(running)
                if ending is not None:
                    ended.append(running.generated(ending))
                    if running.tokens[-1] not in self._end_tokens and len(running.tokens) < running.limit:
                        overdue.append(ref)  # only this side knows stop texts and repetition
                    self._forget([ref])
            life = self._life
        for watch, span in watched:
            watch(span)
        if overdue:
            self._orders.submit(self._send, life, wire.Abort(overdue))
        if ended:
            self._deliver(ended)

    def _ending(self, running: _Running) -> Ending.ValueType | None:
        if running.repetition:
            running.cycle = running.repetition.add(running.tokens[-1])
        if running.tokens[-1] in self._end_tokens:
            return trajectory.ENDING_STOP
        if running.stop and running.stop.reached(running.tokens, running.response_start):
            return trajectory.ENDING_STOP
        if running.cycle:
            return trajectory.ENDING_REPETITION
        return trajectory.ENDING_LENGTH if len(running.tokens) >= running.limit else None

    def _forget(self, refs: Iterable[int]) -> None:
        """With the lock held."""
        for ref in refs:
            del self._running[ref]
        if refs and not self._running:
            self._busy_s += time.perf_counter() - self._busy_since

    # The process.

    def _restart(self) -> None:
        """Another process takes over. UnavailableError if one after the other dies."""
        _end(self._process)
        version, process, connection = self._next_process()
        with self._lock:
            self._process, self._connection = process, connection
            self._life += 1
            life = version.life = self._life
            if self._closing:
                process.kill()
        if version is not self._version:
            self._serve(version)
        self._orders.submit(self._catch_up, life)

    def _next_process(self) -> tuple[_Version, subprocess.Popen[bytes], Connection]:
        problem = ""
        while self._num_deaths < MAX_DEATHS:
            self._num_deaths += 1
            logger.warning("the %s engine's process ended; starting it again", self._driver)
            version = self._next_version or self._version
            try:
                process, connection, _ = self._spawn(version)
            except InvalidInputError as error:
                problem = str(error)
                if version is not self._version:
                    self._give_up_next_version(problem)
            else:
                return version, process, connection
        raise UnavailableError(f"the {self._driver} engine's process died {MAX_DEATHS + 1} times in a row. {problem}")

    def _give_up_next_version(self, reason: str) -> None:
        with self._lock:
            version, self._next_version = self._next_version, None
        if version:
            version.served.set_exception(WeightStreamError(reason))

    def _spawn(self, version: _Version) -> tuple[subprocess.Popen[bytes], Connection, int]:
        """A process that serves the version, and the model's context. InvalidInputError says why it cannot."""
        ours, theirs = Pipe()
        python = RolloutSettings().engine_python
        command = [python, "-m", "services.rollout.engines.child", self._driver, str(theirs.fileno())]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        try:
            process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        except OSError as error:
            raise InvalidInputError(f"PERILUNE_ENGINE_PYTHON={python} cannot be run: {error}") from error
        theirs.close()
        try:
            return process, ours, self._introduce(ours, version)
        except BaseException:
            _end(process)
            raise

    def _introduce(self, connection: Connection, version: _Version) -> int:
        """Tells a new process what it is and gives it the weights; returns the model's context."""
        try:
            wire.send(connection, self._start_order)
            wire.send(connection, version.order)
            ready = wire.receive(connection)
            if isinstance(ready, wire.Ready) and isinstance(loaded := wire.receive(connection), wire.Loaded):
                return ready.max_context
            failed = ready if isinstance(ready, wire.Failed) else loaded
        except (EOFError, OSError):
            failed = wire.Failed("its process ended without a word; its log says why")
        raise InvalidInputError(
            f"the {self._driver} engine cannot serve this model. {getattr(failed, 'reason', failed)} "
            "(docs/engines.md says how to install engines; PERILUNE_ENGINE_PYTHON names the Python that has one)"
        )

    def _write(
        self, policy: PolicyVersion, tensors: Sequence[RawTensor], serial: int, served: Future[None] | None = None
    ) -> _Version:
        """Puts the tensors into a file that the process maps."""
        path = Path(self._folder.name) / f"weights-{serial}"
        places = []
        with path.open("wb") as file:
            for tensor in tensors:
                file.seek(-file.tell() % ALIGNMENT_BYTES, os.SEEK_CUR)
                dtype = str(TORCH_DTYPE[tensor.dtype]).removeprefix("torch.")
                places.append(wire.Place(tensor.name, dtype, list(tensor.shape), file.tell()))
                file.write(tensor.data)
        return _Version(wire.Load(serial, str(path), places), policy, served or _promise())


vllm_engine = functools.partial(ProcessEngine, "vllm")
sglang_engine = functools.partial(ProcessEngine, "sglang")


def _submission(running: Mapping[int, _Running]) -> wire.Submit:
    """All of each sample's tokens so far: a new process goes on where the old one was."""
    samples = [each.sample for each in running.values()]
    return wire.Submit(
        refs=list(running),
        num_tokens=[len(each.tokens) for each in running.values()],
        max_new_tokens=[each.limit - len(each.tokens) for each in running.values()],
        streams=[int(sampling.stream_of(sample.seed, sample.index)) for sample in samples],
        temperatures=[sample.sampling.temperature for sample in samples],
        top_ps=[sample.sampling.top_p for sample in samples],
        top_ks=[sample.sampling.top_k for sample in samples],
        tokens=np.concatenate([np.array(each.tokens, dtype=np.int32) for each in running.values()]),
    )


def _vocab_size(model_files: Mapping[str, bytes]) -> int:
    config = json.loads(model_files["config.json"])
    return int(config.get("text_config", config)["vocab_size"])


def _dtype(tensors: Sequence[RawTensor]) -> str:
    """What to compute in: what the first tensor of numbers is held in."""
    dtypes = [TORCH_DTYPE[tensor.dtype] for tensor in tensors]
    return next((str(dtype) for dtype in dtypes if dtype.is_floating_point), "torch.float32").removeprefix("torch.")


def _layout(tensors: Sequence[RawTensor]) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in tensors}


def _difference(own: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> str:
    """In words, how a version differs from the one that the engine was made with; "" if it does not."""
    for name, shape in given.items():
        if own.get(name) != shape:
            wanted = own.get(name, "none of that name")
            return f"the tensor {name} of shape {shape} is not this model's, which has {wanted}"
    missing = [name for name in own if name not in given]
    return f"the version lacks {len(missing)} of the model's tensors, the first is {missing[0]}" if missing else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(STOP_PATIENCE_S)


def _promise() -> Future[None]:
    """A future that those who wait for it cannot cancel."""
    promise: Future[None] = Future()
    promise.set_running_or_notify_cancel()
    return promise
