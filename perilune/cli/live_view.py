"""The live view of a run: what `perilune train` and `perilune run watch` show while it goes on.

`RunView` is what is known, `render` draws it, `ProgressLog` gives plain lines where there is no terminal, and
`follow` feeds them from a master.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from perilune.api.master.v1.master_pb2 import Evaluation, Run, RunState, Version, WatchRunResponse, Worker
from perilune.api.trajectory.v1.trajectory_pb2 import StageProgress
from perilune.cli.facts import (
    STATE_STYLES,
    clock_time,
    duration,
    evaluations_of,
    is_after,
    iterations_of,
    ledger_text,
    modes_of,
    number,
    percent,
    reason_of,
    recipe_of,
    series,
    stage_figures,
    stage_name,
    state_name,
)
from perilune.cli.textplot import on_axis, sparkline
from perilune.errors import UnavailableError
from perilune.policies import shown_version

if TYPE_CHECKING:
    from perilune.client import AsyncRunClient

REFRESH_S = 0.5
RECONNECT_S = 0.5
MASTER_PATIENCE_S = 60.0  # a master that was killed is started again and finds its runs in the database
SILENT_S = 12.0  # a master sends a snapshot at least every six
SAID_EVERY_S = 15.0  # where there is no terminal: so long without a word is too long
MAX_WIDTH = 100
SPARK_WIDTH = 32
LINES_PER_RUN = 10  # of iterations, where there is no terminal
ACTIVE = (RunState.RUN_STATE_STARTING, RunState.RUN_STATE_RUNNING, RunState.RUN_STATE_STOPPING)
ENDED = (RunState.RUN_STATE_STOPPED, RunState.RUN_STATE_FINISHED, RunState.RUN_STATE_FAILED)
CURVES = (  # a metric of a version, how it is called here, its colour, its unit, what the curve's bottom stands for
    ("reward", "reward", "green", "", None),
    ("mean_tokens", "length", "cyan", " tokens", None),
    ("tokens_per_second", "speed", "blue", " tokens/s", 0.0),  # from zero: its noise is not shown
)
DETAILS = (  # a metric of a version, how it is called here, its unit
    ("loss", "loss", ""),
    ("kl", "kl", ""),
    ("entropy", "entropy", ""),
    ("grad_norm", "grad norm", ""),
    ("engine_gap", "engine gap", " nats"),
    ("rollout_seconds", "rollout", " s"),
    ("train_seconds", "training", " s"),
    ("sent_share", "sent", " of the weights"),
)


@dataclass
class RunView:
    """The state of a run as known so far. Times are seconds of one monotonic clock."""

    run: Run = field(default_factory=Run)
    versions: dict[int, Version] = field(default_factory=dict)
    fleet: list[Worker] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)  # what went wrong, mended or not
    seen_at: float = 0.0  # when `run` was as it is here

    def absorb(self, snapshot: WatchRunResponse, now: float) -> None:
        """Takes in what the master says."""
        self.run, self.fleet, self.seen_at = snapshot.run, list(snapshot.fleet), now
        self.versions.update({version.policy.number: version for version in snapshot.versions})
        for event in snapshot.events:
            if event.kind == "warning":
                self.notice = event.text

    @property
    def notice(self) -> str:
        """The last thing that went wrong."""
        return self.notices[-1] if self.notices else ""

    @notice.setter
    def notice(self, text: str) -> None:
        self.notices.append(text)

    def troubles(self, now: float) -> dict[str, str]:
        """The services that are silent or stuck, each with a sentence that says since when; the master too."""
        silent_s = now - self.seen_at
        if self.seen_at and silent_s > SILENT_S and not self.ended:
            # Of the others nothing is known then.
            return {"master": f"the master has been silent since {clock_time(int((time.time() - silent_s) * 1e9))}"}
        return {
            w.id: f"{w.id} {w.trouble} since {clock_time(w.trouble_since_unix_ns)}" for w in self.fleet if w.trouble
        }

    @property
    def ended(self) -> bool:
        """True once the run is in a final state."""
        return self.run.state in ENDED

    @property
    def in_order(self) -> list[Version]:
        """Lists the versions seen so far by number."""
        return [self.versions[number] for number in sorted(self.versions)]

    def elapsed_s(self, now: float) -> float:
        """Wall time in which the run was worked on, up to now."""
        return self.run.seconds + (now - self.seen_at if self.run.state in ACTIVE else 0.0)

    def eta_s(self) -> float | None:
        """Seconds to go by the pace of the last iterations; None before there is a pace.

        The median, so that a pause between two versions does not count.
        """
        times = [version.time_unix_ns / 1e9 for version in self.in_order][-11:]
        paces = [later - earlier for earlier, later in pairwise(times)]
        remaining = max(0, self.run.num_iterations - self.run.policy.number)
        return median(paces) * remaining if paces else None


# --- Drawn --------------------------------------------------------------------------------------------------------


def render(view: RunView, now: float) -> RenderableType:
    """The view as it is at a moment. Depends on nothing else, so that it can be drawn into a recording."""
    troubles = view.troubles(now).values()
    parts = [
        _headline(view, now),
        _progress(view),
        _curves(view),
        _facts(view),
        Text("\n").join(Text(text, style="bold yellow") for text in troubles) if troubles else None,
        Text(view.notice, style="yellow") if view.notice else None,
    ]
    body = [part for part in parts if part is not None]
    spaced = [piece for part in body for piece in (part, Text(""))][:-1]
    return Padding(Group(*spaced), (1, 1))


def _headline(view: RunView, now: float) -> RenderableType:
    run = view.run
    style = STATE_STYLES.get(run.state, "cyan")
    line = Text.assemble(
        ("● ", style),
        (run.id, "bold"),
        "  ",
        (state_name(run.state), style),
        (f"  {duration(view.elapsed_s(now))}", "dim"),
    )
    line.append(f"  {reason_of(run)}", style="dim")
    description = _description(run)
    return Group(line, Text(description, style="dim")) if description else line


def _description(run: Run) -> str:
    return str(recipe_of(run).get("description", ""))


def _progress(view: RunView) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", width=10)
    grid.add_column(width=SPARK_WIDTH)
    grid.add_column(justify="right", width=9)
    grid.add_column(style="dim")
    before, after = (
        [
            (stage_name(view.run, s), _bar(s.step, s.num_steps), f"{s.step}/{s.num_steps}", stage_figures(s))
            for s in view.run.stages
            if is_after(view.run, s) == wanted
        ]
        for wanted in (False, True)
    )
    for row in before:
        grid.add_row(*row)
    done, iterations = iterations_of(view.run), view.run.num_iterations
    eta = view.eta_s()
    to_go = f"{duration(eta)} to go" if eta is not None and not view.ended and done < iterations else ""
    grid.add_row("iteration", _bar(done, iterations), f"{done}/{iterations}", to_go)
    for row in after:
        grid.add_row(*row)
    return grid


def _bar(done: float, total: float) -> ProgressBar:
    return ProgressBar(
        total=max(total, 1), completed=done, width=SPARK_WIDTH, complete_style="cyan", finished_style="green"
    )


def _curves(view: RunView) -> RenderableType | None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", width=10)
    grid.add_column(width=SPARK_WIDTH)
    grid.add_column(justify="right", width=9)
    grid.add_column(style="dim")
    for mode in modes_of(view.run):
        evaluations = evaluations_of(view.run, mode)
        numbers, shares = [e.policy.number for e in evaluations], [e.accuracy for e in evaluations]
        columns = on_axis(numbers, shares, view.run.num_iterations, SPARK_WIDTH)
        grid.add_row(
            mode,
            Text(sparkline(columns, SPARK_WIDTH, 0.0, 1.0), style="magenta"),
            Text(percent(shares[-1]), style="bold"),
            f"held out, from {percent(shares[0])}",
        )
    for metric, label, style, unit, low in CURVES:
        numbers, values = series(view.in_order, metric)
        if values:
            columns = on_axis(numbers, values, view.run.num_iterations, SPARK_WIDTH)
            curve = Text(sparkline(columns, SPARK_WIDTH, low), style=style)
            grid.add_row(label, curve, Text(number(values[-1]), style="bold"), f"from {number(values[0])}{unit}")
    return grid if grid.row_count else None


def _facts(view: RunView) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", width=10)
    grid.add_column()
    if view.run.HasField("policy"):
        details = _details(view.in_order[-1:])
        grid.add_row("policy", Text.assemble(_version_name(view), (f"  {details}" if details else "", "dim")))
    grid.add_row("fleet", _fleet(view.fleet))
    if view.run.ledger.dispatched:
        grid.add_row("ledger", ledger_text(view.run.ledger))
    return grid


def _version_name(view: RunView) -> str:
    return f"{shown_version(view.run.policy)} {view.run.policy.digest[:8]}".rstrip()


def _details(versions: Iterable[Version]) -> str:
    return " · ".join(
        f"{name} {number(version.metrics[metric])}{unit}"
        for version in versions
        for metric, name, unit in DETAILS
        if metric in version.metrics
    )


def _fleet(fleet: Iterable[Worker]) -> Text:
    line = Text()
    for worker in sorted(fleet, key=lambda worker: (worker.kind, worker.id)):
        line.append(" · " if line else "", style="dim")
        line.append(worker.id, style="bold yellow" if worker.trouble else "")
        line.append(f" {shown_version(worker.policy)}" if worker.HasField("policy") else "", style="dim")
    return line or Text("no worker has joined yet", style="dim")


# --- In plain lines -----------------------------------------------------------------------------------------------


@dataclass
class ProgressLog:
    """Turns snapshots into the few lines that a log needs: each state, each evaluation, about ten iterations, what is
    in trouble; and where the run is, if there was nothing else to say for a while."""

    state: RunState.ValueType = RunState.RUN_STATE_UNSPECIFIED
    evaluations: set[tuple[int, str]] = field(default_factory=set)
    version: int = 0
    stage_quarters: dict[int, int] = field(default_factory=dict)
    num_notices: int = 0
    troubles: dict[str, str] = field(default_factory=dict)
    said_at: float | None = None
    clock_s: float = 0.0  # of the line before: a snapshot that was long on its way sets no line's time back

    def lines(self, view: RunView, now: float) -> list[str]:
        """Lines for what is new since the last call."""
        found = [*self._state(view), *self._stages(view), *self._evaluations(view), *self._iteration(view)]
        found += view.notices[self.num_notices :]
        self.num_notices = len(view.notices)
        found += self._troubles(view, now)
        if not found and self.said_at is not None and now - self.said_at >= SAID_EVERY_S and not view.ended:
            found = [_whereabouts(view)]
        if found or self.said_at is None:
            self.said_at = now
        if found:
            self.clock_s = max(self.clock_s, view.elapsed_s(now))
        return [f"{duration(self.clock_s):>6}  {line}" for line in found if line]

    def _troubles(self, view: RunView, now: float) -> list[str]:
        before, self.troubles = self.troubles, view.troubles(now)
        began = [text for name, text in self.troubles.items() if name not in before]
        ended = [f"{name} is back" for name in before if name not in self.troubles and "master" not in self.troubles]
        return [*began, *ended]

    def _state(self, view: RunView) -> list[str]:
        if view.run.state == self.state:
            return []
        self.state = view.run.state
        reason = reason_of(view.run)
        return [f"{view.run.id} is {state_name(self.state)}" + (f": {reason}" if reason else "")]

    def _stages(self, view: RunView) -> list[str]:
        found = []
        for stage in view.run.stages:
            quarter = 4 * stage.step // stage.num_steps
            if quarter > self.stage_quarters.get(stage.index, -1):
                self.stage_quarters[stage.index] = quarter
                found.append(", ".join(filter(None, (_stage_line(view.run, stage), stage_figures(stage)))))
        return found

    def _evaluations(self, view: RunView) -> list[str]:
        fresh = [e for e in view.run.evaluations if (e.policy.number, e.mode) not in self.evaluations]
        self.evaluations |= {(e.policy.number, e.mode) for e in fresh}
        return [_evaluation_line(evaluation) for evaluation in fresh]

    def _iteration(self, view: RunView) -> list[str]:
        every = max(1, view.run.num_iterations // LINES_PER_RUN)
        newest = max((number for number in view.versions if number <= view.run.num_iterations), default=0)
        if newest < self.version + every:
            return []
        self.version = newest
        version = view.versions[newest]
        figures = [
            f"{name} {number(version.metrics[key])}{unit}" for key, name, _, unit, _ in CURVES if key in version.metrics
        ]
        return [f"iteration {newest} of {view.run.num_iterations}: " + ", ".join(figures)]


def _whereabouts(view: RunView) -> str:
    """The run's progress, in a line."""
    run, ledger = view.run, view.run.ledger
    if not run.id:
        return "waiting for the master"
    if run.HasField("policy"):
        where = f"iteration {run.policy.number + 1} of {run.num_iterations}"
        if run.policy.number >= run.num_iterations:
            where = _stage_line(run, run.stages[-1]) if _is_in_stage(run) else "the last evaluation"
        evaluating = ledger.evaluation_dispatched - ledger.evaluation_scored - ledger.evaluation_dead
        counts = [(ledger.in_flight, "samples in flight"), (evaluating, "held-out answers awaited")]
    else:
        where = _stage_line(run, run.stages[-1]) if run.stages else ""
        counts = []
    known = [where, *(f"{count:,} {what}" for count, what in counts if count), f"{len(view.fleet)} in the fleet"]
    return f"still {state_name(run.state)}: " + ", ".join(filter(None, known))


