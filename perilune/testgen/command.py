"""The whole set: every problem to its verdict, resumed where results are; then test cases, manifest and report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from perilune.client import AsyncSandboxClient
from perilune.errors import StateError, UnavailableError
from perilune.local.short_lived import own_sandbox
from perilune.testgen import store
from perilune.testgen.author import Author, Endpoint
from perilune.testgen.execution import Sandbox
from perilune.testgen.making import Fate, make
from perilune.testgen.problem import BrokenRow, Problem, read_problems
from perilune.testgen.settings import CaseSettings

NUM_SLOTS = 2


def run(path: Path, out: Path, settings: CaseSettings, endpoint: Endpoint | None, address: str | None) -> int:
    """Makes the test cases of a file of problems; exit status 1 if a row is broken, has no verdict, or none is kept."""
    rows, problems, broken = read_problems(path)
    folder = store.open_folder(out)
    who = None if endpoint is None else [endpoint.url, endpoint.model, endpoint.temperature]
    version = metadata.version("perilune")
    digests = {name: store.digest_of(rows[name], name, asdict(settings), who, version) for name in problems}
    results, unfinished = asyncio.run(_all(problems, digests, folder, settings, endpoint, address))
    report = report_of(results, broken, unfinished)
    write(folder, report, results, problems, {"settings": asdict(settings), "model": who, "version": version})
    for row in broken:
        print(f"perilune: {row.reason}", file=sys.stderr)
    for name, why in unfinished.items():
        print(f"perilune: {name}: no verdict, and the same command tries again: {why}", file=sys.stderr)
    print(" → ".join(f"{stage} {num}" for stage, num in report["funnel"].items()), f"  in {folder}", sep="\n")
    return 1 if broken or unfinished or not report["funnel"]["kept"] else 0


async def _all(
    problems: Mapping[str, Problem],
    digests: Mapping[str, str],
    folder: Path,
    settings: CaseSettings,
    endpoint: Endpoint | None,
    address: str | None,
) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """The results by id, and why some problems have none."""
    found = {name: result for name, digest in digests.items() if (result := store.load(folder, digest))}
    unfinished: dict[str, str] = {}
    missing = [name for name in problems if name not in found]
    if not missing:
        return found, unfinished
    async with contextlib.AsyncExitStack() as stack:
        if address is None:
            address = await stack.enter_async_context(own_sandbox(NUM_SLOTS))
        sandbox = Sandbox(await stack.enter_async_context(AsyncSandboxClient(address)))
        author = Author(endpoint, folder / store.WRITTEN) if endpoint else None
        if author:
            stack.push_async_callback(author.close)
        for name in missing:
            try:
                result = await make(problems[name], sandbox, author, settings) | {"digest": digests[name]}
            except (UnavailableError, StateError) as error:
                unfinished[name] = str(error)
                continue
            store.save(folder, result)
            found[name] = result
    return {name: found[name] for name in problems if name in found}, unfinished


def report_of(
    results: Mapping[str, Mapping[str, Any]], broken: Sequence[BrokenRow], unfinished: Mapping[str, str]
) -> dict[str, Any]:
    """The report: a funnel as the paper's (1,000, 614, 463, 323), the rates over what is kept, and every problem."""
    fates = Counter(result["fate"] for result in results.values())
    judged = len(results) - fates[Fate.TOO_FEW_SOLUTIONS] - fates[Fate.SPECIAL_JUDGE]
    cased = fates[Fate.KEPT] + fates[Fate.SOLUTIONS_FAIL]
    kept = [result for result in results.values() if result["fate"] == Fate.KEPT]
    rates = {
        name: {key: sum(result[name][key] for result in kept) for key in ("num", "total")}
        for name in ("tpr", "heldout_tpr", "tnr")
    }
    return {
        "funnel": {
            "problems": len(results) + len(broken) + len(unfinished),
            "need no special judge": judged,
            "enough valid cases": cased,
            "kept": fates[Fate.KEPT],
        },
        "rates": rates,
        "broken": [asdict(row) for row in broken],
        "unfinished": dict(unfinished),
        "problems": [{key: value for key, value in result.items() if key != "row"} for result in results.values()],
    }


def write(
    folder: Path,
    report: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    problems: Mapping[str, Problem],
    made_with: Mapping[str, Any],
) -> None:
    """Writes testcases.jsonl, manifest.json and report.json. StateError: the disk does not take them."""
    lines = [
        json.dumps({"id": name, "question": problems[name].statement, "reference": json.dumps(result["row"])}) + "\n"
        for name, result in results.items()
        if "row" in result
    ]
    store.write_whole(folder / "testcases.jsonl", "".join(lines).encode())
    manifest = {**made_with, "digests": {name: result["digest"] for name, result in results.items()}}
    for name, document in (("manifest.json", manifest), ("report.json", report)):
        store.write_whole(folder / name, json.dumps(document, indent=1).encode())
