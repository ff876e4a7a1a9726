"""The protocol of an inference engine: six calls and one callback.

An engine owns its threads or processes. Its calls may come from any thread and return at once; what was generated is
handed to `deliver` in batches, from the engine's own thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perilune.api.trajectory.v1.trajectory_pb2 import Ending, PolicyVersion
from perilune.models.vision import PlacedImage
from perilune.recipe import EngineBase, TorchEngineTable
from perilune.weights import RawTensor
from services.rollout.repetition import Cycle, Rule

DEFAULT_CACHE_BYTES = 4 << 30  # for keys and values, where no setting and no card says


@dataclass(frozen=True)
class Sampling:
    """The distribution to sample from: softmax(logits / temperature), cut to top_k, then to the nucleus top_p."""

    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0  # 1 means no nucleus truncation
    top_k: int = 0  # 0 means no top-k truncation
    stop: tuple[str, ...] = ()  # text that ends the sample; it stays part of it
    repetition: Rule | None = None  # when a sample that repeats itself is ended


@dataclass(frozen=True)
class Span:
    """Consecutive tokens that one version wrote."""

    policy: PolicyVersion
    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]  # of the distribution that was sampled from, in nats
    full_logprobs: NDArray[np.float32]  # of the whole distribution at temperature 1, in nats


@dataclass(frozen=True)
class SampleRequest:
    """One sample to generate, or to continue: any engine may go on where another stopped."""

    id: str
    tokens: NDArray[np.int32]  # prompt and response so far; samples with equal tokens and images share their prefill
    max_new_tokens: int  # what is left of the sample's limit
    sampling: Sampling
    # The sample's own random stream: token number n is drawn with the n-th number of the stream, whatever else runs.
    seed: int = 0
    index: int = 0
    response_start: int | None = None  # where in `tokens` the response begins, if it is continued; else after them
    images: tuple[PlacedImage, ...] = ()  # of the prompt, where they lie in `tokens`
    # Called with new tokens while the sample runs, on the engine's thread: to show them as they come.
    watch: Callable[[Span], None] | None = None


@dataclass(frozen=True)
class Generated:
    """A sample that ended, with what this engine added to it. ENDING_ABORTED: it was interrupted."""

    sample: SampleRequest
    spans: tuple[Span, ...]
    ending: Ending.ValueType
    repetition: Cycle | None = None  # where it began to repeat itself, counted from the response's start
    error: str = ""  # why the engine could not take it; it is then ENDING_ABORTED


@dataclass(frozen=True)
class TokensToScore:
    """Tokens that are given, and where in them log-probabilities are wanted.

    Position p is the place of token p, given those before it: 1 to len(tokens). The last of these has no token yet.
    """

    tokens: NDArray[np.int32]
    positions: NDArray[np.int64]  # ascending
    chosen: NDArray[np.int32]  # [positions, C]: ids whose log-probabilities are wanted there, beside the own token's
    num_top: int = 0  # most likely ids that are wanted at each position
    images: tuple[PlacedImage, ...] = ()  # where they lie in `tokens`


@dataclass(frozen=True)
class TokenScores:
    """Log-probabilities at the wanted positions: by one version, at temperature 1, in nats."""

    policy: PolicyVersion
    logprobs: NDArray[np.float32]  # [positions]: of the token that is there; NaN where none is
    ranks: NDArray[np.int32]  # [positions]: how many are at least as likely as that token; 0 where none is
    chosen: NDArray[np.float32]  # [positions, C]
    top_ids: NDArray[np.int32]  # [positions, num_top], the most likely first
    top_logprobs: NDArray[np.float32]


@dataclass(frozen=True)
class Capacity:
    """Describes how busy an engine is."""

    num_running: int
    num_waiting: int
    max_running: int  # samples it decodes at once at most
    num_generated_tokens: int
    busy_s: float  # seconds with at least one sample running


Deliver = Callable[[Sequence[Generated]], None]


@dataclass(frozen=True)
class EngineSpec:
    """All that an engine is made from."""

    model_files: Mapping[str, bytes]  # the model's small files, by name
    policy: PolicyVersion  # the first version to serve
    tensors: Sequence[RawTensor]  # its weights
    deliver: Deliver  # gets what was generated, on the engine's own thread
    max_running: int  # samples to decode at once at most
    kv_cache_bytes: int | None  # memory for keys and values; None: as much as the card has room for, or 4 GiB
    options: EngineBase = field(default_factory=TorchEngineTable)  # which engine, and its keys in the recipe
    device: str = "auto"  # where its model is; each engine takes the first that it can use


def promise() -> Future[Any]:
    """A future that those who wait for it cannot cancel."""
    made: Future[Any] = Future()
    made.set_running_or_notify_cancel()
    return made


class Engine(Protocol):
    """One policy being sampled. Made from an `EngineSpec`, whose version it serves first.

    It fails loudly when it is made: InvalidInputError if it cannot run such a model.
    """

    @property
    def max_context(self) -> int:
        """Tokens of prompt and response together that the model can read."""

    @property
    def stopped(self) -> Future[None]:
        """Completes after `close`; fails with whatever ended the engine before."""

    def submit(self, samples: Sequence[SampleRequest]) -> None:
        """Queues samples; each is delivered exactly once, when it ended, with its tokens and log-probabilities."""

    def interrupt(self, sample_ids: Sequence[str]) -> None:
        """Ends samples where they are: they are delivered with ENDING_ABORTED. Unknown ids are ignored."""

    def load(self, policy: PolicyVersion, tensors: Sequence[RawTensor]) -> Future[None]:
        """Swaps a staged version in between two decode steps, then completes the future.

        Samples that run go on under the new version: their span is closed and the next one opened. Their contexts are
        read again by it, or, in an engine that keeps contexts, stay what the version before made of them; samples that
        come later are read by the new version either way. The future has WeightStreamError if the tensors are not this
        model's; the version before then still serves.
        """

    def score(self, wanted: TokensToScore) -> Future[TokenScores]:
        """Reads given tokens, and draws none. UnavailableError (in the future) if the engine ends before.

        InvalidInputError (in the future): this engine cannot.
        """

    def capacity(self) -> Capacity:
        """Says how busy it is."""

    def close(self) -> None:
        """Stops at once. What still ran is not delivered."""