def _stage_line(run: Run, stage: StageProgress) -> str:
    return f"{stage_name(run, stage)} step {stage.step} of {stage.num_steps}"


def _is_in_stage(run: Run) -> bool:
    """Tests whether a stage after reinforcement learning is under way."""
    is_last = run.policy.number >= run.num_versions
    return not is_last and bool(run.stages) and is_after(run, run.stages[-1])


def _evaluation_line(e: Evaluation) -> str:
    return (
        f"{shown_version(e.policy)} held out, {e.mode}: {percent(e.accuracy)} "
        f"[{e.low * 100:.1f}, {e.high * 100:.1f}] of {e.num_problems}, {number(e.mean_tokens)} tokens"
    )


# --- Fed ----------------------------------------------------------------------------------------------------------


async def follow(client: AsyncRunClient, run_id: str, console: Console, *, live: bool, view: RunView) -> Run:
    """Shows a run until it ends, and returns it. Survives a master that restarts.

    Args:
        live: draw over the terminal; otherwise a line now and then.
        view: filled while the run goes on; its holder may set `notice`.

    Raises:
        UnavailableError: the master did not come back within a minute.
        NotFoundError: no such run.
    """
    show = _redraw(view, console) if live else _print_progress(view, console)
    async with show:
        async for snapshot in _snapshots(client, run_id):
            view.absorb(snapshot, time.monotonic())
            if view.ended:
                break
    return view.run


