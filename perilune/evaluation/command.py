"""One command's evaluations: a model, tasks, and a master that keeps what is found.

What a task needs (the model behind an endpoint, a sandbox, a reward service) is started when the first one needs it.
What is recorded already is not measured again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from perilune.api.master.v1.master_pb2 import TaskEvaluation
from perilune.channel import Credentials
from perilune.client import RunClient
from perilune.client.evaluations import AsyncEvaluationClient
from perilune.client.reward import read_graders
from perilune.completions import Cache, Model, ModelTable
from perilune.errors import InvalidInputError, PeriluneError
from perilune.evaluation.benchmarks import Task, find_task
from perilune.evaluation.harness import HARNESSES, Asked, Harness, python_with, run, version_of
from perilune.evaluation.own import Means, Sampling, measure
from perilune.evaluation.records import OWN_HARNESS, Measurement, evaluation_of, kept_sample, own_settings, samples_of
from perilune.evaluation.targets import Places, Target, find_target, tokenizer_at, write_tokenizer
from perilune.local import own_reward, own_sandbox

NUM_SANDBOX_SLOTS = 2


@dataclass(frozen=True)
class Request:
    """Describes what a command asks for."""

    source: str  # the model
    tasks: Sequence[str]
    home: Path
    sampling: Sampling = Sampling()  # noqa: RUF009 - it is frozen
    name: str = ""  # of the model at an endpoint
    limit: int | None = None
    graders: Sequence[Mapping[str, Any]] = ()  # for prompts of one's own
    rewards: str | None = None  # a reward service that runs
    again: bool = False  # measure what is recorded already, too
    api_key: str = ""


@dataclass
class Found:
    """Describes what came of a command."""

    evaluations: list[TaskEvaluation] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)


async def evaluate(
    request: Request, master: str, credentials: Credentials | None, notify: Callable[[str], None]
) -> Found:
    """Measures tasks one after the other; a task that fails leaves the others alone.

    Args:
        request: which model, which tasks, how.
        master: the address of one that records.
        credentials: for it.
        notify: takes a line of progress.

    Raises:
        InvalidInputError, NotFoundError, MissingDependencyError: the model or a task is not there; nothing was begun.
    """
    tasks = [task_of(each, request) for each in request.tasks]  # what is wrong is said before anything is started
    target = await asyncio.to_thread(_target, request, master, credentials)
    found = Found()
    async with Evaluator(request, target, master, credentials, notify) as evaluator:
        for task in tasks:
            try:
                found.evaluations.append(await evaluator.measure(task))
            except PeriluneError as error:  # of this task: the others may do
                found.failures.append((task.name, str(error)))
    return found


@dataclass(frozen=True)
class HarnessTask:
    """A task of another's harness."""

    harness: Harness
    name: str  # as the harness calls it


def task_of(text: str, request: Request) -> Task | HarnessTask:
    """A task as a command names it: NAME, NAME=FILE, FILE, or HARNESS:NAME. Errors as `find_task`."""
    kind, _, rest = text.partition(":")
    if kind in HARNESSES:
        python_with(HARNESSES[kind])
        return HarnessTask(HARNESSES[kind], str(Path(rest).resolve()) if Path(rest).is_file() else rest)
    name, _, path = text.partition("=")
    if not path and (Path(text).suffix and Path(text).is_file()):
        name, path = Path(text).stem, text
    return find_task(name, path, request.graders, request.limit)


def _target(request: Request, master: str, credentials: Credentials | None) -> Target:
    table = ModelTable(max_concurrent=request.sampling.max_concurrent)
    with RunClient(master, credentials=credentials) as runs:
        places = Places(request.home, runs.versions)
        return find_target(request.source, request.name, table, places, request.api_key)


