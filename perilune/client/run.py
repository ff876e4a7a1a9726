"""Runs of a master: submit, watch, stop, resume, and see what they did."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Literal

from perilune.api.master.v1.master_pb2 import (
    DropDeadLettersRequest,
    GetFleetRequest,
    GetFleetResponse,
    GetLedgerRequest,
    GetRunRequest,
    KeptLetter,
    Ledger,
    LedgerLine,
    ListDeadLettersRequest,
    ListLedgerLinesRequest,
    ListRunsRequest,
    ListSamplesRequest,
    ResumeRunRequest,
    RetryDeadLetterRequest,
    Run,
    StopRunRequest,
    SubmitRunRequest,
    Version,
    WatchRunRequest,
    WatchRunResponse,
)
from perilune.api.master.v1.master_pb2_grpc import RunServiceStub
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_EVALUATE, PURPOSE_TRAIN, ScoredTrajectory, StageProgress
from perilune.channel import Credentials
from perilune.client.connection import DEADLINE_S, AsyncConnection, Connection
from perilune.client.messages import message
from perilune.recipe import Recipe

STOP_DEADLINE_S = 300.0  # a run stops after the training step at hand

Mode = Literal["greedy", "sampled"]
PurposeName = Literal["train", "evaluate"]


class RunClient(Connection):
    """Calls a master: `with RunClient("127.0.0.1:7040") as runs: runs.submit(recipe)`.

    Every method raises UnavailableError if the master does not answer, and NotFoundError for an unknown run.
    """

    def __init__(self, address: str, deadline_s: float = DEADLINE_S, credentials: Credentials | None = None) -> None:
        super().__init__(address, deadline_s, credentials)
        self._stub = RunServiceStub(self._channel)

    def submit(self, recipe: Recipe | str, run_id: str = "") -> Run:
        """Queues a run; the master makes an id if none is given.

        Args:
            recipe: a Recipe, or one as JSON.
            run_id: repeat it to submit the same run once.

        Raises:
            InvalidInputError: the recipe is wrong; the message names each key.
            AlreadyExistsError: a run of this id exists with another recipe.
        """
        return self._call(self._stub.SubmitRun, _submission(recipe, run_id)).run

    def get(self, run_id: str) -> Run:
        """The run as it is now."""
        return self._call(self._stub.GetRun, message(GetRunRequest, run_id=run_id)).run

    def versions(self, run_id: str) -> Sequence[Version]:
        """Every committed version of the run with its metrics, oldest first."""
        return self._call(self._stub.GetRun, message(GetRunRequest, run_id=run_id, with_versions=True)).versions

    def stage_steps(self, run_id: str) -> Sequence[StageProgress]:
        """Steps of each stage of the run, at most some hundreds, with their metrics, in order."""
        return self._call(self._stub.GetRun, message(GetRunRequest, run_id=run_id, with_versions=True)).stage_steps

    def list(self) -> Sequence[Run]:
        """All runs, newest first."""
        return self._call(self._stub.ListRuns, ListRunsRequest()).runs

    def watch(self, run_id: str) -> Iterator[WatchRunResponse]:
        """A snapshot at once and at every change, until the run ends or the caller stops iterating."""
        return self._stream(self._stub.WatchRun, message(WatchRunRequest, run_id=run_id))

    def stop(self, run_id: str, deadline_s: float = STOP_DEADLINE_S) -> Run:
        """Stops a run and waits until it has stopped. StateError if it has ended already."""
        return self._call(self._stub.StopRun, message(StopRunRequest, run_id=run_id), deadline_s).run

    def fail(self, run_id: str, reason: str) -> Run:
        """Ends a run as failed, for a reason that none of its services can give. StateError if it has ended already."""
        return self._call(self._stub.StopRun, message(StopRunRequest, run_id=run_id, failure=reason)).run

    def resume(self, run_id: str, num_iterations: int = 0) -> Run:
        """Continues a stopped or failed run from its last version, or any ended one with more iterations.

        Args:
            num_iterations: in all, kept in its recipe; 0: as many as it has.

        Raises:
            StateError: it is stopping, or finished with all its iterations, or active while more are asked for.
            InvalidInputError: not more iterations, or more would change those that are done.
        """
        request = message(ResumeRunRequest, run_id=run_id, num_iterations=num_iterations)
        return self._call(self._stub.ResumeRun, request).run

    def ledger(self, run_id: str) -> Ledger:
        """The ledger: what became of every sample of the run."""
        return self._call(self._stub.GetLedger, message(GetLedgerRequest, run_id=run_id)).ledger

    def ledger_lines(self, run_id: str) -> Sequence[LedgerLine]:
        """Every sample of the run with what became of it, in order of group and index."""
        lines: list[LedgerLine] = []
        while page := self._call(self._stub.ListLedgerLines, _page_after(run_id, lines)).lines:
            lines += page
        return lines

    def dead_letters(self, run_id: str = "", *, with_payloads: bool = False) -> Sequence[KeptLetter]:
        """Messages that were given up and are still kept, the oldest first, of one run or of all."""
        letters: list[KeptLetter] = []
        after = 0
        while True:
            request = _letters_after(after, run_id, with_payloads=with_payloads)
            page = self._call(self._stub.ListDeadLetters, request)
            letters += page.letters
            if not page.last_number:
                return letters
            after = page.last_number

    def retry_dead(self, number: int) -> int:
        """Gives a message that was given up another try; returns how many samples are awaited again.

        StateError if the batch of its samples is settled, or only its beginning was kept.
        """
        return self._call(self._stub.RetryDeadLetter, message(RetryDeadLetterRequest, number=number)).num_samples

    def drop_dead(self, numbers: Sequence[int]) -> int:
        """Forgets messages that were given up; returns how many there were."""
        return self._call(self._stub.DropDeadLetters, message(DropDeadLettersRequest, numbers=numbers)).num_dropped

    def fleet(self) -> GetFleetResponse:
        """The fleet's members with the version that each serves, and the queues of work."""
        return self._call(self._stub.GetFleet, GetFleetRequest())

    def samples(
        self,
        run_id: str,
        *,
        purpose: PurposeName = "train",
        iteration: int = 0,
        limit: int = 20,
        mode: Mode | None = None,
        offset: int = 0,
        text_only: bool = False,
    ) -> Sequence[ScoredTrajectory]:
        """Scored trajectories of one iteration, in order of dispatch; `mode` picks among held-out ones.

        Of many come at most 500 at once: ask for the rest by `offset`. `text_only` leaves tokens out.
        """
        request = _sample_request(run_id, purpose, iteration, limit, mode, offset, text_only)
        return self._call(self._stub.ListSamples, request).samples


