"""Measures versions of a run by its recipe's `[[evaluate]]` as they are committed, beside training.

A version's weights are copied as soon as it is committed, since the trainer keeps only the newest, and served from the
copy: the fleet, the batches and the ledger know nothing of it. What is recorded already is not measured again, so that
this may be stopped and started at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.channel import Credentials
from perilune.client import AsyncRunClient
from perilune.client.evaluations import AsyncEvaluationClient
from perilune.completions import ModelTable
from perilune.errors import PeriluneError
from perilune.evaluation.benchmarks import HARNESS_NAMES
from perilune.evaluation.command import Evaluator, Request, task_of
from perilune.evaluation.own import Sampling
from perilune.evaluation.targets import Target, copied_version
from perilune.recipe import EvaluateTable, Recipe, read_stored_recipe


@dataclass(frozen=True)
class Follower:
    """One run that is followed: where its weights are, and who records."""

    run_id: str
    home: Path
    master: str
    credentials: Credentials | None
    notify: Callable[[str], None]

    async def follow(self) -> list[tuple[str, str]]:
        """Measures until the run has ended and its last version is measured; gives what could not be, and why.

        NotFoundError: there is no such run. UnavailableError: the master does not answer.
        """
        failures: list[tuple[str, str]] = []
        waiting: asyncio.Queue[Target | None] = asyncio.Queue()
        async with AsyncRunClient(self.master, credentials=self.credentials) as runs:
            recipe = read_stored_recipe((await runs.get(self.run_id)).recipe_json)
            if not recipe.evaluate:
                return []
            measuring = asyncio.create_task(self._measure(recipe, waiting, failures))
            try:
                async for snapshot in runs.watch(self.run_id):
                    for version in snapshot.versions:
                        await self._take(version.policy, recipe, waiting, failures)
                waiting.put_nowait(None)
                await measuring
            finally:
                measuring.cancel()
                await asyncio.gather(measuring, return_exceptions=True)
        return failures

    async def _take(
        self,
        policy: PolicyVersion,
        recipe: Recipe,
        waiting: asyncio.Queue[Target | None],
        failures: list[tuple[str, str]],
    ) -> None:
        """Copies a version that is due, while it is kept."""
        if not await self._rows(policy, recipe):
            return
        try:
            target = await asyncio.to_thread(copied_version, self.run_id, policy, ModelTable(), self.home)
            waiting.put_nowait(target)
        except (PeriluneError, OSError) as error:  # it is gone, or there is no room for it: later ones may do
            failures.append((f"v{policy.number}", str(error)))
            self.notify(f"v{policy.number} cannot be measured: {error}")

    async def _rows(self, policy: PolicyVersion, recipe: Recipe) -> list[EvaluateTable]:
        """The rows that a version is due for and that are not recorded."""
        due = [row for row in recipe.evaluate if row.is_due(policy.number, recipe.last_version)]
        if not due:
            return []
        async with AsyncEvaluationClient(self.master, credentials=self.credentials) as client:
            there = await client.list(self.run_id)
        done = {each.task for each in there if each.policy == policy and not each.num_failed}
        return [row for row in due if recorded_name(row.task) not in done]

    async def _measure(
        self, recipe: Recipe, waiting: asyncio.Queue[Target | None], failures: list[tuple[str, str]]
    ) -> None:
        while (target := await waiting.get()) is not None:
            for row in await self._rows(target.policy, recipe):
                try:
                    await self._one(row, target)
                except PeriluneError as error:  # of this task and version: the others may do
                    failures.append((f"v{target.policy.number} {row.task}", str(error)))
                    self.notify(f"v{target.policy.number}, {row.task}: {error}")
            with contextlib.suppress(OSError):
                shutil.rmtree(target.model.path)

    async def _one(self, row: EvaluateTable, target: Target) -> None:
        sampling = Sampling(row.num_samples, row.temperature, row.top_p, row.max_tokens, plain=row.plain)
        graders = [each.model_dump(include={"name", "weight", "options"}) for each in row.graders]
        request = Request(self.run_id, [row.task], self.home, sampling, limit=row.limit, graders=graders)

        def said(line: str) -> None:
            self.notify(f"v{target.policy.number}, {line}")

        async with Evaluator(request, target, self.master, self.credentials, said) as evaluator:
            evaluation = await evaluator.measure(task_of(row.task, request))
            score = evaluation.scores[0]
            said(f"{evaluation.task}: {score.name} {score.value:.4f}")


def recorded_name(task: str) -> str:
    """The name under which a task is recorded.

    >>> recorded_name("mmlu=data/mmlu.jsonl"), recorded_name("lm-eval:my/task.yaml"), recorded_name("mine.jsonl")
    ('mmlu', 'task.yaml', 'mine')
    """
    name, _, path = task.partition("=")
    if path:
        return name
    kind, colon, rest = task.partition(":")
    if colon and kind in HARNESS_NAMES:
        return Path(rest).name
    return Path(task).stem if Path(task).suffix == ".jsonl" else task
