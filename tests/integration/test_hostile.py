"""Hostile programs, a folder each in tests/cases/hostile: each gets its verdict, leaves nothing, and harms nobody.

`case.toml` names the verdicts that are right and the invariant that is checked after it; `before.py` is an earlier job
in the same slot, whose traces the program looks for. Under `at.LEVEL` stands what is different there, and rightly so;
`own_kernel` says why what the program reaches is a kernel of its own, and no escape. gVisor is tried where it is.
"""

from __future__ import annotations

import asyncio
import os
import platform
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.sandbox.config import JailSettings
from services.sandbox.jail.levels import open_pool
from services.sandbox.jail.pool import Pool
from services.sandbox.job import JobOutcome, Limits, Verdict
from tests.integration.gvisor import MISSING
from tests.integration.jails import Remains, interpreter, left_behind, num_descriptors, python, shell

CASES = Path(__file__).parents[1] / "cases" / "hostile"
LEVELS = ("namespaces", "landlock", *(() if MISSING else ("gvisor",))) if os.getuid() == 0 else ("user-namespaces",)
SECRET = "HOSTILE_SECRET"

pytestmark = pytest.mark.asyncio(loop_scope="module")


def _cases() -> list[Any]:
    found = []
    for folder in sorted(path.parent for path in CASES.glob("*/case.toml")):
        case = tomllib.loads((folder / "case.toml").read_text(encoding="utf-8"))
        if case.get("machine", platform.machine()) == platform.machine():
            for level in (level for level in LEVELS if level in case.get("levels", LEVELS)):
                there = case | case.get("at", {}).get(level, {})
                found.append(pytest.param(level, folder, there, id=f"{folder.name}-{level}"))
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pools() -> AsyncIterator[dict[str, Pool]]:
    """A pool of one slot for each level, so that every case meets what the one before it left."""
    os.environ[SECRET] = "the service's own"
    opened = {
        level: await open_pool(JailSettings(levels=level, num_slots=1, python=interpreter(level))) for level in LEVELS
    }
    num_before = num_descriptors()
    yield opened
    assert num_descriptors() < num_before + 20, "one leaked with each job would be hundreds"
    for pool in opened.values():
        await pool.close()
    del os.environ[SECRET]


@pytest.mark.parametrize(("level", "folder", "case"), _cases())
async def test_a_hostile_program_is_held(
    level: str, folder: Path, case: dict[str, Any], pools: dict[str, Pool]
) -> None:
    pool = pools[level]
    await _idle(pools)
    before = Remains.now()
    if (folder / "before.py").exists():
        earlier = python((folder / "before.py").read_text(), level, stdin=case.get("before_stdin", "").encode())
        await pool.run(earlier)
    outcome = await pool.run(_job(folder, case, level))
    assert outcome.verdict.name in case["verdicts"], f"{case['invariant']} {outcome}"
    _check_streams(case, outcome)
    _check_files(case, outcome)
    await _idle(pools)
    remains = await _remains_of(before)
    assert not left_behind(before, remains), (case["invariant"], before, remains)
    after = await pool.run(python("print(sum(map(int, input().split())))", level, stdin=b"20 22"))
    assert (after.verdict, after.stdout.content) == (Verdict.OK, b"42\n")


def _job(folder: Path, case: dict[str, Any], level: str) -> Any:
    limits = Limits(**{"cpu_s": 10.0, "wall_s": 60.0, **case.get("limits", {})})
    fields = {"limits": limits, "stdin": b"x" * case.get("stdin_size", 0), "return_files": case.get("return_files", ())}
    if (folder / "main.sh").exists():
        return shell((folder / "main.sh").read_text(), **fields)
    return python((folder / "main.py").read_text(), level, **fields)


def _check_streams(case: dict[str, Any], outcome: JobOutcome) -> None:
    if "stdout" in case and "own_kernel" not in case:
        assert outcome.stdout.content.decode() == case["stdout"], outcome
    if "stdout_hex" in case:
        assert outcome.stdout.content.hex() == case["stdout_hex"]
    if "signal" in case:
        assert outcome.signal == case["signal"]
    assert b"escaped" not in outcome.stdout.content or "own_kernel" in case, outcome
    limit = case.get("limits", {}).get("output_bytes", Limits().output_bytes)
    assert max(len(outcome.stdout.content), len(outcome.stderr.content)) <= limit


def _check_files(case: dict[str, Any], outcome: JobOutcome) -> None:
    if "files" in case:
        assert sorted(file.path for file in outcome.files if file.path != "main.py") == sorted(case["files"])
    if "max_returned_bytes" in case:
        assert sum(len(file.content) for file in outcome.files) <= case["max_returned_bytes"]
    if "only_content" in case:
        assert {file.content.decode() for file in outcome.files} <= {case["only_content"]}


async def _remains_of(before: Remains) -> Remains:
    """What is there once a keeper had a second to close what it needs between two jobs."""
    for _ in range(20):
        remains = Remains.now()
        if not left_behind(before, remains):
            break
        await asyncio.sleep(0.05)
    return remains


async def _idle(pools: dict[str, Pool]) -> None:
    while any(pool.num_busy for pool in pools.values()):
        await asyncio.sleep(0.005)
