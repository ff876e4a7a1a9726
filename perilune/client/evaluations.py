"""Evaluations by tasks, at a master: record what a model scored, and read what is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from perilune.api.master.v1.master_pb2 import (
    ListTaskEvaluationsRequest,
    ListTaskSamplesRequest,
    ListTaskSamplesResponse,
    RecordTaskEvaluationRequest,
    RecordTaskSamplesRequest,
    TaskEvaluation,
    TaskSample,
)
from perilune.api.master.v1.master_pb2_grpc import EvaluationServiceStub
from perilune.channel import Credentials
from perilune.client.connection import DEADLINE_S, AsyncConnection, Connection
from perilune.client.messages import message

PART_BYTES = 1 << 20  # of samples in one call; a larger one goes alone


class EvaluationClient(Connection):
    """Calls a master: `with EvaluationClient("127.0.0.1:7040") as evaluations: evaluations.list()`.

    Every method raises UnavailableError if the master does not answer.
    """

    def __init__(self, address: str, deadline_s: float = DEADLINE_S, credentials: Credentials | None = None) -> None:
        super().__init__(address, deadline_s, credentials)
        self._stub = EvaluationServiceStub(self._channel)

    def record(self, evaluation: TaskEvaluation, samples: Iterable[TaskSample] = ()) -> None:
        """Records an evaluation and its samples; repeating it changes nothing.

        Raises:
            NotFoundError: it names a run that is not there.
            InvalidInputError: something of it cannot be kept; the message says what.
            StateError: the master only reads.
        """
        self._call(self._stub.RecordTaskEvaluation, RecordTaskEvaluationRequest(evaluation=evaluation))
        for part in in_parts(evaluation.id, samples):
            self._call(self._stub.RecordTaskSamples, part)

    def list(self, run_id: str = "", task: str = "") -> Sequence[TaskEvaluation]:
        """The newest evaluations, of a run or a task where these are given."""
        request = message(ListTaskEvaluationsRequest, run_id=run_id, task=task)
        return self._call(self._stub.ListTaskEvaluations, request).evaluations

    def samples(
        self, evaluation_id: str, limit: int = 20, offset: int = 0, *, only_wrong: bool = False
    ) -> ListTaskSamplesResponse:
        """An evaluation with some of its samples. NotFoundError."""
        return self._call(self._stub.ListTaskSamples, _samples_request(evaluation_id, limit, offset, only_wrong))


class AsyncEvaluationClient(AsyncConnection):
    """EvaluationClient for asyncio."""

    def __init__(self, address: str, deadline_s: float = DEADLINE_S, credentials: Credentials | None = None) -> None:
        super().__init__(address, deadline_s, credentials)
        self._stub = EvaluationServiceStub(self._channel)

    async def record(self, evaluation: TaskEvaluation, samples: Iterable[TaskSample] = ()) -> None:
        """See EvaluationClient.record."""
        await self._call(self._stub.RecordTaskEvaluation, RecordTaskEvaluationRequest(evaluation=evaluation))
        for part in in_parts(evaluation.id, samples):
            await self._call(self._stub.RecordTaskSamples, part)

    async def list(self, run_id: str = "", task: str = "") -> Sequence[TaskEvaluation]:
        """See EvaluationClient.list."""
        request = message(ListTaskEvaluationsRequest, run_id=run_id, task=task)
        return (await self._call(self._stub.ListTaskEvaluations, request)).evaluations

    async def samples(
        self, evaluation_id: str, limit: int = 20, offset: int = 0, *, only_wrong: bool = False
    ) -> ListTaskSamplesResponse:
        """See EvaluationClient.samples."""
        request = _samples_request(evaluation_id, limit, offset, only_wrong)
        return await self._call(self._stub.ListTaskSamples, request)


def in_parts(evaluation_id: str, samples: Iterable[TaskSample]) -> Iterator[RecordTaskSamplesRequest]:
    """Requests of about PART_BYTES each with all samples."""
    part, size = RecordTaskSamplesRequest(evaluation_id=evaluation_id), 0
    for sample in samples:
        if size and size + sample.ByteSize() > PART_BYTES:
            yield part
            part, size = RecordTaskSamplesRequest(evaluation_id=evaluation_id), 0
        part.samples.append(sample)
        size += sample.ByteSize()
    if size:
        yield part


def _samples_request(evaluation_id: str, limit: int, offset: int, only_wrong: bool) -> ListTaskSamplesRequest:
    return message(
        ListTaskSamplesRequest, evaluation_id=evaluation_id, limit=limit, offset=offset, only_wrong=only_wrong
    )
