"""An engine in a process of its own: what the worker sees of vLLM and SGLang.

    worker ── Engine's calls ──▶ ProcessEngine ── wire ──▶ child.py ──▶ a driver ──▶ vLLM or SGLang

The process may run in another Python environment (PERILUNE_ENGINE_PYTHON), for these libraries pin half of theirs. All
that cannot be made again is kept on this side: the samples with every token that was drawn, and the version that is
served. So a process that dies costs nothing but its start: another takes over where it was.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import InvalidInputError, UnavailableError, WeightStreamError
from perilune.models.tensors import compute_dtype, dtype_name
from perilune.models.vision.names import names_in_files
from perilune.models.vision.reader import settings_of
from perilune.weights import RawTensor
from services.rollout.engines.base import (
    DEFAULT_CACHE_BYTES,
    Capacity,
    EngineSpec,
    Generated,
    SampleRequest,
    Span,
    TokenScores,
    TokensToScore,
    promise,
)
from services.rollout.engines.process import weight_file, wire
from services.rollout.engines.process.start import EngineProcess
from services.rollout.engines.running_sample import Endings, RunningSample, admit

logger = logging.getLogger(__name__)

MAX_DEATHS = 3  # of the process, with no token in between


@dataclass
class _Version:
    """A version on its way into the process, or in it."""

    command: wire.Load
    policy: PolicyVersion
    served: Future[None]
    sent_to: EngineProcess | None = None


class ProcessEngine:
    """See `services.rollout.engines.base.Engine`."""

    def __init__(self, spec: EngineSpec, driver: str, *, takes_images: bool = False) -> None:
        """
        Args:
            spec: of the engine.
            driver: its `Driver`, as module:class.
            takes_images: whether the driver hands images on.
        """
        self._takes_images, self._sees = takes_images, bool(settings_of(spec.model_files))
        self._type = spec.options.type
        self._driver = driver
        self._deliver = spec.deliver
        self._endings = Endings(spec.model_files)
        self._names = names_in_files(spec.model_files) if self._sees else {}
        self._layout = weight_file.layout(self._named(spec.tensors))
        self._folder = tempfile.TemporaryDirectory(prefix="perilune-engine-")
        for name, content in spec.model_files.items():  # `Endings` refused names that are not plain
            (Path(self._folder.name) / name).write_bytes(content)
        self._start = wire.StartEngine(
            engine=self._type,
            folder=self._folder.name,
            dtype=dtype_name(compute_dtype(spec.tensors)),
            max_running=spec.max_running,
            kv_cache_bytes=spec.kv_cache_bytes or DEFAULT_CACHE_BYTES,
            end_tokens=sorted(self._endings.tokens),
            options=spec.options.model_dump(mode="json", exclude={"type"}),
        )
        # Everything below is shared between threads, under the lock.
        self._lock = threading.Lock()
        self._running: dict[int, RunningSample] = {}
        self._num_samples = 0
        self._num_generated_tokens = 0
        self._busy_s = 0.0
        self._busy_since = 0.0
        self._num_deaths = 0  # since the last token
        self._closing = False
        self._version = self._write(spec.policy, spec.tensors, serial=0, served=promise())
        self._next_version: _Version | None = None
        self._process = EngineProcess.start(driver, self._start, self._version.command)
        self.stopped: Future[None] = promise()
        self._commands = ThreadPoolExecutor(1, f"{self._type}-commands")
        self._thread = threading.Thread(target=self._run, name=f"{self._type}-engine", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """The id of the process that lives now."""
        return self._process.child.pid

    @property
    def max_context(self) -> int:
        """Tokens that the process says it can read."""
        return self._process.max_context

    # What others call, from any thread. The executor's one thread does it in turn.

    def submit(self, samples: Sequence[SampleRequest]) -> None:
        """Queues samples."""
        self._commands.submit(self._submit, samples)

    def interrupt(self, sample_ids: Sequence[str]) -> None:
        """Ends samples where they are."""
        self._commands.submit(self._interrupt, set(sample_ids))

    def load(self, policy: PolicyVersion, tensors: Sequence[RawTensor]) -> Future[None]:
        """Writes a version to a file, which the process maps and loads between two steps."""
        served = promise()
        self._commands.submit(self._load, policy, tensors, served)
        return served

    def score(self, wanted: TokensToScore) -> Future[TokenScores]:
        """Refuses: this side of the wire has no words for it yet."""
        done: Future[TokenScores] = promise()
        done.set_exception(InvalidInputError(f"the {self._type} engine does not score given tokens; torch does"))
        return done

    def capacity(self) -> Capacity:
        """Counts the samples here; those beyond the process's places wait."""
        with self._lock:
            places = self._start.max_running
            busy_s = self._busy_s + (time.perf_counter() - self._busy_since if self._running else 0.0)
            num_running = min(len(self._running), places)
            num_waiting = len(self._running) - num_running
            return Capacity(num_running, num_waiting, places, self._num_generated_tokens, busy_s)

    def close(self) -> None:
        """Kills the process."""
        with self._lock:
            self._closing = True
            process = self._process
        process.child.kill()
        self._thread.join()
        self._commands.shutdown()
        self._folder.cleanup()

    # Commands to the process.

    def _submit(self, samples: Sequence[SampleRequest]) -> None:
        admitted, over = admit(samples, self._running_sample)
        fresh = dict(enumerate(admitted, start=self._num_samples))
        self._num_samples += len(fresh)
        with self._lock:
            process = self._process
            if fresh and not self._running:
                self._busy_since = time.perf_counter()
            self._running |= fresh
        if over:
            self._deliver(over)
        if fresh:
            self._send(process, _submission(fresh))

    def _running_sample(self, sample: SampleRequest) -> RunningSample:
        """A sample that can run. InvalidInputError: it has images, and this engine or model reads text alone."""
        if sample.images and not (self._takes_images and self._sees):
            what = "the model" if self._takes_images else f"the {self._type} engine of Perilune"
            raise InvalidInputError(f"{what} reads text only, and the prompt has images")
        return RunningSample(sample, self._endings, self.max_context)

    def _interrupt(self, sample_ids: set[str]) -> None:
        with self._lock:
            process = self._process
            found = {ref: running for ref, running in self._running.items() if running.sample.id in sample_ids}
            self._forget(found)
        self._send(process, wire.Abort(list(found)))
        self._deliver([running.generated(trajectory.ENDING_ABORTED) for running in found.values()])

    def _load(self, policy: PolicyVersion, tensors: Sequence[RawTensor], served: Future[None]) -> None:
        if problem := weight_file.difference(self._layout, weight_file.layout(self._named(tensors))):
            served.set_exception(WeightStreamError(problem))
            return
        version = self._write(policy, tensors, self._version.command.serial + 1, served)
        with self._lock:
            process, self._next_version = self._process, version
        self._send_next_version(process)

    def _write(
        self, policy: PolicyVersion, tensors: Sequence[RawTensor], serial: int, served: Future[None]
    ) -> _Version:
        path = Path(self._folder.name) / f"weights-{serial}"
        return _Version(
            wire.Load(serial, str(path), weight_file.write_tensors(path, self._named(tensors))), policy, served
        )

    def _named(self, tensors: Sequence[RawTensor]) -> list[RawTensor]:
        """Tensors by the names that the library reads in files."""
        return [replace(each, name=self._names.get(each.name, each.name)) for each in tensors]

    def _send_next_version(self, process: EngineProcess) -> None:
        with self._lock:
            version = self._next_version
            if version is None or version.sent_to is process:
                return
            version.sent_to = process
        self._send(process, version.command)

    def _catch_up(self, process: EngineProcess) -> None:
        """Gives a new process what the one before had not done."""
        self._send_next_version(process)
        with self._lock:
            running = dict(self._running) if process is self._process else {}
        if running:
            self._send(process, _submission(running))

    def _send(self, process: EngineProcess, command: wire.Command) -> None:
        """Sends to the process that lived when the command was made; the next one gets all it needs at its start."""
        try:
            wire.send(process.line, command)
        except OSError:
            logger.info("the %s engine's process ended before it took a command", self._type)

    # Events of the process, on the engine's thread.

    def _run(self) -> None:
        try:
            while not self._closing:
                try:
                    self._take_event()
                except (EOFError, OSError):
                    if not self._closing:
                        self._restart()
        except BaseException as error:  # those that wait for this thread must learn why it ended
            self._give_up_next_version("its engine has ended")
            self.stopped.set_exception(error)
            if not isinstance(error, UnavailableError):
                raise
        else:
            self.stopped.set_result(None)
        finally:
            self._process.end()

    def _take_event(self) -> None:
        match wire.receive(self._process.line):
            case wire.Drawn() as drawn:
                self._record(drawn)
            case wire.Loaded() as loaded:
                version = self._next_version
                assert version is not None
                assert version.command.serial == loaded.serial
                self._serve(version)
            case wire.Failed() as failed:
                logger.error("the %s engine's process: %s", self._type, failed.reason)

    def _serve(self, version: _Version) -> None:
        """From now on, what is drawn is of this version."""
        with self._lock:
            old, self._version, self._next_version = self._version, version, None
        Path(old.command.path).unlink()
        version.served.set_result(None)

    def _record(self, drawn: wire.Drawn) -> None:
        policy = self._version.policy
        ended: list[Generated] = []
        overdue: list[int] = []
        watched: list[tuple[Callable[[Span], None], Span]] = []
        assert drawn.serial == self._version.command.serial
        columns = (drawn.refs, drawn.tokens, drawn.logprobs, drawn.full_logprobs)
        with self._lock:
            self._num_deaths = 0
            for ref, token, logprob, full_logprob in zip(*(column.tolist() for column in columns), strict=True):
                running = self._running.get(ref)
                if running is None:  # it ended here, and the process does not know yet
                    continue
                ending = running.add(policy, token, logprob, full_logprob)
                self._num_generated_tokens += 1
                if running.sample.watch:
                    watched.append((running.sample.watch, running.newest()))
                if ending is not None:
                    ended.append(running.generated(ending))
                    if token not in self._endings.tokens and len(running.tokens) < running.limit:
                        overdue.append(ref)  # only this side knows stop texts and repetition
                    self._forget([ref])
            process = self._process
        for watch, span in watched:
            watch(span)
        if overdue:
            self._commands.submit(self._send, process, wire.Abort(overdue))
        if ended:
            self._deliver(ended)

    def _forget(self, refs: Iterable[int]) -> None:
        """With the lock held."""
        for ref in refs:
            del self._running[ref]
        if refs and not self._running:
            self._busy_s += time.perf_counter() - self._busy_since

    # The process's death.

    def _restart(self) -> None:
        """Another process takes over. UnavailableError if one after the other dies."""
        self._process.end()
        version, process = self._next_process()
        with self._lock:
            self._process = version.sent_to = process
            if self._closing:
                process.child.kill()
        if version is not self._version:
            self._serve(version)
        self._commands.submit(self._catch_up, process)

    def _next_process(self) -> tuple[_Version, EngineProcess]:
        problem = ""
        while self._num_deaths < MAX_DEATHS:
            self._num_deaths += 1
            logger.warning("the %s engine's process ended; starting it again", self._type)
            version = self._next_version or self._version
            try:
                return version, EngineProcess.start(self._driver, self._start, version.command)
            except InvalidInputError as error:
                problem = str(error)
                if version is not self._version:
                    self._give_up_next_version(problem)
        raise UnavailableError(f"the {self._type} engine's process died {MAX_DEATHS + 1} times in a row. {problem}")

    def _give_up_next_version(self, reason: str) -> None:
        with self._lock:
            version, self._next_version = self._next_version, None
        if version:
            version.served.set_exception(WeightStreamError(reason))


def _submission(running: Mapping[int, RunningSample]) -> wire.Submit:
    """All of each sample's tokens so far: a new process goes on where the old one was."""
    settings = [each.sample.sampling for each in running.values()]
    different = {placed.digest: placed.image.data for each in running.values() for placed in each.sample.images}
    numbers = {digest: number for number, digest in enumerate(different)}
    return wire.Submit(
        refs=list(running),
        num_tokens=[len(each.tokens) for each in running.values()],
        max_new_tokens=[each.limit - len(each.tokens) for each in running.values()],
        streams=[int(each.stream) for each in running.values()],
        temperatures=[each.temperature for each in settings],
        top_ps=[each.top_p for each in settings],
        top_ks=[each.top_k for each in settings],
        tokens=np.concatenate([np.array(each.tokens, dtype=np.int32) for each in running.values()]),
        images=[
            [[numbers[one.digest], one.start, one.end, int(one.slots[0])] for one in each.sample.images]
            for each in running.values()
        ],
        image_bytes=[len(data) for data in different.values()],
        image_data=np.frombuffer(b"".join(different.values()), np.uint8),
    )
