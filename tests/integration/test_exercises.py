"""Exercises with tests as people write them: a right program never gets a zero, a wrong or cheating one never a pass.

Each file of `cases/sandbox/exercises` holds a right program with the verdict that is due to it, wrong ones, and the
tests.
"""

from __future__ import annotations

import asyncio
import builtins
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from perilune.api.sandbox.v1 import sandbox_pb2 as api
from services.sandbox.builds import Builds
from services.sandbox.config import JailSettings
from services.sandbox.images.store import ImageStore
from services.sandbox.images.toolchains import Images
from services.sandbox.jail.levels import open_pool
from services.sandbox.job import Limits, Verdict
from services.sandbox.judge import Judge
from services.sandbox.languages import detect
from tests.integration.jails import interpreter

LEVEL = "namespaces" if os.getuid() == 0 else "user-namespaces"
EXERCISES = sorted((Path(__file__).parents[1] / "cases" / "sandbox" / "exercises").glob("*.py"))
EQUALS_EVERYTHING = """
class Same:
    def __init__(self, *_, **__): pass
    def __bool__(self): return True
    def __iter__(self): return iter([Same()])
    def __call__(self, *_, **__): return Same()
    def __getattr__(self, name): return Same()
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 1
    def __sub__(self, other): return 0
    def __contains__(self, other): return True
    __lt__ = __le__ = __gt__ = __ge__ = __eq__
    __rsub__ = __abs__ = __round__ = __add__ = __mul__ = __sub__
def __getattr__(name): return Same()
"""
LEAVES = "import os\ndef __getattr__(name): return lambda *_, **__: os._exit(0)\n"
CHEATS = {
    "equals everything": EQUALS_EVERYTHING,
    "leaves": LEAVES,
    "patches": "import sys\nfor m in ('unittest', 'pytest'): sys.modules[m] = None\nraise SystemExit(0)\n",
}
# One of each way to look at a program: operators, calls, errors, plain values.
TRIED_BY_CHEATS = ("vector", "approximately", "errors", "own_list")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def judge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Judge]:
    """A pool's judge, for Python alone."""
    folder = tmp_path_factory.mktemp("sandbox")
    most = Limits(cpu_s=20, wall_s=60)
    settings = JailSettings(levels=LEVEL, num_slots=4, max_waiting=1000, python=interpreter(LEVEL))
    pool = await open_pool(settings)
    toolchains = await detect()
    builds = Builds(pool, toolchains, Images(ImageStore(folder / "images"), pool), folder, 1 << 28)
    yield Judge(pool, builds, most, most, 2)
    await pool.close()


async def _verdict(judge: Judge, source: str, tests: str) -> tuple[str, str]:
    request = api.JudgeRequest(program=api.Program(language="python", source=source), cases=[_case(tests)])
    answers = [answer async for answer in judge.judge(request)]
    result = answers[0].result
    why = result.difference or result.execution.reason or result.execution.stderr.content.decode()[-500:]
    return Verdict(answers[-1].summary.verdict).name, why


def _case(tests: str) -> api.TestCase:
    """A file for pytest only where the tests need it: its start is most of what a job costs."""
    plain = re.sub(r"^from solution import .*\n", "", tests, flags=re.MULTILINE)
    imported = re.findall(r"\w+", " ".join(re.findall(r"^from solution import (.*)", tests, flags=re.MULTILINE)))
    has_fixtures = re.search(r"^@|^def test_\w+\([^)]", plain, flags=re.MULTILINE)
    if "pytest" in plain or "solution" in plain or has_fixtures or {*imported} & {*dir(builtins)}:
        return api.TestCase(pytest=api.PytestTest(source=tests, module="solution"))
    calls = re.findall(r"^def (test_\w+)\(\)", plain, flags=re.MULTILINE)
    return api.TestCase(assertion=api.AssertTest(source="\n".join([plain, *(f"{name}()" for name in calls)])))


def _parts(exercise: Path) -> tuple[dict[str, tuple[str, str]], str]:
    """By name each program and the verdict due to it, which for a wrong one may be left open; and the tests."""
    heads_and_texts = re.split(r"^#%% (\w+)(.*)\n", exercise.read_text(), flags=re.MULTILINE)[1:]
    heads, dues, texts = heads_and_texts[::3], heads_and_texts[1::3], heads_and_texts[2::3]
    programs = {
        f"{head} {i}": (due.strip(), text) for i, (head, due, text) in enumerate(zip(heads, dues, texts, strict=True))
    }
    return programs, programs.popitem()[1][1]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda path: path.stem)
async def test_an_exercise(judge: Judge, exercise: Path) -> None:
    programs, tests = _parts(exercise)
    if exercise.stem in TRIED_BY_CHEATS:
        programs |= {name: ("", source) for name, source in CHEATS.items()}
    found = await asyncio.gather(*(_verdict(judge, source, tests) for _, source in programs.values()))
    for (name, (due, _)), (verdict, why) in zip(programs.items(), found, strict=True):
        assert verdict == due if due else verdict != "OK", (name, verdict, why)
