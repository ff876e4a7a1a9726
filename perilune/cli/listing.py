"""`perilune run list`: it imports little and starts nothing where it can, for it is asked often."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rich.table import Table
from rich.text import Text

from perilune.api.master.v1.master_pb2 import Run, RunState
from perilune.cli import facts
from perilune.cli import report as reports
from perilune.cli.console import Console
from perilune.cli.facts import percent
from perilune.cli.report import print_unbroken
from perilune.local.home import master_of
from perilune.local.stored_runs import stored_runs
from perilune.stats import finite

console = Console(highlight=False)


def list_runs(home: Path, master: str | None, as_json: bool) -> None:
    """Prints all runs; of a home whose services have ended without starting any."""
    runs = None
    if not (master or "PERILUNE_DATABASE_URL" in os.environ or master_of(home)):
        runs = stored_runs(home)
    if runs is None:
        runs = _asked(home, master)
    if as_json:
        print(json.dumps(finite([reports.summary_as_json(run) for run in runs]), indent=2))
    elif runs:
        print_unbroken(console, _list(runs))
        for run in runs:
            if note := _note(run):
                console.print(Text(f"{run.id}: {note}"), soft_wrap=True)
    else:
        console.print(f"no runs in {home} yet; `perilune train RECIPE` makes one", soft_wrap=True)


def _asked(home: Path, master: str | None) -> list[Run]:
    import asyncio

    from perilune.cli.masters import any_master
    from perilune.errors import NotFoundError

    async def ask() -> list[Run]:
        async with any_master(home, master) as client:
            return list(await client.list())

    try:
        return asyncio.run(ask())
    except NotFoundError:  # a home that was never used has no runs, which is an answer
        return []


def _note(run: Run) -> str:
    """A note that a reader of the list needs beside the run's line."""
    return facts.reason_of(run) if run.problem or run.state == RunState.RUN_STATE_INTERRUPTED else ""


def _list(runs: list[Run]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for heading in ("run", "state", "iteration", "stages", "time", "held-out accuracy"):
        table.add_column(heading, justify="right" if heading in ("iteration", "time") else "left")
    for run in runs:
        latest = [(mode, facts.evaluations_of(run, mode)[-1].accuracy) for mode in facts.modes_of(run)]
        table.add_row(
            Text(run.id, style="bold"),
            Text(facts.state_name(run.state), style=facts.STATE_STYLES.get(run.state, "cyan")),
            f"{facts.iterations_of(run)}/{run.num_iterations}",
            facts.stages_text(run),
            facts.duration(run.seconds),
            ", ".join(f"{mode} {percent(accuracy)}" for mode, accuracy in latest),
        )
    return table
