"""The whole set: every problem to its verdict, resumed where results are; then test cases, manifest and reports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from perilune.client import AsyncSandboxClient
from perilune.completions import Cache, Model, ModelTable
from perilune.concurrency import as_finished
from perilune.data.whole_files import write_whole
from perilune.errors import UnavailableError
from perilune.local.short_lived import own_sandbox
from perilune.testgen import store
from perilune.testgen.author import Author
from perilune.testgen.execution import Sandbox
from perilune.testgen.making import make
from perilune.testgen.problem import Problem, read_problems
from perilune.testgen.report import page_of, report_of
from perilune.testgen.settings import CaseSettings

REQUESTS_A_PROBLEM = 2  # to the sandbox, that are under way at a time
STOPPED = "the command was stopped before"
INTERRUPTED = 130


@dataclass(frozen=True)
class Means:
    """Describes what the command works with: a model that writes programs, its key, a sandbox that runs, problems at
    a time."""

    model: ModelTable | None = None
    api_key: str = ""
    sandbox_address: str | None = None
    at_once: int = field(default_factory=lambda: os.cpu_count() or 1)


@dataclass
class Progress:
    """The problems of one command, and what is known of each."""

    problems: Mapping[str, Problem]
    digests: Mapping[str, str]
    folder: Path
    found: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    unfinished: dict[str, str] = field(default_factory=dict)  # and why

    def load(self) -> None:
        """Takes results that are on disk."""
        for name, digest in self.digests.items():
            if (result := store.load(self.folder, digest)) is not None:
                self.found[name] = result

    def keep(self, name: str, result: Mapping[str, Any]) -> None:
        """Keeps a result, on disk first. StateError: the disk does not take it."""
        whole = {**result, "digest": self.digests[name]}
        store.save(self.folder, whole)
        self.found[name] = whole

    @property
    def results(self) -> dict[str, Mapping[str, Any]]:
        """Returns what was found, in the order of the problems."""
        return {name: self.found[name] for name in self.problems if name in self.found}

    @property
    def missing(self) -> list[str]:
        """The problems without a result."""
        return [name for name in self.problems if name not in self.found]


def run(path: Path, out: Path, settings: CaseSettings, means: Means) -> int:
    """Makes the test cases of a file of problems.

    Gives the exit status: 1 if a row is broken, has no verdict, or none is kept; 130 after Ctrl-C. Either way all that
    was found out is on disk and in the reports. StateError: the disk does not take it.
    """
    rows, problems, broken = read_problems(path)
    folder = store.open_folder(out)
    asked = means.model and means.model.model_dump(mode="json")
    version = metadata.version("perilune")
    digests = {name: store.digest_of(rows[name], name, asdict(settings), asked, version) for name in problems}
    progress = Progress(problems, digests, folder)
    progress.load()
    interrupted = _interrupted(progress, settings, means)
    report = report_of(list(progress.results.values()), broken, progress.unfinished)
    manifest = {"input": str(path), "settings": asdict(settings), "model": asked, "version": version}
    write(progress, report, manifest)
    for row in broken:
        print(f"perilune: {row.reason}", file=sys.stderr)
    _say_unfinished(progress.unfinished, interrupted)
    print(" → ".join(f"{stage} {num}" for stage, num in report["funnel"].items()))
    print(f"the report is {folder / 'report.html'}")
    failed = broken or progress.unfinished or not report["funnel"]["kept"]
    return INTERRUPTED if interrupted else int(bool(failed))


def _interrupted(progress: Progress, settings: CaseSettings, means: Means) -> bool:
    """Makes what is missing; True if Ctrl-C ended it."""
    try:
        if progress.missing:
            asyncio.run(_all(progress, settings, means))
    except KeyboardInterrupt:
        progress.unfinished |= dict.fromkeys(progress.missing, STOPPED)
        return True
    return False


def _say_unfinished(unfinished: Mapping[str, str], interrupted: bool) -> None:
    for name, why in unfinished.items():
        if why != STOPPED:
            print(f"perilune: {name}: no verdict, and the same command tries again: {why}", file=sys.stderr)
    if interrupted:
        num = sum(why == STOPPED for why in unfinished.values())
        print(f"perilune: stopped; {num} problems are left, and the same command goes on with them", file=sys.stderr)


async def _all(progress: Progress, settings: CaseSettings, means: Means) -> None:
    async with contextlib.AsyncExitStack() as stack:
        address = means.sandbox_address
        if address is None:
            address = await stack.enter_async_context(own_sandbox(os.cpu_count() or 1))
        client = await stack.enter_async_context(AsyncSandboxClient(address))
        sandbox = Sandbox(client, REQUESTS_A_PROBLEM * means.at_once)
        author = None
        if means.model:
            cache = stack.enter_context(contextlib.closing(Cache(progress.folder / "answers.sqlite")))
            model = await stack.enter_async_context(Model(means.model, cache, means.api_key))
            author = Author(model, means.model.model)
        work = (_one(name, progress, sandbox, author, settings) for name in progress.missing)
        async with contextlib.aclosing(as_finished(work, means.at_once)) as finished:
            async for line in finished:
                print(f"{line} ({len(progress.found)} of {len(progress.problems)})", file=sys.stderr, flush=True)


async def _one(name: str, progress: Progress, sandbox: Sandbox, author: Author | None, settings: CaseSettings) -> str:
    """One problem to its result, which is kept; gives a line that says what became of it."""
    try:
        result = await make(progress.problems[name], sandbox, author, settings)
    except UnavailableError as error:  # no verdict: the sandbox or the endpoint gave no answer
        progress.unfinished[name] = str(error)
        return f"{name}: no verdict"
    progress.keep(name, result)
    return f"{name}: {result['fate']}"


def write(progress: Progress, report: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Writes testcases.jsonl, manifest.json, report.json and report.html. StateError: the disk does not take them."""
    results = progress.results
    digests = {name: result["digest"] for name, result in results.items()}
    documents = {
        "testcases.jsonl": "".join(_rows(results, progress.problems)),
        "manifest.json": json.dumps({**manifest, "digests": digests}, indent=1),
        "report.json": json.dumps(report, indent=1),
        "report.html": page_of(report, manifest),
    }
    for name, text in documents.items():
        write_whole(progress.folder / name, text.encode("utf-8", "replace"))


def _rows(results: Mapping[str, Mapping[str, Any]], problems: Mapping[str, Problem]) -> Sequence[str]:
    return [
        json.dumps({"id": name, "question": problems[name].statement, "reference": json.dumps(result["row"])}) + "\n"
        for name, result in results.items()
        if "row" in result
    ]
