"""A program run by the warm interpreter says what plain Python says in the same place, to the last byte."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.sandbox.config import JailSettings
from services.sandbox.jail.levels import open_pool
from services.sandbox.jail.pool import Pool
from services.sandbox.job import Job, JobOutcome, Limits
from services.sandbox.languages.python import LANGUAGE
from tests.integration.jails import interpreter, python

LEVEL = "namespaces" if os.getuid() == 0 else "user-namespaces"
PROGRAMS = sorted((Path(__file__).parents[1] / "cases" / "sandbox" / "endings").glob("*.py"))
STDIN = b"first line\r\nsecond \xff\n"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[Pool]:
    settings = JailSettings(levels=LEVEL, num_slots=2, max_waiting=1000, python=interpreter(LEVEL))
    opened = await open_pool(settings)
    yield opened
    await opened.close()


def _job(program: Path, warm: bool) -> Job:
    source = program.read_bytes().decode("utf-8", "surrogateescape")
    return python(
        source, LEVEL, warm=warm, stdin=STDIN, environment=LANGUAGE.environment, limits=Limits(cpu_s=5, wall_s=20)
    )


def _said(outcome: JobOutcome) -> tuple[object, ...]:
    """All that can be compared: addresses of objects differ from start to start, and an interpreter that takes its
    modules apart no longer shows lines of source, nor says an empty message the same way."""
    stderr = re.sub(rb"0x[0-9a-f]+|(?m:^    .*\n)", b"", outcome.stderr.content).rstrip(b": \n")
    return (outcome.verdict, outcome.exit_code, outcome.signal, outcome.stdout.content, stderr)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
async def test_the_end_of_a_program_is_that_of_plain_python(pool: Pool, program: Path) -> None:
    warm, plain = await asyncio.gather(pool.run(_job(program, warm=True)), pool.run(_job(program, warm=False)))
    assert _said(warm) == _said(plain)
