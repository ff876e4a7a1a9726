"""Runs that are started here and seen through: submit, resume, evaluate."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from perilune.api.master.v1.master_pb2 import Run, RunState
from perilune.cli import curves_picture
from perilune.cli import report as reports
from perilune.cli.console import Console
from perilune.cli.live_view import MAX_WIDTH, RunView, follow
from perilune.cli.masters import any_master, local_credentials
from perilune.cli.report import Report
from perilune.client import AsyncRunClient
from perilune.errors import (
    RECIPE_IS_KEPT,
    InvalidInputError,
    MissingDependencyError,
    PeriluneError,
    StateError,
    UnavailableError,
)
from perilune.local.cards import load_here
from perilune.local.cluster import LocalCluster, local_cluster
from perilune.local.home import master_of
from perilune.models.device import has_driver
from perilune.recipe import Recipe, check_recipe, load_recipe, read_stored_recipe
from perilune.recipe.needs import needs
from perilune.recipe.preflight import check_here
from perilune.stats import finite

INTERRUPTED = 130
DEFAULT_HOME = Path("runs")


@dataclass(frozen=True)
class RunTarget:
    """The services that a run is submitted to: a home of this machine, or the services of a master."""

    home: Path
    master: str | None
    num_rollouts: int | None
    num_rewards: int
    num_trainer_ranks: int = 1
    page: str | None = None  # where the web page is served, as host:port


@dataclass(frozen=True)
class Screen:
    """The display of a run: drawn or in lines, and whether stdout is kept for JSON."""

    draw: bool
    as_json: bool
    console: Console = field(init=False)

    def __post_init__(self) -> None:
        console = Console(stderr=self.as_json, highlight=False)
        console.width = min(console.width, MAX_WIDTH)
        object.__setattr__(self, "console", console)

    @property
    def live(self) -> bool:
        """True if the console can be drawn over: a terminal, and not a dumb one."""
        return self.draw and self.console.is_terminal and not self.console.is_dumb_terminal


def submit(recipe: Recipe, run_id: str, target: RunTarget, screen: Screen) -> int:
    """Submits a run and sees it through; the exit status."""

    async def begin(client: AsyncRunClient) -> Run:
        return await client.submit(recipe, run_id)

    return _see_through(begin, target, screen, recipe)


def resume(run_id: str, target: RunTarget, screen: Screen, num_iterations: int = 0) -> int:
    """Resumes a run, with the services that run on its home or with new ones, and sees it through.

    `num_iterations`: in all, if there are to be more than its recipe has.
    """

    async def begin(client: AsyncRunClient) -> Run:
        return await client.resume(run_id, num_iterations)

    target = replace(target, master=target.master or master_of(target.home))
    is_asked = target.master is None and has_driver()  # what it computes with decides about cards alone
    recipe = read_stored_recipe(asyncio.run(_get(run_id, target)).recipe_json) if is_asked else None
    return _see_through(begin, target, screen, recipe)


def iterations_in(overrides: Sequence[str]) -> int:
    """The number of iterations that --set gives a run that goes on; 0 if none. InvalidInputError for anything else."""
    num_iterations = 0
    for override in overrides:
        key, _, value = override.partition("=")
        if key.strip() != "trainer.num_iterations":
            raise InvalidInputError(
                f"--set {override}: a run's recipe is kept as it ran; more iterations (trainer.num_iterations=N) are "
                "all that it can be given. Start a new run with the recipe changed"
            )
        if not (value.strip().isascii() and value.strip().isdigit() and int(value) > 0):
            raise InvalidInputError(f"--set {override}: a positive number is wanted")
        num_iterations = int(value)
    return num_iterations


def evaluation_of(recipe_or_run: str, model: str | None, overrides: Sequence[str], target: RunTarget) -> Recipe:
    """The recipe that only evaluates: no stages, no iteration, a model that exists.

    InvalidInputError if it is not said which model, or RecipeError if that cannot be evaluated here; NotFoundError if
    there is no such run.
    """
    if recipe_or_run.endswith(".toml") or Path(recipe_or_run).is_file():
        recipe = load_recipe(recipe_or_run, overrides)
    else:
        run = asyncio.run(_get(recipe_or_run, target))
        recipe, model = read_stored_recipe(run.recipe_json), model or run.model_path
        if overrides:
            raise InvalidInputError("--set changes a recipe's file; a run's recipe is as it ran")
    evaluation = evaluation_recipe(recipe, model)
    if target.master is None:
        check_here(evaluation, evaluation.name)
    return evaluation


def evaluation_recipe(recipe: Recipe, model: str | None) -> Recipe:
    """See `evaluation_of`."""
    path = model or recipe.model.path
    if not path:
        raise InvalidInputError(f"{recipe.name} makes its model when it runs; say with --model which one to evaluate")
    document = recipe.model_dump(mode="json", exclude_none=True)
    document.pop("stages", None)
    document["name"] = f"{recipe.name[:35]}-eval"
    document["model"].pop("create", None)
    document["model"]["path"] = path
    document["trainer"]["num_iterations"] = 0
    return check_recipe(document, document["name"])


async def _get(run_id: str, target: RunTarget) -> Run:
    async with any_master(target.home, target.master) as client:
        return await client.get(run_id)


# --- Seeing it through --------------------------------------------------------------------------------------------


class Interrupts:
    """Ctrl-C and SIGTERM. With a run under way the first asks it to stop, the second kills; before, the first ends."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.run_id = ""
        self.cluster: LocalCluster | None = None
        self._main = asyncio.current_task()
        for signum in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signum, self._on_signal)

    def _on_signal(self) -> None:
        assert self._main
        if not self.run_id:
            self._main.cancel()
        elif not self.asked.is_set():
            self.asked.set()
        else:
            if self.cluster:
                self.cluster.kill()
            self._main.cancel()


