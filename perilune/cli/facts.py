"""Facts of a run as commands print them: states, figures, durations and ledgers in words."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.text import Text

from perilune.api.master.v1.master_pb2 import Evaluation, Ledger, Run, RunState, Version
from perilune.api.trajectory.v1.trajectory_pb2 import StageProgress

if TYPE_CHECKING:  # the client brings gRPC along, which drawing does not need
    pass

LEDGER_FIELDS = ("dispatched", "trained", "filtered", "stale", "dead", "in_flight")


def modes_of(run: Run) -> list[str]:
    """The ways in which the run was evaluated: `greedy` first, where it was."""
    return sorted({evaluation.mode for evaluation in run.evaluations})


def evaluations_of(run: Run, mode: str) -> list[Evaluation]:
    """The run's evaluations in one mode, in order of version."""
    return sorted((e for e in run.evaluations if e.mode == mode), key=lambda e: e.policy.number)


def series(versions: Iterable[Version], metric: str) -> tuple[list[int], list[float]]:
    """A metric's curve: version numbers and values, where it was reported."""
    points = [(v.policy.number, v.metrics[metric]) for v in versions if metric in v.metrics]
    return [number for number, _ in points], [value for _, value in points]


def state_name(state: RunState.ValueType) -> str:
    """The state in a word, for example `finished`."""
    known = state in RunState.values() and state != RunState.RUN_STATE_UNSPECIFIED
    return RunState.Name(state).removeprefix("RUN_STATE_").lower() if known else "unknown"


def reason_of(run: Run) -> str:
    """The reason for the run's state, where it says more than the state itself."""
    reason = "" if run.reason == state_name(run.state) else run.reason
    return "; ".join(filter(None, (reason, run.problem)))


def recipe_of(run: Run) -> dict[str, Any]:
    """The run's recipe as plain values; empty if it is no JSON object."""
    try:
        recipe = json.loads(run.recipe_json)
    except (ValueError, RecursionError):
        return {}
    return recipe if isinstance(recipe, dict) else {}


def is_after(run: Run, stage: StageProgress) -> bool:
    """Tests whether a stage comes after reinforcement learning."""
    return _stage_key(run, stage, "when") == "after"


def stage_name(run: Run, stage: StageProgress) -> str:
    """A stage's type; with its place in the recipe, from 1, where there are several of it."""
    stages = recipe_of(run).get("stages")
    types = [each.get("type") for each in stages if isinstance(each, dict)] if isinstance(stages, list) else []
    return f"{stage.name} {stage.index + 1}" if types.count(stage.name) > 1 else stage.name


def stage_figures(stage: StageProgress) -> str:
    """Loss and speed of a stage's newest step."""
    shown = (("loss", "loss {}"), ("tokens_per_second", "{} tokens/s"))
    return ", ".join(form.format(number(stage.metrics[name])) for name, form in shown if name in stage.metrics)


def stages_text(run: Run) -> str:
    """Returns how far each stage is that has begun: its name alone once all its steps are taken."""
    return ", ".join(
        stage_name(run, stage) + ("" if stage.step == stage.num_steps else f" {stage.step}/{stage.num_steps}")
        for stage in run.stages
    )


def iterations_of(run: Run) -> int:
    """The iterations of reinforcement learning that are done; versions that later stages made are none."""
    return min(run.policy.number, run.num_iterations)


def _stage_key(run: Run, stage: StageProgress, key: str) -> Any:
    stages = recipe_of(run).get("stages")
    table = stages[stage.index] if isinstance(stages, list) and stage.index < len(stages) else None
    return table.get(key) if isinstance(table, dict) else None


def percent(share: float) -> str:
    """A share as people read it, for example `78.4 %`."""
    return f"{share * 100:.1f} %"


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes.

    >>> duration(125), duration(7380)
    ('2:05', '2 h 03 min')
    """
    if seconds < 3600:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


def clock_time(unix_ns: int) -> str:
    """Hours, minutes and seconds of a moment, in the reader's time zone."""
    return datetime.datetime.fromtimestamp(unix_ns / 1e9).astimezone().strftime("%H:%M:%S")


def iso_time(unix_ns: int) -> str | None:
    """A moment in UTC; none for one that has not come."""
    if not unix_ns:
        return None
    return datetime.datetime.fromtimestamp(unix_ns / 1e9, datetime.UTC).isoformat(timespec="seconds")


STATE_STYLES = {
    RunState.RUN_STATE_FINISHED: "green",
    RunState.RUN_STATE_RUNNING: "cyan",
    RunState.RUN_STATE_FAILED: "red",
    RunState.RUN_STATE_STOPPED: "yellow",
    RunState.RUN_STATE_STOPPING: "yellow",
    RunState.RUN_STATE_INTERRUPTED: "yellow",
}


def number(value: float) -> str:
    """A figure with about three digits.

    >>> number(0.1234), number(43.21), number(12345.6)
    ('0.123', '43.2', '12,346')
    """
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"


def ledger_text(ledger: Ledger) -> Text:
    """The ledger's equation without its zero terms, and whether it holds."""
    counts = [(name.replace("_", " "), getattr(ledger, name)) for name in LEDGER_FIELDS[1:]]
    terms = " + ".join(f"{count:,} {name}" for name, count in counts if count) or "0"
    mark = ("balanced ✓", "green") if ledger.balanced else ("does not balance ✗", "bold red")
    return Text.assemble(f"{ledger.dispatched:,} dispatched = {terms}", "  ", mark)
