"""Answers asked for one by one are computed together, and none waits in vain."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from perilune.errors import InvalidInputError, OverloadedError
from services.trainer.reward_models.classic import Triple
from services.trainer.reward_models.server import Batches, grader_of


class Model:
    """A model whose value is the response's length, over 100; it computes when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_compute = threading.Event()
        self.may_compute.set()

    def __call__(self, triples: Sequence[Triple]) -> list[float]:
        self.batches.append([response for _, _, response in triples])
        assert self.may_compute.wait(60)
        if any(response == "breaks" for _, _, response in triples):
            raise RuntimeError("out of memory")
        return [len(response) / 100 for _, _, response in triples]


@contextlib.asynccontextmanager
async def working(model: Model, max_batch: int = 3, max_waiting: int = 10) -> AsyncIterator[Batches]:
    with Batches(model, max_batch, max_waiting) as batches:
        work = asyncio.create_task(batches.work())
        try:
            yield batches
        finally:
            model.may_compute.set()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


async def until_computing(model: Model, num_batches: int) -> None:
    async with asyncio.timeout(60):
        while len(model.batches) < num_batches:
            await asyncio.sleep(0.005)


async def test_what_comes_while_a_batch_is_computed_is_the_next_one() -> None:
    model = Model()
    model.may_compute.clear()
    async with working(model) as batches:
        first = asyncio.create_task(batches.ask(("", "", "a")))
        await until_computing(model, 1)
        others = [asyncio.create_task(batches.ask(("", "", "b" * number))) for number in range(2, 7)]
        await asyncio.sleep(0)
        model.may_compute.set()
        assert await asyncio.gather(first, *others) == [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    assert [len(batch) for batch in model.batches] == [1, 3, 2]


async def test_a_batch_that_fails_fails_for_those_who_asked_and_for_no_other() -> None:
    model = Model()
    async with working(model) as batches:
        with pytest.raises(RuntimeError, match="out of memory"):
            await batches.ask(("", "", "breaks"))
        assert await batches.ask(("", "", "four")) == 0.04


async def test_who_has_gone_is_not_computed_for_and_too_many_are_refused() -> None:
    model = Model()
    model.may_compute.clear()
    async with working(model, max_waiting=2) as batches:
        first = asyncio.create_task(batches.ask(("", "", "a")))
        await until_computing(model, 1)
        leaving, staying = (asyncio.create_task(batches.ask(("", "", word))) for word in ("leaves", "stays"))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="as many answers as it can hold"):
            await batches.ask(("", "", "late"))
        leaving.cancel()
        await asyncio.sleep(0)
        model.may_compute.set()
        assert await asyncio.gather(first, staying) == [0.01, 0.05]
    assert model.batches == [["a"], ["stays"]]


async def test_the_grader_decides_by_the_threshold_and_gives_the_probability_without_one() -> None:
    async with working(Model()) as batches:
        grade = grader_of(batches)
        long = "x" * 60
        assert await grade("", "42", long) == (1.0, {"probability": "0.6000"})  # type: ignore[misc]
        assert await grade("", "42", long, threshold="0.7") == (0.0, {"probability": "0.6000"})  # type: ignore[misc]
        assert await grade("", "42", long, threshold="") == (0.6, {"probability": "0.6000"})  # type: ignore[misc]
        for hollow in ("", "Thought process:", ":"):
            assert await grade("", "42", hollow, threshold="") == (0.0, {"why": "no answer"})  # type: ignore[misc]
        for wrong in ("1", "-0.1", "half", "nan"):
            with pytest.raises(InvalidInputError, match="threshold"):
                await grade("", "42", long, threshold=wrong)  # type: ignore[misc]
        with pytest.raises(InvalidInputError, match="no reference"):
            await grade("", " ", long)  # type: ignore[misc]
