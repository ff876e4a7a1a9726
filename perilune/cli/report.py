"""A run's report, for people and for programs: accuracy before and after, curves, samples, weights, ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from perilune.api.master.v1.master_pb2 import Evaluation, Ledger, Run, Version
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, Score, ScoreStatus
from perilune.api.trajectory.v1.trajectory_pb2 import ScoredTrajectory, StageProgress
from perilune.cli import textplot
from perilune.cli.facts import (
    STATE_STYLES,
    duration,
    evaluations_of,
    iso_time,
    iterations_of,
    ledger_text,
    modes_of,
    number,
    reason_of,
    series,
    stage_figures,
    stage_name,
    state_name,
)
from perilune.policies import shown_version, version_as_json

if TYPE_CHECKING:  # the client brings gRPC along, which drawing does not need
    from perilune.client import AsyncRunClient
    from perilune.client.run import Mode

NUM_SAMPLES_SHOWN = 3
MAX_RESPONSE_CHARS = 400
CHART_WIDTH, CHART_HEIGHT = 28, 6  # two charts fit side by side in eighty columns
UNBROKEN = 10_000  # columns, for what is to be copied whole


@dataclass(frozen=True)
class Pair:
    """One held-out problem, answered by the first and by the last policy."""

    before: ScoredTrajectory
    after: ScoredTrajectory


@dataclass(frozen=True)
class Report:
    """Everything that is said about a run."""

    run: Run
    versions: Sequence[Version] = ()  # in order
    pairs: Sequence[Pair] = ()
    curves: Path | None = None  # where their picture lies
    log_dir: Path | None = None


async def gather(client: AsyncRunClient, run_id: str) -> Report:
    """Asks the master for a run's report. NotFoundError, UnavailableError as the client raises them."""
    run = await client.get(run_id)
    versions = await client.versions(run_id)
    evaluated = sorted({evaluation.policy.number for evaluation in run.evaluations})
    pairs: list[Pair] = []
    if len(evaluated) > 1:
        mode: Mode = "sampled" if "sampled" in modes_of(run) else "greedy"
        first, last = [
            await client.samples(run_id, purpose="evaluate", iteration=number, limit=50, mode=mode)
            for number in (evaluated[0], evaluated[-1])
        ]
        pairs = match(first, last)[:NUM_SAMPLES_SHOWN]
    return Report(run, versions, pairs)


def match(before: Iterable[ScoredTrajectory], after: Iterable[ScoredTrajectory]) -> list[Pair]:
    """Answers to the same prompt, in the order of `before`; the choice never looks at who was right."""
    of_prompt = {sample.trajectory.prompt.id: sample for sample in after}
    return [
        Pair(sample, of_prompt[sample.trajectory.prompt.id])
        for sample in before
        if sample.trajectory.prompt.id in of_prompt
    ]


