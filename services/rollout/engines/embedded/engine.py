"""The embedded engine: continuous batching of any Hugging Face causal LM in PyTorch, on one thread of its own.

Loop: take what was asked for → admit waiting samples as far as there is room → one forward pass that reads new prompts
and writes one token of every running sample → deliver what ended. Weights change between two passes: running samples
then go back to the head of the queue and are read again, so that every token's log-probability is that of one version
on its whole context, and a fresh pass over the same tokens finds the same number. Or, where contexts are kept, they go
on at once from the keys and values that they have.

Where keys and values lie is the decoder's affair: in slots on a CPU, in pages on a card (`decoder.py`).

Given tokens are scored in chunks, one between two passes (`scoring.py`).

Left out: several devices, and a pass that is launched before the one before it was looked at.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import WeightStreamError
from perilune.models.device import check_precision
from perilune.models.files import build_tokenizer, read_config
from perilune.models.machine import find_device
from perilune.models.tensors import dtype_name
from perilune.models.vision import VisionReader, read_processor
from perilune.recipe import TorchEngineTable
from perilune.weights import RawTensor
from services.rollout.engines.base import (
    Capacity,
    EngineSpec,
    SampleRequest,
    TokenScores,
    TokensToScore,
    promise,
)
from services.rollout.engines.calls import Calls
from services.rollout.engines.embedded.decoder import Drawn, Row
from services.rollout.engines.embedded.layouts import make_decoder
from services.rollout.engines.embedded.model import build_model, round_to_int8, stage_tensors, swap_tensors
from services.rollout.engines.embedded.scoring import Scorer
from services.rollout.engines.embedded.sight import Sight
from services.rollout.engines.running_sample import Endings, admit

logger = logging.getLogger(__name__)


def _vision_of(spec: EngineSpec) -> VisionReader | None:
    """The reader of the model's images; None if it reads text alone."""
    return read_processor(spec.model_files, read_config(spec.model_files), build_tokenizer(spec.model_files))