class AsyncRunClient(AsyncConnection):
    """RunClient for asyncio: `async with AsyncRunClient("127.0.0.1:7040") as runs: await runs.submit(recipe)`."""

    def __init__(self, address: str, deadline_s: float = DEADLINE_S, credentials: Credentials | None = None) -> None:
        super().__init__(address, deadline_s, credentials)
        self._stub = RunServiceStub(self._channel)

    async def submit(self, recipe: Recipe | str, run_id: str = "") -> Run:
        """See RunClient.submit."""
        return (await self._call(self._stub.SubmitRun, _submission(recipe, run_id))).run

    async def get(self, run_id: str) -> Run:
        """See RunClient.get."""
        return (await self._call(self._stub.GetRun, message(GetRunRequest, run_id=run_id))).run

    async def versions(self, run_id: str) -> Sequence[Version]:
        """See RunClient.versions."""
        return (await self._call(self._stub.GetRun, message(GetRunRequest, run_id=run_id, with_versions=True))).versions

    async def stage_steps(self, run_id: str) -> Sequence[StageProgress]:
        """See RunClient.stage_steps."""
        request = message(GetRunRequest, run_id=run_id, with_versions=True)
        return (await self._call(self._stub.GetRun, request)).stage_steps

    async def list(self) -> Sequence[Run]:
        """See RunClient.list."""
        return (await self._call(self._stub.ListRuns, ListRunsRequest())).runs

    def watch(self, run_id: str) -> AsyncIterator[WatchRunResponse]:
        """See RunClient.watch."""
        return self._stream(self._stub.WatchRun, message(WatchRunRequest, run_id=run_id))

    async def stop(self, run_id: str, deadline_s: float = STOP_DEADLINE_S) -> Run:
        """See RunClient.stop."""
        return (await self._call(self._stub.StopRun, message(StopRunRequest, run_id=run_id), deadline_s)).run

    async def fail(self, run_id: str, reason: str) -> Run:
        """See RunClient.fail."""
        return (await self._call(self._stub.StopRun, message(StopRunRequest, run_id=run_id, failure=reason))).run

    async def resume(self, run_id: str, num_iterations: int = 0) -> Run:
        """See RunClient.resume."""
        request = message(ResumeRunRequest, run_id=run_id, num_iterations=num_iterations)
        return (await self._call(self._stub.ResumeRun, request)).run

    async def ledger(self, run_id: str) -> Ledger:
        """See RunClient.ledger."""
        return (await self._call(self._stub.GetLedger, message(GetLedgerRequest, run_id=run_id))).ledger

    async def ledger_lines(self, run_id: str) -> Sequence[LedgerLine]:
        """See RunClient.ledger_lines."""
        lines: list[LedgerLine] = []
        while page := (await self._call(self._stub.ListLedgerLines, _page_after(run_id, lines))).lines:
            lines += page
        return lines

    async def dead_letters(self, run_id: str = "", *, with_payloads: bool = False) -> Sequence[KeptLetter]:
        """See RunClient.dead_letters."""
        letters: list[KeptLetter] = []
        after = 0
        while True:
            request = _letters_after(after, run_id, with_payloads=with_payloads)
            page = await self._call(self._stub.ListDeadLetters, request)
            letters += page.letters
            if not page.last_number:
                return letters
            after = page.last_number

    async def retry_dead(self, number: int) -> int:
        """See RunClient.retry_dead."""
        request = message(RetryDeadLetterRequest, number=number)
        return (await self._call(self._stub.RetryDeadLetter, request)).num_samples

    async def drop_dead(self, numbers: Sequence[int]) -> int:
        """See RunClient.drop_dead."""
        request = message(DropDeadLettersRequest, numbers=numbers)
        return (await self._call(self._stub.DropDeadLetters, request)).num_dropped

    async def fleet(self) -> GetFleetResponse:
        """See RunClient.fleet."""
        return await self._call(self._stub.GetFleet, GetFleetRequest())

    async def samples(
        self,
        run_id: str,
        *,
        purpose: PurposeName = "train",
        iteration: int = 0,
        limit: int = 20,
        mode: Mode | None = None,
        offset: int = 0,
        text_only: bool = False,
    ) -> Sequence[ScoredTrajectory]:
        """See RunClient.samples."""
        request = _sample_request(run_id, purpose, iteration, limit, mode, offset, text_only)
        return (await self._call(self._stub.ListSamples, request)).samples