class Evaluator:
    """Measures tasks of one model, for the time of a block."""

    def __init__(
        self,
        request: Request,
        target: Target,
        master: str,
        credentials: Credentials | None,
        notify: Callable[[str], None],
    ) -> None:
        self._request, self._target, self._notify = request, target, notify
        self._recorder = AsyncEvaluationClient(master, credentials=credentials)
        self._stack = contextlib.AsyncExitStack()
        self._rewards: dict[bool, str] = {}  # by whether programs can be judged there

    async def __aenter__(self) -> Self:
        """Opens what answers are kept in. StateError if it cannot be written."""
        folder = self._request.home / "evaluations"
        folder.mkdir(parents=True, exist_ok=True)
        self._cache = Cache(folder / "answers.sqlite")
        self._stack.callback(self._cache.close)
        await self._stack.enter_async_context(self._recorder)
        target = self._target
        model = Model(target.model, self._cache, self._request.api_key, identity=target.identity)
        self._model = await self._stack.enter_async_context(model)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends what was started."""
        await self._stack.aclose()

    async def measure(self, task: Task | HarnessTask) -> TaskEvaluation:
        """Measures a task, unless it is recorded already. Errors as `own.measure` and `harness.run`."""
        return await (self.by_harness(task) if isinstance(task, HarnessTask) else self.own(task))

    async def own(self, task: Task) -> TaskEvaluation:
        """Measures a task by Perilune's own driver, unless it is recorded already. Errors as `measure`."""
        sampling = self._request.sampling.of_task(task)
        version = metadata.version("perilune")
        plan = Measurement(self._target, task.name, OWN_HARNESS, version, own_settings(task, sampling))
        if (recorded := await self._recorded(plan)) is not None:
            return recorded
        await self._check_template(task)
        means = Means(self._model, self._cache, await self._reward_service(task), self._notify)
        measured = await measure(task, sampling, means)
        evaluation = evaluation_of(plan, task, measured)
        await self._recorder.record(evaluation, samples_of(task, measured.samples))
        return evaluation

    async def by_harness(self, task: HarnessTask) -> TaskEvaluation:
        """Measures a task by another's harness, unless it is recorded already. Errors as `harness.run`."""
        request, harness = self._request, task.harness
        settings = request.sampling.as_json() | {"limit": request.limit}
        plan = Measurement(
            self._target,
            Path(task.name).name,
            harness.name,
            await version_of(harness),
            _file_digest(task.name) | settings,
        )
        if (recorded := await self._recorded(plan)) is not None:
            return recorded
        url, folder = await self._model.url(), (request.home / "evaluations" / plan.id).resolve()
        asked = Asked(
            task.name,
            url,
            self._model.name,
            folder,
            request.sampling,
            request.limit,
            await asyncio.to_thread(self._tokenizer, url, folder / "tokenizer"),
            request.api_key,
        )
        began = time.monotonic()
        said = await run(harness, asked, self._notify)
        evaluation = plan.evaluation(
            said.figures,
            num_problems=said.num_problems,
            num_samples=len(said.samples) or said.num_problems,
            num_failed=sum(not sample.HasField("value") for sample in said.samples),
            seconds=time.monotonic() - began,
            note=said.note,
        )
        await self._recorder.record(evaluation, map(kept_sample, said.samples))
        return evaluation

    def _tokenizer(self, url: str, folder: Path) -> Path | None:
        """The folder with the model's tokenizer, where the endpoint shows it."""
        name, key = self._model.name, self._request.api_key
        info = tokenizer_at(url, name, key)
        return folder if info is not None and write_tokenizer(url, name, key, info, folder) else None

    async def _check_template(self, task: Task) -> None:
        """InvalidInputError if a task of chats is to be asked of a model without a chat template."""
        if self._request.sampling.plain or not task.is_chat:
            return
        url = await self._model.url()
        shown = await asyncio.to_thread(tokenizer_at, url, self._model.name, self._request.api_key)
        if shown is not None and not shown.get("chat_template"):
            raise InvalidInputError(
                f"{self._target.shown} has no chat template, and {task.name} is asked by messages: --plain asks its "
                "questions as texts to go on"
            )

    async def _recorded(self, plan: Measurement) -> TaskEvaluation | None:
        if self._request.again:
            return None
        there = await self._recorder.list(plan.target.run_id, plan.task)
        found = next((each for each in there if each.id == plan.id and not each.num_failed), None)
        if found:
            self._notify(f"{plan.task}: recorded already as {plan.id}; --again measures it again")
        return found

    async def _reward_service(self, task: Task) -> str:
        """The address of what grades a task, with a sandbox behind it where programs are judged."""
        if self._request.rewards:
            return self._request.rewards
        names = {choice.name for problem in task.problems for choice in read_graders(list(problem.graders))}
        runs_programs = "code" in names
        if runs_programs not in self._rewards:
            sandbox = await self._sandbox() if runs_programs else None
            self._rewards[runs_programs] = await self._stack.enter_async_context(own_reward(sandbox))
        return self._rewards[runs_programs]

    async def _sandbox(self) -> str:
        if named := os.environ.get("PERILUNE_SANDBOX_ADDRESS"):
            return named
        return await self._stack.enter_async_context(own_sandbox(NUM_SANDBOX_SLOTS))


def _file_digest(task: str) -> dict[str, str]:
    """A digest of a task that is a file, so that another file of its name is another measurement."""
    path = Path(task)
    return {"file_digest": hashlib.sha256(path.read_bytes()).hexdigest()[:16]} if path.is_file() else {}