async def _snapshots(client: AsyncRunClient, run_id: str) -> AsyncIterator[WatchRunResponse]:
    last_heard = time.monotonic()
    while True:
        try:
            async for snapshot in client.watch(run_id):
                last_heard = time.monotonic()
                yield snapshot
        except UnavailableError:
            if time.monotonic() - last_heard > MASTER_PATIENCE_S:
                raise
        await asyncio.sleep(RECONNECT_S)


@contextlib.asynccontextmanager
async def _redraw(view: RunView, console: Console) -> AsyncIterator[None]:
    def draw() -> RenderableType:
        return render(view, time.monotonic())

    with Live(console=console, auto_refresh=False, transient=True) as screen:
        async with _repeating(lambda: screen.update(draw(), refresh=True)):
            yield


@contextlib.asynccontextmanager
async def _print_progress(view: RunView, console: Console) -> AsyncIterator[None]:
    log = ProgressLog()

    def write() -> None:
        for line in log.lines(view, time.monotonic()):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    async with _repeating(write):
        yield


@contextlib.asynccontextmanager
async def _repeating(act: Callable[[], None]) -> AsyncIterator[None]:
    """Acts every moment while the context is open, and once more at its end."""

    async def repeat() -> None:
        while True:
            act()
            await asyncio.sleep(REFRESH_S)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        act()
