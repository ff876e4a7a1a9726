"""`perilune evaluate` and `perilune evaluations`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToDict

from perilune.api.master.v1.master_pb2 import ListTaskSamplesResponse, TaskEvaluation, TaskScore
from perilune.cli.console import harmless
from perilune.cli.facts import iso_time, number
from perilune.cli.masters import local_credentials, reading_place, recording_place
from perilune.client.evaluations import AsyncEvaluationClient
from perilune.client.reward import read_graders
from perilune.errors import MissingDependencyError, UnavailableError
from perilune.local.home import master_of

if TYPE_CHECKING:
    from perilune.evaluation.benchmarks import Benchmark
    from perilune.evaluation.command import Request

INTERRUPTED = 130
NUM_SHOWN = 500  # samples


def run(request: Request, master: str | None, as_json: bool) -> int:
    """Evaluates a model; gives the exit status: 1 if a task could not be measured, 130 after Ctrl-C."""
    try:
        import httpx2  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"asking a model needs `pip install 'perilune[evaluate]'`: {error}") from error
    from perilune.evaluation.command import Found, evaluate

    async def evaluated() -> Found:
        async with recording_place(request.home, master) as place:
            return await evaluate(request, place.address, place.credentials, _say)

    try:
        found = asyncio.run(evaluated())
    except KeyboardInterrupt:
        _say("perilune: stopped; what was answered is kept, and the same command goes on")
        return INTERRUPTED
    _print(found.evaluations, as_json)
    for task, reason in found.failures:
        _say(f"perilune: {task}: {reason}")
    return 1 if found.failures else 0


def follow(run_id: str, home: Path, master: str | None) -> int:
    """Measures a run's versions until it ends; gives the exit status: 1 if something could not be measured."""
    from perilune.evaluation.following import Follower

    async def followed() -> list[tuple[str, str]]:
        address = master or master_of(home)
        if not address:
            raise UnavailableError(f"no services run on {home}; --master HOST:PORT names others")
        return await Follower(run_id, home, address, None if master else local_credentials(), _say).follow()

    try:
        return 1 if asyncio.run(followed()) else 0
    except KeyboardInterrupt:
        _say("perilune: stopped; what was measured is recorded, and the same command goes on")
        return INTERRUPTED


def read_grader_options(graders: Sequence[str]) -> list[dict[str, object]]:
    """Graders as a command names them: a name, or JSON with its options. InvalidInputError for one that is none."""
    return [
        {"name": choice.name, "weight": choice.weight, "options": dict(choice.options)}
        for choice in read_graders(graders)
    ]


def list_tasks(as_json: bool) -> None:
    """Prints what can be measured, and how each benchmark is run."""
    from perilune.evaluation.benchmarks import BENCHMARKS, FAMILY_GRADERS

    if as_json:
        print(json.dumps({name: _described(each) for name, each in BENCHMARKS.items()}, ensure_ascii=False))
        return
    for name, each in BENCHMARKS.items():
        data = f"{name:<15}" if each.shipped else f"{name}=FILE"
        elsewhere = [f"lm-eval:{each.lm_eval}"] * bool(each.lm_eval) + [f"inspect:{each.inspect}"] * bool(each.inspect)
        print(f"{data:<20} {each.title}: {each.about}{''.join(f'; {other}' for other in elsewhere)}")
    for name in FAMILY_GRADERS:
        print(f"{name:<20} Perilune's own problems, held out")
    print(f"{'reasoning-gym:NAME':<20} a dataset of reasoning-gym, grader math")
    print(f"{'FILE.jsonl':<20} prompts of your own (question, answer), with --grader NAME")
    print(f"{'lm-eval:TASK':<20} a task of lm-evaluation-harness")
    print(f"{'inspect:TASK':<20} a task of inspect-ai: FILE.py, or a registered name")


def _described(benchmark: Benchmark) -> dict[str, str]:
    return {
        "title": benchmark.title,
        "how": benchmark.about,
        "data": f"package {benchmark.shipped}" if benchmark.shipped else "a file",
        "lm_eval": benchmark.lm_eval,
        "inspect": benchmark.inspect,
    }


def show(home: Path, master: str | None, run_id: str, task: str, evaluation_id: str, as_json: bool) -> None:
    """Prints the evaluations that are recorded, or one with its samples. NotFoundError."""

    async def ask() -> None:
        async with (
            reading_place(home, master) as place,
            AsyncEvaluationClient(place.address, credentials=place.credentials) as client,
        ):
            if evaluation_id:
                _print_samples(await client.samples(evaluation_id, NUM_SHOWN), as_json)
            else:
                _print(await client.list(run_id, task), as_json)

    asyncio.run(ask())


def _print(evaluations: Sequence[TaskEvaluation], as_json: bool) -> None:
    if as_json:
        print(json.dumps([MessageToDict(each, preserving_proto_field_name=True) for each in evaluations]))
        return
    for each in evaluations:
        main, version = each.scores[0], f" v{each.policy.number}" if each.run_id else ""
        failed = f", {each.num_failed} failed" if each.num_failed else ""
        line = (
            f"{each.id}  {each.model}{version}  {each.task}  {main.name} {figure(main.value)} {interval(main)}  "
            f"{each.num_samples} samples{failed}  {each.harness} {each.harness_version}  {iso_time(each.time_unix_ns)}"
        )
        others = [f"{score.name} {figure(score.value)}" for score in each.scores[1:]]
        print(harmless(f"{line}\n    {'; '.join([*others, *([each.note] if each.note else [])])}"))


def _print_samples(found: ListTaskSamplesResponse, as_json: bool) -> None:
    if as_json:
        print(json.dumps(MessageToDict(found, preserving_proto_field_name=True)))
        return
    for sample in found.samples:
        value = figure(sample.value) if sample.HasField("value") else "no score"
        evidence = "; ".join(f"{key}: {text}" for key, text in sorted(sample.evidence.items()))
        print(harmless(f"--- {sample.problem_id} ({sample.number + 1}): {value}, {sample.num_tokens} tokens"))
        print(harmless(f"{sample.prompt}\n→ {sample.response}\n{evidence}"))
    if len(found.samples) < found.num_samples:
        print(f"{len(found.samples)} of {found.num_samples} samples; the page shows all")


def figure(value: float) -> str:
    """A score as it is compared: four digits behind the point for shares, fewer for what is larger.

    >>> figure(0.25), figure(123.456)
    ('0.2500', '123')
    """
    return f"{value:.4f}" if abs(value) <= 1 else number(value)


def interval(score: TaskScore) -> str:
    """A score's interval, if it has one."""
    return f"[{figure(score.low)}, {figure(score.high)}]" if score.HasField("low") and score.HasField("high") else ""


def _say(line: str) -> None:
    print(harmless(line), file=sys.stderr, flush=True)
