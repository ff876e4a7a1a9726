"""A stage of curation: its keys in the plan, and what it decides about the rows that the stages before have left."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, Score
from perilune.client.reward import RewardClient, grader, score_request
from perilune.completions import Answers, Cache, ModelTable, Sampler
from perilune.curation.workspace import Decision, Row, Survivors, batched
from perilune.errors import StateError
from perilune.recipe import GraderTable, Table, option_text

T = TypeVar("T")

GRADING_DEADLINE_S = 600.0
GRADED_TOGETHER = 4096


@dataclass
class Tools:
    """Describes what a stage may use beside the rows."""

    notify: Callable[[str], None]  # a line for the person who waits
    reward_address: str = ""  # of the service that grades
    cache: Cache | None = None
    failures: list[dict[str, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)  # of a stage, for the report

    def fail(self, row: Row, reason: str) -> None:
        """Keeps what could not be decided of a row: it is in the report, and the command's status says so."""
        self.failures.append({"place": row.place, "reason": reason})

    def fail_all(self, what: str, reason: str) -> None:
        """Keeps what could not be decided of any row."""
        self.failures.append({"place": what, "reason": reason})

    def graded(self, graders: Sequence[GraderTable], answers: Iterable[tuple[Row, str]]) -> Iterator[Score]:
        """The scores of answers, in their order."""
        choices = [
            grader(each.name, each.weight, {key: option_text(value) for key, value in each.options.items()})
            for each in graders
        ]
        with RewardClient(self.reward_address) as rewards:
            for batch in batched(answers, GRADED_TOGETHER):
                requests = [score_request(text, row.answer, question=row.question) for row, text in batch]
                yield from rewards.score_all(requests, choices, GRADING_DEADLINE_S)

    def right(self, graders: Sequence[GraderTable], answers: Iterable[tuple[Row, str]]) -> Iterator[bool | None]:
        """Tests whether each answer is right by the first grader; None where it could not be graded."""
        return (is_right(score) for score in self.graded(graders, answers))

    def answered(
        self, model: ModelTable, rows: Survivors, num_answers: int, size: int, schema: Mapping[str, Any] | None = None
    ) -> Iterator[Sequence[tuple[Row, Answers]]]:
        """Rows with a model's answers, in batches, in the order in which the answers come.

        With a schema, the endpoint is asked for JSON that follows it.
        """
        if self.cache is None:
            raise StateError("there is no place for a model's answers")
        form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
        sampler = Sampler(model, self.cache, os.environ.get(model.api_key_env, ""), form if schema else None)
        asked = sampler.sample(((row.id, row.question) for row in rows), num_answers)
        num_done = 0
        for batch in batched(as_iterator(asked), size):
            num_done += len(batch)
            self.notify(f"{model.name}: {num_done:,} of {len(rows):,} questions answered")
            yield [(rows[number], answers) for number, answers in batch]


class Stage(Table):
    """A stage. Its fields are its keys in the plan; a subclass in a file of its own and a row in STAGES make one."""

    title: ClassVar[str]  # for the report
    enabled: bool = True

    def off(self) -> str:
        """Why the stage does nothing with these keys; empty if it does."""
        return "" if self.enabled else "switched off"

    def inputs(self) -> dict[str, str]:
        """The files that the stage reads beside the rows, with their SHA-256. Errors as when they are read."""
        return {}

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """The decisions about rows, in any order; rows without one stay as they are."""
        raise NotImplementedError


def is_right(score: Score) -> bool | None:
    """Tests whether the first grader gives a full score; None if something failed."""
    return score.components[0].value >= 1 if score.status == SCORE_STATUS_OK else None


def as_iterator(items: AsyncIterator[T]) -> Iterator[T]:
    """An asynchronous iterator for code that waits; it is closed with this one."""
    with asyncio.Runner() as runner:
        try:
            while True:
                try:
                    yield runner.run(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            runner.run(_close(items))


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


async def _close(items: AsyncIterator[T]) -> None:
    close = getattr(items, "aclose", None)
    if close:
        await close()
