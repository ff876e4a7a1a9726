"""A sample in an engine: what was drawn for it so far, and whether that ends it. The same for every engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import Ending, PolicyVersion
from perilune.models.files import build_tokenizer, end_tokens, num_embeddings
from services.rollout.engines import sampling
from services.rollout.engines.base import Generated, SampleRequest, Span
from services.rollout.engines.stopping import StopTexts
from services.rollout.repetition import Cycle, RepetitionDetector


class Endings:
    """The end tokens and stop texts of one model's responses."""

    def __init__(self, model_files: Mapping[str, bytes]) -> None:
        self._vocab_size = num_embeddings(json.loads(model_files["config.json"]))
        self._tokenizer = build_tokenizer(model_files)
        self._stop_texts: dict[tuple[str, ...], StopTexts] = {}
        self.tokens = end_tokens(model_files, self._tokenizer)

    def texts(self, stop: tuple[str, ...]) -> StopTexts | None:
        """Looks for these stop texts; None if there are none."""
        if stop and stop not in self._stop_texts:
            self._stop_texts[stop] = StopTexts(self._tokenizer, self._vocab_size, stop)
        return self._stop_texts.get(stop)


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


class RunningSample:
    """A sample that is not yet delivered, and every token of it."""

    def __init__(self, sample: SampleRequest, endings: Endings, max_context: int) -> None:
        self.sample = sample
        self.tokens: list[int] = sample.tokens.tolist()  # prompt and response
        self.limit = min(len(self.tokens) + sample.max_new_tokens, max_context)  # tokens at which it ends
        self.stream = sampling.stream_of(sample.seed, sample.index)
        self._pieces: list[_Piece] = []
        self._end_tokens = endings.tokens
        self._stop = endings.texts(sample.sampling.stop)
        self._response_start = len(self.tokens) if sample.response_start is None else sample.response_start
        rule = sample.sampling.repetition
        self._repetition = RepetitionDetector(rule, self.tokens[self._response_start :]) if rule else None
        self._cycle: Cycle | None = None  # that it ended with

    @property
    def has_room(self) -> bool:
        """Tests whether there is anything to draw, and anything to draw it from."""
        return 0 < len(self.tokens) < self.limit

    def add(self, policy: PolicyVersion, token: int, logprob: float, full_logprob: float) -> Ending.ValueType | None:
        """Takes the next token. Returns how the sample ends with it, if it does."""
        if not self._pieces or self._pieces[-1].policy is not policy:
            self._pieces.append(_Piece(policy))
        piece = self._pieces[-1]
        self.tokens.append(token)
        piece.tokens.append(token)
        piece.logprobs.append(logprob)
        piece.full_logprobs.append(full_logprob)
        if self._repetition:
            self._cycle = self._repetition.add(token)
        if token in self._end_tokens:
            return trajectory.ENDING_STOP
        if self._stop and self._stop.reached(self.tokens, self._response_start):
            return trajectory.ENDING_STOP
        if self._cycle:
            return trajectory.ENDING_REPETITION
        return trajectory.ENDING_LENGTH if len(self.tokens) >= self.limit else None

    def newest(self) -> Span:
        """The last token, for a watcher."""
        piece = self._pieces[-1]
        return _Piece(piece.policy, piece.tokens[-1:], piece.logprobs[-1:], piece.full_logprobs[-1:]).span()

    def generated(self, ending: Ending.ValueType) -> Generated:
        """The sample as it is delivered, with this ending."""
        return Generated(self.sample, tuple(piece.span() for piece in self._pieces), ending, self._cycle)


R = TypeVar("R", bound=RunningSample)


def admit(samples: Iterable[SampleRequest], make: Callable[[SampleRequest], R]) -> tuple[list[R], list[Generated]]:
    """Samples as an engine runs them, and what is to be delivered at once: those without room, and those that cannot
    be taken."""
    admitted: list[R] = []
    over: list[Generated] = []
    for sample in samples:
        try:
            running = make(sample)
        except Exception as error:  # noqa: BLE001 - stop texts meet the tokenizer here; what it raises is the sample's
            reason = f"the engine cannot take the sample: {type(error).__name__}: {error}"
            over.append(Generated(sample, (), trajectory.ENDING_ABORTED, error=reason))
            continue
        if running.has_room:
            admitted.append(running)
        else:
            over.append(running.generated(trajectory.ENDING_LENGTH))
    return admitted, over
