"""What the tests of the OpenAI-compatible endpoint share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest_asyncio

from tests.unit.rollout.served import Run, serving


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Run]:
    run = Run()
    run.start()
    yield run
    assert run.engine is not None
    run.engine.close()


@pytest_asyncio.fixture
async def client(run: Run) -> AsyncIterator[openai.AsyncOpenAI]:
    async for client in serving(run):
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_client() -> AsyncIterator[openai.AsyncOpenAI]:
    """The client of one run for all tests of a file that only ask for what cannot be done."""
    run = Run()
    run.start()
    async for client in serving(run):
        yield client
    assert run.engine is not None
    run.engine.close()
