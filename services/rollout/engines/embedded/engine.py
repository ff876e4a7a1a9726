"""The embedded engine: continuous batching of any Hugging Face causal LM in plain PyTorch, on one thread of its own.

Loop: take what was asked for → admit waiting samples into free rows → one forward pass that reads new prompts and
writes one token of every running sample → deliver what ended. Weights change between two passes: running samples then
go back to the head of the queue and are read again, so that every token's log-probability is that of one version on its
whole context, and a fresh pass over the same tokens finds the same number. Or, where contexts are kept, they go on at
once from the keys and values that they have.

Given tokens are scored in chunks, one between two passes (`scoring.py`).

Left out: several devices, chunked prefill (a prompt is read in one pass), prefixes kept after their samples ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import WeightStreamError
from perilune.models.device import check_precision
from perilune.models.machine import find_device
from perilune.models.tensors import dtype_name
from perilune.recipe import TorchEngineTable
from perilune.weights import RawTensor
from services.rollout.engines import sampling
from services.rollout.engines.base import (
    Capacity,
    EngineSpec,
    SampleRequest,
    TokenScores,
    TokensToScore,
    promise,
)
from services.rollout.engines.calls import Calls
from services.rollout.engines.embedded.model import build_model, round_to_int8, stage_tensors, swap_tensors
from services.rollout.engines.embedded.scoring import Scorer
from services.rollout.engines.embedded.slots import ATTENTION, Slots, forward, num_read
from services.rollout.engines.probe import check_decoding
from services.rollout.engines.running_sample import Endings, RunningSample, admit

logger = logging.getLogger(__name__)

SORT_COST = 3  # of copying a stored position, in those that attention reads
# Prompts are read up to so many tokens a pass, at least one: enough for fast products, and few enough that those who
# write meanwhile, and all after a swap of weights, do not wait long for their next token.
PREFILL_TOKENS = 512


class _Row(RunningSample):
    """A sample on its way: waiting, or in a row."""

    prefix = b""  # with what its slot began, if this version read it
    ended = False  # its row is free from the next admission on


@dataclass(frozen=True)
class _RowSampling:
    """How each row is to be sampled, in the arrays that the sampler takes."""

    streams: NDArray[np.uint64]
    temperature_B: Tensor
    top_p_B: Tensor
    top_k_B: Tensor

    @staticmethod
    def of(rows: Sequence[_Row], device: torch.device) -> _RowSampling:
        wanted = [row.sample.sampling for row in rows]
        return _RowSampling(
            np.array([row.stream for row in rows], dtype=np.uint64),
            torch.tensor([each.temperature for each in wanted], dtype=torch.float32, device=device),
            torch.tensor([each.top_p for each in wanted], dtype=torch.float32, device=device),
            torch.tensor([each.top_k for each in wanted], dtype=torch.int64, device=device),
        )


class TorchEngine:
    """See `services.rollout.engines.base.Engine`."""

    def __init__(self, spec: EngineSpec) -> None:
        assert isinstance(spec.options, TorchEngineTable)
        self._options = spec.options
        device = find_device(spec.device)
        self._model = build_model(spec.model_files, spec.tensors, str(device))
        check_precision(device, dtype_name(self._model.dtype))
        logger.info("samples on %s, attention %s, %s", device.in_words(), ATTENTION, dtype_name(self._model.dtype))
        token_bytes = check_decoding(self._model) * self._model.dtype.itemsize
        self._quantize()
        self._scorer = Scorer(self._model)
        self._endings = Endings(spec.model_files)
        self._policy = spec.policy
        self._deliver = spec.deliver
        self._max_running = spec.max_running
        self._max_cached_tokens = spec.kv_cache_bytes // token_bytes
        self._slots = Slots(spec.max_running, self._max_cached_tokens, self._model.device)
        self._rows: list[_Row] = []
        self._row_sampling = _RowSampling.of([], self._model.device)
        self._num_wasted = 0  # positions that attention read for nothing, since rows were last put in order
        self._waiting: deque[_Row] = deque()
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
        """Counts rows and waiting samples."""
        return Capacity(
            len(self._rows), len(self._waiting), self._max_running, self._num_generated_tokens, self._busy_s
        )

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
                    if not self._rows and not self._waiting and not self._scorer.has_work:
                        self._calls.make_next()
                    self._calls.make_all()
                    if self._scorer.has_work:
                        self._scorer.read_chunk(self._policy)
                    started = time.perf_counter()
                    prefills = self._admit()
                    if self._rows:
                        self._step(prefills)
                        self._busy_s += time.perf_counter() - started
        except BaseException as error:  # those that wait for this thread must learn why it ended
            self.stopped.set_exception(error)
            raise
        finally:
            self._scorer.close()
        self.stopped.set_result(None)

    def _enqueue(self, samples: Sequence[SampleRequest]) -> None:
        rows, over = admit(samples, lambda sample: _Row(sample, self._endings, self.max_context))
        self._waiting += rows
        if over:
            self._deliver(over)

    def _end_early(self, sample_ids: set[str]) -> None:
        here = [*self._rows, *self._waiting]
        found = [running for running in here if running.sample.id in sample_ids and not running.ended]
        for running in found:
            running.ended = True
        self._waiting = deque(running for running in self._waiting if not running.ended)
        self._deliver([running.generated(trajectory.ENDING_ABORTED) for running in found])

    def _swap(self, policy: PolicyVersion, staged: Mapping[str, Tensor], done: Future[None]) -> None:
        """Puts a version in place. Slots hold what the one before read: rows are read again, or are not copied from."""
        swap_tensors(self._model, staged)
        self._quantize()
        self._policy = policy
        if self._options.context_at_swap == "keep":
            for running in self._rows:
                running.prefix = b""
        else:
            self._waiting.extendleft(running for running in reversed(self._rows) if not running.ended)
            self._rows = []
        done.set_result(None)

    def _quantize(self) -> None:
        if self._options.quantization == "int8":
            round_to_int8(self._model)

    def _admit(self) -> dict[bytes, list[int]]:
        """Gives free rows to waiting samples, and closes the gaps that stay.

        Returns the prompts to read, without their last token, each with the rows that begin with it. A prompt that
        begins the slot of a running sample is copied from there instead.
        """
        holes = deque(row for row, running in enumerate(self._rows) if running.ended)
        num_running = len(self._rows) - len(holes)
        longest = max((running.limit for running in self._rows if not running.ended), default=0)
        cached = {running.prefix: row for row, running in enumerate(self._rows) if not running.ended}
        prefills: dict[bytes, list[int]] = {}
        copies: list[tuple[int, int]] = []
        num_tokens = 0
        while self._waiting and num_running < self._max_running:
            running = self._waiting[0]
            running.prefix = np.array(running.tokens[:-1], dtype=np.int32).tobytes()
            if running.prefix not in cached and running.prefix not in prefills:
                num_tokens += len(running.tokens)
            too_much = (num_running + 1) * max(longest, running.limit) > self._max_cached_tokens
            if (num_running and too_much) or (prefills and num_tokens > PREFILL_TOKENS):
                break
            self._waiting.popleft()
            longest = max(longest, running.limit)
            row = holes.popleft() if holes else len(self._rows)
            self._rows[row : row + 1] = [running]
            num_running += 1
            if running.prefix in cached:
                copies.append((cached[running.prefix], row))
            elif running.prefix:
                prefills.setdefault(running.prefix, []).append(row)
        self._slots.reserve(len(self._rows), longest)
        self._slots.copy(copies, max((len(self._rows[row].tokens) for _, row in copies), default=0))
        self._close_gaps(holes)
        self._row_sampling = _RowSampling.of(self._rows, self._model.device)
        return prefills

    def _close_gaps(self, holes: deque[int]) -> None:
        """The last rows move into holes: a pass computes whatever lies between the first row and the last."""
        moves = []
        while holes:
            last = self._rows.pop()
            if last.ended:
                holes.pop()
                continue
            hole = holes.popleft()
            self._rows[hole] = last
            moves.append((len(self._rows), hole))
        self._slots.copy(moves, max((len(self._rows[hole].tokens) for _, hole in moves), default=0))

    def _positions(self) -> NDArray[np.int64]:
        return np.array([len(running.tokens) - 1 for running in self._rows], dtype=np.int64)

    def _step(self, prefills: dict[bytes, list[int]]) -> None:
        """One forward pass: reads the new prompts and writes a token of every running sample."""
        positions = self._positions()
        newest = [running.tokens[-1] for running in self._rows]
        logits_BV = forward(self._model, self._slots, prefills, newest, positions)
        self._record(*self._draw(logits_BV, positions))
        self._put_in_order()

    def _draw(self, logits_BV: Tensor, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        wanted = self._row_sampling
        uniform_B = torch.from_numpy(sampling.uniforms(wanted.streams, positions)).to(logits_BV.device)
        return sampling.draw(logits_BV, wanted.temperature_B, wanted.top_p_B, wanted.top_k_B, uniform_B)

    def _record(self, tokens_B: Tensor, logprobs_B: Tensor, full_logprobs_B: Tensor) -> None:
        """Appends one token to every running sample; delivers those that ended, and frees their rows."""
        ended = []
        drawn = zip(tokens_B.tolist(), logprobs_B.tolist(), full_logprobs_B.tolist(), strict=True)
        for running, (token, logprob, full_logprob) in zip(self._rows, drawn, strict=True):
            ending = running.add(self._policy, token, logprob, full_logprob)
            if running.sample.watch:
                running.sample.watch(running.newest())
            if ending is not None:
                ended.append(running.generated(ending))
                running.ended = True
        self._num_generated_tokens += len(tokens_B)
        if ended:
            self._deliver(ended)

    def _put_in_order(self) -> None:
        """Sorts rows by length, once their disorder has cost attention as much reading as sorting them does."""
        lengths = np.array([0 if running.ended else len(running.tokens) for running in self._rows])
        order = np.argsort(-lengths, kind="stable")
        self._num_wasted += num_read(lengths) - num_read(lengths[order])
        if self._num_wasted > SORT_COST * lengths.sum():
            live = [source for source in order.tolist() if not self._rows[source].ended]
            self._slots.copy([(source, row) for row, source in enumerate(live)], int(lengths.max()))
            self._rows = [self._rows[source] for source in live]
            self._num_wasted = 0