def _see_through(
    begin: Callable[[AsyncRunClient], Awaitable[Run]], target: RunTarget, screen: Screen, recipe: Recipe | None
) -> int:
    started: list[Interrupts] = []

    async def work() -> Report:
        started.append(Interrupts())
        return await _follow_from(begin, target, screen, started[0], recipe)

    try:
        report = asyncio.run(work())
    except asyncio.CancelledError:
        run_id = started[0].run_id
        print(f"perilune: interrupted{'; ' + _how_to_resume(run_id, target) if run_id else ''}", file=sys.stderr)
        return INTERRUPTED
    report = replace(report, curves=_draw_curves(report, target))
    reports.print_report(screen.console, report)
    if screen.as_json:
        print(json.dumps(finite(reports.as_json(report)), indent=2))
    return _verdict(report, target, interrupted=started[0].asked.is_set())


async def _follow_from(
    begin: Callable[[AsyncRunClient], Awaitable[Run]],
    target: RunTarget,
    screen: Screen,
    interrupts: Interrupts,
    recipe: Recipe | None,
) -> Report:
    view = RunView()

    def notify(notice: str) -> None:
        view.notice = notice

    if target.master:
        async with AsyncRunClient(target.master) as client:
            return await _follow(begin, client, screen, interrupts, view)
    screen.console.print(f"starting the services in {target.home}", style="dim", soft_wrap=True)
    async with (
        local_cluster(
            target.home,
            target.num_rollouts,
            target.num_rewards,
            notify,
            target.num_trainer_ranks,
            target.page,
            needs=None,
            load=load_here(recipe) if recipe else None,
        ) as cluster,
        AsyncRunClient(cluster.master_address, credentials=local_credentials()) as client,
    ):
        interrupts.cluster = cluster
        for line in cluster.cards.lines:
            screen.console.print(line, style="dim", soft_wrap=True, markup=False)
        screen.console.print(f"watch it in a browser: {cluster.page}", style="dim", soft_wrap=True)

        measuring: list[asyncio.Task[object]] = []

        async def begin_here(client: AsyncRunClient) -> Run:
            run = await begin(client)
            recipe = read_stored_recipe(run.recipe_json)
            cluster.provide(needs(recipe))
            if recipe.evaluate:
                measuring.append(asyncio.create_task(_measure(run.id, target.home, cluster.master_address, screen)))
            return run

        async def work() -> Report:
            report = await _follow(begin_here, client, screen, interrupts, view)
            if not interrupts.asked.is_set():
                await asyncio.gather(*measuring)  # what is still to be measured of its last versions
            return report

        try:
            report = await cluster.run(work())
        except PeriluneError:
            if cluster.failure and interrupts.run_id:
                await _fail(client, interrupts.run_id, cluster.failure)
            raise
        finally:
            for task in measuring:
                task.cancel()
            await asyncio.gather(*measuring, return_exceptions=True)
        return replace(report, log_dir=cluster.log_dir)