class TorchEngine:
    """See `services.rollout.engines.base.Engine`."""

    def __init__(self, spec: EngineSpec) -> None:
        assert isinstance(spec.options, TorchEngineTable)
        self._options = spec.options
        device = find_device(spec.device)
        self._model = build_model(spec.model_files, spec.tensors, str(device))
        check_precision(device, dtype_name(self._model.dtype))
        self._sight = Sight(self._model)
        self._decoder = make_decoder(self._model, spec, self._sight, _vision_of(spec))
        logger.info("samples on %s, %s, %s", device.in_words(), self._decoder, dtype_name(self._model.dtype))
        self._quantize()
        self._scorer = Scorer(self._model, self._sight)
        self._endings = Endings(spec.model_files)
        self._policy = spec.policy
        self._deliver = spec.deliver
        self._max_running = spec.max_running
        self._num_generated_tokens = 0
        self._busy_s = 0.0
        self._closing = False
        self._calls = Calls()
        self.stopped = promise()
        self._staging = ThreadPoolExecutor(1, "torch-engine-staging")
        self._thread = threading.Thread(target=self._run, name="torch-engine", daemon=True)
        self._thread.start()

    # What others call, from any thread.

    @property
    def max_context(self) -> int:
        """Tokens that the model's positions reach."""
        return int(self._model.config.get_text_config().max_position_embeddings)

    def submit(self, samples: Sequence[SampleRequest]) -> None:
        """Queues samples."""
        self._calls.put(self._enqueue, samples)

    def interrupt(self, sample_ids: Sequence[str]) -> None:
        """Ends samples where they are."""
        self._calls.put(self._end_early, set(sample_ids))

    def load(self, policy: PolicyVersion, tensors: Sequence[RawTensor]) -> Future[None]:
        """Stages a version beside the one that serves, then swaps it in between two passes."""
        done = promise()
        self._staging.submit(self._stage, policy, tensors, done)
        return done

    def score(self, wanted: TokensToScore) -> Future[TokenScores]:
        """Queues a text to be read between the passes that write."""
        done: Future[TokenScores] = promise()
        self._calls.put(self._scorer.add, wanted, done)
        return done

    def capacity(self) -> Capacity:
        """Counts running and waiting samples."""
        running, waiting = len(self._decoder.rows), len(self._decoder.waiting)
        return Capacity(running, waiting, self._max_running, self._num_generated_tokens, self._busy_s)

    def close(self) -> None:
        """Ends the thread after its pass."""
        self._closing = True
        self._calls.wake()
        self._thread.join()
        self._staging.shutdown()

    # On a thread of its own, while samples are written.

    def _stage(self, policy: PolicyVersion, tensors: Sequence[RawTensor], done: Future[None]) -> None:
        try:
            staged = stage_tensors(self._model, tensors)
        except (WeightStreamError, RuntimeError) as error:  # RuntimeError: torch has no memory for it
            done.set_exception(error)
            return
        self._calls.put(self._swap, policy, staged, done)

    # The loop, on the engine's thread.

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while not self._closing:
                    if not self._has_samples and not self._scorer.has_work:
                        self._calls.make_next()
                    self._calls.make_all()
                    if self._scorer.has_work:
                        self._scorer.read_chunk(self._policy)
                    if self._has_samples:
                        self._step()
        except BaseException as error:  # those that wait for this thread must learn why it ended
            self.stopped.set_exception(error)
            raise
        finally:
            self._scorer.close()
        self.stopped.set_result(None)

    @property
    def _has_samples(self) -> bool:
        return bool(self._decoder.rows or self._decoder.waiting)

    def _enqueue(self, samples: Sequence[SampleRequest]) -> None:
        rows, over = admit(samples, self._row)
        self._decoder.waiting += rows
        if over:
            self._deliver(over)

    def _row(self, sample: SampleRequest) -> Row:
        """A sample that can run. InvalidInputError if the model cannot see its images."""
        row = Row(sample, self._endings, self.max_context)
        self._sight.look(each.image for each in sample.images)
        row.own_positions = self._sight.positions(row.tokens, sample.images)
        return row

    def _end_early(self, sample_ids: set[str]) -> None:
        here = [*self._decoder.rows, *self._decoder.waiting]
        found = [running for running in here if running.sample.id in sample_ids and not running.ended]
        for running in found:
            running.ended = True
        self._decoder.waiting = deque(running for running in self._decoder.waiting if not running.ended)
        self._deliver([running.generated(trajectory.ENDING_ABORTED) for running in found])

    def _swap(self, policy: PolicyVersion, staged: Mapping[str, Tensor], done: Future[None]) -> None:
        """Puts a version in place."""
        swap_tensors(self._model, staged, in_place=self._decoder.weights_stay)
        self._quantize()
        self._policy = policy
        self._sight.forget()
        self._decoder.swapped(keeps=self._options.context_at_swap == "keep")
        done.set_result(None)

    def _quantize(self) -> None:
        if self._options.quantization == "int8":
            round_to_int8(self._model)

    def _step(self) -> None:
        """One forward pass, and what came of it."""
        started = time.perf_counter()
        self._record(self._decoder.step())
        self._busy_s += time.perf_counter() - started

    def _record(self, drawn: Drawn) -> None:
        """Appends one token to every running sample; delivers those that ended, and frees their rows."""
        ended = []
        tokens = zip(drawn.tokens, drawn.logprobs, drawn.full_logprobs, strict=True)
        for running, (token, logprob, full_logprob) in zip(drawn.rows, tokens, strict=True):
            ending = running.add(self._policy, token, logprob, full_logprob)
            if running.sample.watch:
                running.sample.watch(running.newest())
            if ending is not None:
                ended.append(running.generated(ending))
                running.ended = True
        self._num_generated_tokens += len(drawn.rows)
        if ended:
            self._deliver(ended)