# --- For programs -------------------------------------------------------------------------------------------------


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values; what `perilune run show RUN --json` prints."""
    run = report.run
    return {
        "id": run.id,
        "state": state_name(run.state),
        "reason": run.reason,
        "problem": run.problem,
        "seconds": run.seconds,
        "submitted": iso_time(run.submitted_unix_ns),
        "iteration": run.iteration,
        "num_iterations": run.num_iterations,
        "prompts": {
            "num_train": run.prompts.num_train,
            "num_heldout": run.prompts.num_heldout,
            "digest": run.prompts.digest,
            "notes": list(run.prompts.notes),
        },
        "evaluations": [
            {
                **version_as_json(e.policy),
                "mode": e.mode,
                "num_problems": e.num_problems,
                "num_correct": e.num_correct,
                "accuracy": e.accuracy,
                "low": e.low,
                "high": e.high,
                "mean_tokens": e.mean_tokens,
            }
            for mode in modes_of(run)
            for e in evaluations_of(run, mode)
        ],
        "versions": [
            {
                **version_as_json(v.policy),
                "num_samples": v.num_samples,
                "num_tokens": v.num_tokens,
                "committed": iso_time(v.time_unix_ns),
                "metrics": dict(sorted(v.metrics.items())),
            }
            for v in report.versions
        ],
        "stages": [stage_as_json(stage) for stage in run.stages],
        "ledger": ledger_as_json(run.ledger),
        "model_path": run.model_path,
    }


def ledger_as_json(ledger: Ledger) -> dict[str, int | bool]:
    """Every count of the ledger by its name, and `balanced`."""
    return {descriptor.name: getattr(ledger, descriptor.name) for descriptor in Ledger.DESCRIPTOR.fields}


def stage_as_json(stage: StageProgress) -> dict[str, Any]:
    """The newest step of a stage."""
    return {
        "index": stage.index,
        "name": stage.name,
        "step": stage.step,
        "num_steps": stage.num_steps,
        "time": iso_time(stage.time_unix_ns),
        "metrics": dict(sorted(stage.metrics.items())),
    }


def summary_as_json(run: Run) -> dict[str, Any]:
    """A run in a line of a list."""
    return {
        "id": run.id,
        "state": state_name(run.state),
        "reason": run.reason,
        "problem": run.problem,
        "seconds": run.seconds,
        "submitted": iso_time(run.submitted_unix_ns),
        "iteration": run.iteration,
        "num_iterations": run.num_iterations,
        "stages": [stage_as_json(stage) for stage in run.stages],
        "accuracy": {mode: evaluations_of(run, mode)[-1].accuracy for mode in modes_of(run)},
        "model_path": run.model_path,
    }


def print_unbroken(console: Console, drawn: RenderableType) -> None:
    """Prints a table whose cells are for copying: a line that is wider than the terminal is not broken by us."""
    width, console.width = console.width, UNBROKEN
    try:
        console.print(drawn, crop=False)
    finally:
        console.width = width


# --- For readers --------------------------------------------------------------------------------------------------


def print_report(console: Console, report: Report) -> None:
    """Prints the whole report; its paths and commands, at the end, in lines that can be copied whole."""
    console.print(render(report))
    for line in places(report):
        console.print(line, soft_wrap=True)


def render(report: Report) -> RenderableType:
    """Renders the report, section by section; empty sections are left out."""
    parts = [
        _headline(report.run),
        _stages(report.run),
        _accuracy(report.run),
        _charts(report.versions),
        _samples(report.pairs),
        _section("Ledger", ledger_text(report.run.ledger)) if report.run.ledger.dispatched else None,
    ]
    return Group(*(Padding(part, (0, 0, 1, 1)) for part in parts if part is not None))


def _section(title: str, *body: RenderableType) -> RenderableType:
    return Group(Text(title, style="bold"), *(Padding(part, (0, 0, 0, 2)) for part in body))


def _headline(run: Run) -> RenderableType:
    line = Text.assemble(
        (run.id, "bold"),
        "  ",
        (state_name(run.state), STATE_STYLES.get(run.state, "cyan")),
        (f"  {duration(run.seconds)}, {iterations_of(run)} of {run.num_iterations} iterations", "dim"),
    )
    reason = reason_of(run)
    return Group(line, Text(reason)) if reason else line


def _stages(run: Run) -> RenderableType | None:
    if not run.stages:
        return None
    table = Table.grid(padding=(0, 2, 0, 0))
    for stage in run.stages:
        figures = Text(stage_figures(stage), style="dim")
        table.add_row(stage_name(run, stage), f"{stage.step} of {stage.num_steps} steps", figures)
    return _section("Stages", table)


def _accuracy(run: Run) -> RenderableType | None:
    modes = modes_of(run)
    if not modes:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for mode in modes:
        table.add_column(mode, justify="right")
        table.add_column("95 % interval")
        table.add_column("tokens", justify="right")
    by_version: dict[int, dict[str, Evaluation]] = {}
    for mode in modes:
        for evaluation in evaluations_of(run, mode):
            by_version.setdefault(evaluation.policy.number, {})[mode] = evaluation
    numbers = sorted(by_version)
    for version in numbers:
        ends = version in (numbers[0], numbers[-1])
        word = {numbers[0]: "before", numbers[-1]: "after"}.get(version, "") if len(numbers) > 1 else ""
        cells = [cell for mode in modes for cell in _accuracy_cells(by_version[version].get(mode), ends)]
        shown = shown_version(next(iter(by_version[version].values())).policy)
        table.add_row(f"{word:<6} {shown}", *cells, style="" if ends else "dim")
    num_problems = max(evaluation.num_problems for evaluation in run.evaluations)
    return _section(f"Accuracy on {num_problems} held-out problems", table, *_gains(run, modes))


def _accuracy_cells(evaluation: Evaluation | None, ends: bool) -> list[RenderableType]:
    if evaluation is None:
        return ["", "", ""]
    return [
        Text(f"{evaluation.accuracy:.1%}".replace("%", " %"), style="bold" if ends else ""),
        Text(f"[{evaluation.low * 100:.1f}, {evaluation.high * 100:.1f}]", style="dim"),
        Text(f"{evaluation.mean_tokens:.0f}", style="dim"),
    ]


def _gains(run: Run, modes: Sequence[str]) -> list[RenderableType]:
    texts = []
    for mode in modes:
        evaluations = evaluations_of(run, mode)
        if len(evaluations) > 1:
            gain = (evaluations[-1].accuracy - evaluations[0].accuracy) * 100
            texts.append(Text.assemble(f"{mode} ", (f"{gain:+.1f} points", "green" if gain > 0 else "yellow")))
    return [Text("   ").join(texts)] if texts else []


def _charts(versions: Sequence[Version]) -> RenderableType | None:
    charts = [
        chart
        for metric, title, style, low in (("reward", "Reward", "green", None), ("mean_tokens", "Length", "cyan", 0.0))
        if (chart := _chart(series(versions, metric)[1], title, style, low))
    ]
    if not charts:
        return None
    grid = Table.grid(padding=(0, 6, 0, 0))
    grid.add_row(*charts)
    return grid


def _chart(values: Sequence[float], title: str, style: str, low: float | None) -> RenderableType | None:
    if len(values) < 2:
        return None
    rows = textplot.area(values, CHART_WIDTH, CHART_HEIGHT, low)
    labels = [number(max(values)), *[""] * (CHART_HEIGHT - 2), number(min(values) if low is None else low)]
    gutter = max(map(len, labels))
    lines = [
        Text.assemble((f"{label:>{gutter}} ", "dim"), (row, style)) for label, row in zip(labels, rows, strict=True)
    ]
    summary = Text.assemble((title, "bold"), (f"  {number(values[0])} → {number(values[-1])}", "dim"))
    return Group(summary, *lines)


def _samples(pairs: Sequence[Pair]) -> RenderableType | None:
    if not pairs:
        return None
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim")
    grid.add_column()
    grid.add_column(ratio=1)
    for i, pair in enumerate(pairs):
        if i:
            grid.add_row("", "", "")
        grid.add_row("asked", "", Text(_question(pair.before), style="italic"))
        for word, sample in (("before", pair.before), ("after", pair.after)):
            grid.add_row(word, _verdict(sample.score), Text(_shortened(sample.trajectory.response)))
    return _section("The first held-out problems, before and after (sampled)", grid)


def _question(sample: ScoredTrajectory) -> str:
    """The last question; a response begun is none."""
    asked = [turn.content for turn in sample.trajectory.prompt.messages if turn.role != "assistant"]
    return _shortened(asked[-1] if asked else "")


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_RESPONSE_CHARS else text[: MAX_RESPONSE_CHARS - 2] + " …"


def _verdict(score: Score) -> Text:
    if score.status != SCORE_STATUS_OK:
        return Text(ScoreStatus.Name(score.status).removeprefix("SCORE_STATUS_").lower(), style="yellow")
    if score.value in (0, 1):
        return Text("✓", style="green") if score.value else Text("✗", style="red")
    return Text(number(score.value))


def _model_class(folder: Path) -> str:
    """The class of transformers that loads a model's folder: one that sees has the settings of an image processor."""
    sees = any((folder / name).exists() for name in ("processor_config.json", "preprocessor_config.json"))
    return "AutoModelForImageTextToText" if sees else "AutoModelForCausalLM"


def places(report: Report) -> list[Text]:
    """Lists the run's files, and how its weights are loaded: a line each."""
    path = report.run.model_path
    load = f'{_model_class(Path(path))}.from_pretrained("{path}")' if path else None
    rows = [("weights", path), ("", load), ("curves", report.curves), ("logs", report.log_dir)]
    return [Text.assemble((f" {word:<8}", "dim"), str(place)) for word, place in rows if place]