async def _measure(run_id: str, home: Path, master: str, screen: Screen) -> None:
    """Measures the run's versions by its recipe's `[[evaluate]]`. Whatever it cannot do leaves the run alone."""
    from perilune.evaluation.following import Follower

    def notify(line: str) -> None:
        screen.console.print(line, style="dim", soft_wrap=True, markup=False)

    try:
        await Follower(run_id, home, master, local_credentials(), notify).follow()
    except PeriluneError as error:
        notify(f"the run's tasks are not measured any more: {error}; `perilune evaluate {run_id} --follow` goes on")


async def _fail(client: AsyncRunClient, run_id: str, reason: str) -> None:
    """Lets the run's state say why its services were given up, where there is still a master to write it."""
    with contextlib.suppress(UnavailableError, StateError):
        await client.fail(run_id, reason)


async def _follow(
    begin: Callable[[AsyncRunClient], Awaitable[Run]],
    client: AsyncRunClient,
    screen: Screen,
    interrupts: Interrupts,
    view: RunView,
) -> Report:
    run = await begin(client)
    interrupts.run_id = run.id
    for note in run.prompts.notes:
        screen.console.print(note, style="yellow", markup=False)
    following = asyncio.create_task(follow(client, run.id, screen.console, live=screen.live, view=view))
    asking = asyncio.create_task(interrupts.asked.wait())
    try:
        await asyncio.wait([following, asking], return_when=asyncio.FIRST_COMPLETED)
        if not following.done():
            view.notice = "stopping after the step at hand; Ctrl-C once more kills"
            with contextlib.suppress(StateError):  # it has ended by itself in the meantime
                await client.stop(run.id)
        await following
    finally:
        for task in (following, asking):
            task.cancel()
        await asyncio.gather(following, asking, return_exceptions=True)
    return await reports.gather(client, run.id)


def _draw_curves(report: Report, target: RunTarget) -> Path | None:
    path = target.home / report.run.id / "curves.png"
    try:
        return path if curves_picture.save_curves(report, path) else None
    except MissingDependencyError as error:
        print(f"perilune: {error}", file=sys.stderr)
        return None


def _verdict(report: Report, target: RunTarget, *, interrupted: bool) -> int:
    run = report.run
    if run.state == RunState.RUN_STATE_FAILED:
        logs = f"\nThe logs lie in {report.log_dir}." if report.log_dir else ""
        advice = "" if RECIPE_IS_KEPT in run.reason else f"\nAfter mending it: {_how_to_resume(run.id, target)}"
        raise PeriluneError(f"{run.id} failed: {run.reason}{logs}{advice}")
    if run.state == RunState.RUN_STATE_STOPPED:
        print(f"{run.id} is stopped; {_how_to_resume(run.id, target)}", file=sys.stderr)
        return INTERRUPTED if interrupted else 0
    return 0


def _how_to_resume(run_id: str, target: RunTarget) -> str:
    where = f" --master {target.master}" if target.master else f" --home {target.home}" * (target.home != DEFAULT_HOME)
    return f"`perilune run resume {run_id}{where}` continues from its last version"
