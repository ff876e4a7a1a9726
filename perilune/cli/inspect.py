"""Commands about runs there are: they ask a master and print."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

from rich.table import Table
from rich.text import Text

from perilune.api.master.v1.master_pb2 import Ledger, Run, RunState
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK
from perilune.api.trajectory.v1.trajectory_pb2 import ScoredTrajectory
from perilune.cli import curves_export as exporting
from perilune.cli import facts
from perilune.cli import report as reports
from perilune.cli.console import Console
from perilune.cli.live_view import MAX_WIDTH, RunView, follow
from perilune.cli.masters import any_master, running_master
from perilune.cli.report import Report
from perilune.codec import num_written_tokens
from perilune.errors import InvalidInputError, StateError
from perilune.grading.correct import is_correct
from perilune.stats import finite

console = Console(highlight=False)


def show(run_id: str, home: Path, master: str | None, as_json: bool) -> None:
    """Prints a run: its state, curves and pairs of responses, or all of it as JSON."""

    async def ask() -> Report:
        async with any_master(home, master) as client:
            return await reports.gather(client, run_id)

    report = asyncio.run(ask())
    if as_json:
        print(json.dumps(finite(reports.as_json(report)), indent=2))
        return
    places = [home / run_id / "curves.png", home / "logs"]
    curves, log_dir = (path if path.exists() else None for path in places)
    console.width = min(console.width, MAX_WIDTH)
    reports.print_report(console, Report(report.run, report.versions, report.pairs, curves, log_dir))


def watch(run_id: str, home: Path, master: str | None, live: bool) -> int:
    """The exit status: 1 if the run failed."""

    async def ask() -> Run:
        async with running_master(home, master) as client:
            draw = live and console.is_terminal and not console.is_dumb_terminal
            return await follow(client, run_id, console, live=draw, view=RunView())

    console.width = min(console.width, MAX_WIDTH)
    try:
        run = asyncio.run(ask())
    except KeyboardInterrupt:
        console.print(f"{run_id} goes on; `perilune run stop {run_id}` stops it", soft_wrap=True)
        return 0
    console.print(_sentence(run), soft_wrap=True)
    return int(run.state == RunState.RUN_STATE_FAILED)


def export(
    run_id: str, home: Path, master: str | None, tensorboard: Path | None, wandb: str | None, follow: bool
) -> None:
    """InvalidInputError if it is not said where to."""
    if not (tensorboard or wandb):
        raise InvalidInputError("say where the curves are to go: --tensorboard FOLDER or --wandb PROJECT")

    async def write() -> int:
        async with any_master(home, master) as client:
            run = await client.get(run_id)
            writers = exporting.writers_for(run, tensorboard, wandb, home)
            try:
                return await exporting.export(client, run, writers, follow)
            finally:
                for writer in writers:
                    writer.close()

    num_points = asyncio.run(write())
    places = [f"{tensorboard}/{run_id}"] * bool(tensorboard) + [f"the project {wandb}"] * bool(wandb)
    console.print(f"{num_points} points of {run_id} written to {' and '.join(places)}", soft_wrap=True)


def samples(run_id: str, out: Path, iteration: int, home: Path, master: str | None) -> None:
    """Writes the graded answers of an iteration. StateError: they cannot be written."""

    async def ask() -> list[ScoredTrajectory]:
        found: list[ScoredTrajectory] = []
        async with any_master(home, master) as client:
            while part := await client.samples(run_id, iteration=iteration, limit=500, offset=len(found)):
                found += part
        return found

    rows = [sample_row(sample) for sample in asyncio.run(ask()) if sample.score.status == SCORE_STATUS_OK]
    if not rows:
        raise StateError(f"iteration {iteration} of {run_id} has no graded samples")
    try:
        out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    except OSError as error:
        raise StateError(f"cannot write {out}: {error}") from error
    print(f"{len(rows):,} samples written to {out}")


def sample_row(sample: ScoredTrajectory) -> dict[str, object]:
    """A graded answer as a row: the question, as text where it is one, else as messages."""
    messages = [{"role": each.role, "content": each.content} for each in sample.trajectory.prompt.messages]
    is_text = len(messages) == 1 and messages[0]["role"] == "user"
    return {
        "question": messages[0]["content"] if is_text else messages,
        "response": sample.trajectory.response,
        "correct": is_correct(sample.score),
        "num_tokens": num_written_tokens(sample.trajectory),
    }


def stop(run_id: str, home: Path, master: str | None) -> None:
    """Stops a run through its master, and prints what it has become."""

    async def ask() -> Run:
        async with running_master(home, master) as client:
            with contextlib.nullcontext() if not console.is_terminal else console.status("stopping …"):
                return await client.stop(run_id)

    console.print(_sentence(asyncio.run(ask())), soft_wrap=True)


def ledger(run_id: str, home: Path, master: str | None, as_json: bool) -> int:
    """The exit status: 1 if the ledger does not balance."""

    async def ask() -> Ledger:
        async with any_master(home, master) as client:
            return await client.ledger(run_id)

    found = asyncio.run(ask())
    if as_json:
        print(json.dumps(reports.ledger_as_json(found), indent=2))
    else:
        console.print(_ledger(found))
    return int(not found.balanced)


def _sentence(run: Run) -> str:
    reason = facts.reason_of(run)
    because = f": {reason}" if reason else ""
    return f"{run.id} is {facts.state_name(run.state)} at version {run.policy.number}{because}"


def _ledger(found: Ledger) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    for name in facts.LEDGER_FIELDS:
        table.add_row(name.replace("_", " "), f"{getattr(found, name):,}")
    table.add_row(*(("balanced", "[green]yes[/]") if found.balanced else ("balanced", "[bold red]no[/]")))
    table.add_row("")
    for name in ("dispatched", "scored", "dead"):
        table.add_row(Text(f"held-out {name}", style="dim"), f"{getattr(found, f'evaluation_{name}'):,}")
    return table
