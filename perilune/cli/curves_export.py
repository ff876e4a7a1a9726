"""A run's curves in other tools: TensorBoard's event files, Weights & Biases.

They are written from what the master knows, on request, while the run goes on or long after: neither the
master nor the trainer knows these tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from perilune.api.master.v1.master_pb2 import Evaluation, Run, Version
from perilune.api.trajectory.v1.trajectory_pb2 import StageProgress
from perilune.cli.facts import recipe_of, stage_name
from perilune.errors import MissingDependencyError

if TYPE_CHECKING:
    from perilune.client import AsyncRunClient

EVENT_FILES = "events.out.tfevents.*"


@dataclass(frozen=True)
class Point:
    """Values at one place, by name: of a version, `train/…` of the iteration or stage that made it and
    `heldout/MODE/…` of its evaluation; of a stage's step, `stage/NAME/…`."""

    place: int  # number of the version, or of the step
    values: Mapping[str, float]
    time_unix_s: float | None = None  # None: the master does not say when
    axis: Literal["version", "step"] = "version"


class Writer(Protocol):
    """A destination of points."""

    def write(self, point: Point) -> None:
        """Adds a version's values."""

    def close(self) -> None:
        """Everything that was written is where it belongs."""


class TensorBoardWriter:
    """Event files in a folder of the run's own; those of an earlier export are replaced."""

    def __init__(self, folder: Path, run: Run) -> None:
        """MissingDependencyError without tensorboardX, which writes them."""
        try:
            from tensorboardX.writer import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError("TensorBoard's files need tensorboardX: pip install tensorboardX") from error
        own = folder / run.id
        for old in own.glob(EVENT_FILES):
            old.unlink()
        self._writer = SummaryWriter(str(own))
        self._writer.add_text("recipe", f"```json\n{json.dumps(recipe_of(run), indent=2)}\n```", 0)

    def write(self, point: Point) -> None:
        """Adds a version's values as scalars at that step."""
        for name, value in point.values.items():
            self._writer.add_scalar(name, value, point.place, point.time_unix_s)

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()


class WandbWriter:
    """A run of the same id in a project of Weights & Biases. WANDB_MODE=offline writes it down for `wandb sync`."""

    def __init__(self, project: str, run: Run, folder: Path) -> None:
        """MissingDependencyError without wandb, which finds the account by its own settings."""
        try:
            import wandb
        except ImportError as error:
            raise MissingDependencyError("Weights & Biases needs its client: pip install wandb") from error
        folder.mkdir(parents=True, exist_ok=True)
        self._teardown = wandb.teardown
        self._run = wandb.init(
            project=project,
            id=run.id,
            name=run.id,
            config=recipe_of(run),
            resume="allow",
            dir=str(folder),
            settings=wandb.Settings(console="off", silent=True, disable_git=True, x_disable_stats=True),
        )
        # An evaluation comes later than the steps after its version: its place is the version, not the time.
        self._run.define_metric("version")
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="version")
        self._run.define_metric("stage/*", step_metric="step")

    def write(self, point: Point) -> None:
        """Logs a point's values; the version, or a stage's step, is their axis."""
        self._run.log({point.axis: point.place, **point.values})

    def close(self) -> None:
        """Finishes the run and waits for its process to write the rest."""
        self._run.finish()
        self._teardown()  # its process writes the last of it only when it ends


@dataclass
class UnwrittenPoints:
    """Picks the points of a run that were not written yet, so that each is written once."""

    _versions: set[int] = field(default_factory=set)
    _evaluations: set[tuple[int, str]] = field(default_factory=set)
    _steps: set[tuple[int, int]] = field(default_factory=set)

    def of_stages(self, run: Run, steps: Iterable[StageProgress]) -> Iterator[Point]:
        """The points of stages that are new."""
        for step in steps:
            if (step.index, step.step) not in self._steps:
                self._steps.add((step.index, step.step))
                name = stage_name(run, step).replace(" ", "-")
                values = {f"stage/{name}/{metric}": step.metrics[metric] for metric in sorted(step.metrics)}
                yield Point(step.step, values, step.time_unix_ns / 1e9, "step")

    def of(self, versions: Iterable[Version], evaluations: Iterable[Evaluation]) -> Iterator[Point]:
        """The points that are new, versions first."""
        for version in versions:
            number = version.policy.number
            if number not in self._versions:
                self._versions.add(number)
                values = {f"train/{name}": version.metrics[name] for name in sorted(version.metrics)}
                yield Point(number, values, version.time_unix_ns / 1e9)
        for evaluation in evaluations:
            key = (evaluation.policy.number, evaluation.mode)
            if key not in self._evaluations:
                self._evaluations.add(key)
                measured = {"accuracy": evaluation.accuracy, "mean_tokens": evaluation.mean_tokens}
                yield Point(key[0], {f"heldout/{key[1]}/{name}": value for name, value in measured.items()})


async def export(client: AsyncRunClient, run: Run, writers: Sequence[Writer], follow: bool) -> int:
    """Writes all points there are and, with `follow`, those to come until the run ends; how many that were."""
    unwritten, num_points = UnwrittenPoints(), 0

    async def write(current: Run) -> int:
        points = list(unwritten.of_stages(current, await client.stage_steps(run.id)))
        points += unwritten.of(await client.versions(run.id), current.evaluations)
        for point in points:
            for writer in writers:
                writer.write(point)
        return len(points)

    if follow:
        async for snapshot in client.watch(run.id):
            num_points += await write(snapshot.run)
    return num_points + await write(await client.get(run.id))


def writers_for(run: Run, tensorboard: Path | None, wandb: str | None, home: Path) -> list[Writer]:
    """The writers that were asked for. MissingDependencyError says what to install for one."""
    made: list[Any] = []
    if tensorboard:
        made.append(TensorBoardWriter(tensorboard, run))
    if wandb:
        made.append(WandbWriter(wandb, run, home / "wandb"))
    return made
