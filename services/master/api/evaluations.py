"""EvaluationService: what models scored in tasks."""

from __future__ import annotations

import math

import grpc

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.master.v1.master_pb2_grpc import EvaluationServiceServicer
from perilune.errors import InvalidInputError, StateError
from perilune.runtime.service import rpc_errors
from services.master.evaluation_store import EvaluationStore
from services.master.store import MAX_INTEGER, Store

MAX_LISTED_SAMPLES = 500
MAX_PLACE = 1_000_000  # of a sample among an evaluation's: problems, and responses to one of them
MAX_TEXT_BYTES = 256 << 10  # of each text of a sample
MAX_NAME_BYTES = 1024
MAX_SETTINGS_BYTES = 64 << 10
MAX_SCORES = 100


class EvaluationService(EvaluationServiceServicer):
    """EvaluationService of the contract, whose comments say what each call does and raises."""

    def __init__(self, store: Store, *, may_write: bool) -> None:
        self._store, self._may_write = EvaluationStore(store), may_write

    async def RecordTaskEvaluation(
        self, request: m.RecordTaskEvaluationRequest, context: grpc.aio.ServicerContext
    ) -> m.RecordTaskEvaluationResponse:
        """Records an evaluation. INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION."""
        async with rpc_errors(context):
            check_evaluation(request.evaluation)
            await self._writable.record(request.evaluation)
            return m.RecordTaskEvaluationResponse()

    async def RecordTaskSamples(
        self, request: m.RecordTaskSamplesRequest, context: grpc.aio.ServicerContext
    ) -> m.RecordTaskSamplesResponse:
        """Keeps samples. INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION."""
        async with rpc_errors(context):
            for sample in request.samples:
                check_sample(sample)
            await self._writable.record_samples(request.evaluation_id, request.samples)
            return m.RecordTaskSamplesResponse()

    async def ListTaskEvaluations(
        self, request: m.ListTaskEvaluationsRequest, context: grpc.aio.ServicerContext
    ) -> m.ListTaskEvaluationsResponse:
        """Lists the newest evaluations."""
        async with rpc_errors(context):
            found = await self._store.evaluations(request.run_id, request.task)
            return m.ListTaskEvaluationsResponse(evaluations=found)

    async def ListTaskSamples(
        self, request: m.ListTaskSamplesRequest, context: grpc.aio.ServicerContext
    ) -> m.ListTaskSamplesResponse:
        """Lists at most MAX_LISTED_SAMPLES samples of an evaluation. NOT_FOUND."""
        async with rpc_errors(context):
            evaluation = await self._store.evaluation(request.evaluation_id)
            limit = min(request.limit or 20, MAX_LISTED_SAMPLES)
            samples, total = await self._store.samples(
                request.evaluation_id, limit, request.offset, only_wrong=request.only_wrong
            )
            return m.ListTaskSamplesResponse(evaluation=evaluation, samples=samples, num_samples=total)

    @property
    def _writable(self) -> EvaluationStore:
        if not self._may_write:
            raise StateError("this master only reads; start one with `perilune serve master` or `perilune train`")
        return self._store


def check_evaluation(evaluation: m.TaskEvaluation) -> None:
    """InvalidInputError names what of an evaluation cannot be recorded."""
    for name in ("id", "model", "task", "harness"):
        if not getattr(evaluation, name):
            raise InvalidInputError(f"an evaluation needs {name}")
    for name in ("id", "run_id", "model", "task", "harness", "harness_version"):
        _check_length(name, getattr(evaluation, name), MAX_NAME_BYTES)
    for name in ("settings_json", "note"):
        _check_length(name, getattr(evaluation, name), MAX_SETTINGS_BYTES)
    if not 1 <= len(evaluation.scores) <= MAX_SCORES:
        raise InvalidInputError(f"an evaluation has 1 to {MAX_SCORES} scores, not {len(evaluation.scores)}")
    for score in evaluation.scores:
        _check_score(score)
    if max(evaluation.num_problems, evaluation.num_samples, evaluation.policy.number) > MAX_INTEGER:
        raise InvalidInputError(f"a count or a version is beyond {MAX_INTEGER}")


def _check_score(score: m.TaskScore) -> None:
    if not score.name:
        raise InvalidInputError("a score needs a name")
    for name in ("value", "low", "high"):
        if not math.isfinite(getattr(score, name)):
            raise InvalidInputError(f"the {name} of {score.name!r} is {getattr(score, name)}, which is no number")


def check_sample(sample: m.TaskSample) -> None:
    """InvalidInputError names what of a sample cannot be kept."""
    where = f"sample {sample.number} of problem {sample.problem}"
    if max(sample.problem, sample.number) >= MAX_PLACE or sample.num_tokens > MAX_INTEGER:
        raise InvalidInputError(f"{where}: at most {MAX_PLACE} problems, and responses to each, are kept")
    if not math.isfinite(sample.value):
        raise InvalidInputError(f"{where}: its value is {sample.value}, which is no number; leave it out if it failed")
    for name in ("problem_id", "prompt", "reference", "response"):
        _check_length(f"{where}: {name}", getattr(sample, name), MAX_TEXT_BYTES)
    _check_length(f"{where}: evidence", "".join(f"{k}{v}" for k, v in sample.evidence.items()), MAX_TEXT_BYTES)


def _check_length(name: str, text: str, limit: int) -> None:
    if len(text.encode()) > limit:
        raise InvalidInputError(f"{name} has {len(text.encode())} bytes; at most {limit} are kept")
