"""Labelled cases, and the processes that graders run in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from services.reward.processes import Processes

CASES = Path(__file__).parents[2] / "cases"


def read_cases(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CASES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def processes() -> AsyncIterator[Processes]:
    """One pool for all tests; those that use it run on its event loop."""
    with Processes(num_processes=1, timeout_s=2.0, memory_bytes=1 << 30) as pool:
        yield pool