def _submission(recipe: Recipe | str, run_id: str) -> SubmitRunRequest:
    text = recipe if isinstance(recipe, str) else recipe.model_dump_json()
    return message(SubmitRunRequest, run_id=run_id, recipe_json=text)


def _letters_after(after: int, run_id: str, *, with_payloads: bool) -> ListDeadLettersRequest:
    limit = 20 if with_payloads else 0  # of up to 8 MiB each
    return message(ListDeadLettersRequest, run_id=run_id, after_number=after, with_payloads=with_payloads, limit=limit)


def _page_after(run_id: str, lines: Sequence[LedgerLine]) -> ListLedgerLinesRequest:
    after_group = lines[-1].group_id if lines else ""
    return message(ListLedgerLinesRequest, run_id=run_id, after_group=after_group)


def _sample_request(
    run_id: str,
    purpose: PurposeName,
    iteration: int,
    limit: int,
    mode: Mode | None,
    offset: int,
    text_only: bool,
) -> ListSamplesRequest:
    return message(
        ListSamplesRequest,
        run_id=run_id,
        purpose=PURPOSE_EVALUATE if purpose == "evaluate" else PURPOSE_TRAIN,
        iteration=iteration,
        limit=limit,
        mode=mode or "",
        offset=offset,
        text_only=text_only,
    )
