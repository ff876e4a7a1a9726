"""Harnesses of others, as they are: their own command line runs a task, their own files say what came of it.

A harness runs in a process, with the Python that has it: this one, or that of PERILUNE_HARNESS_PYTHON, since a harness
may want other versions of packages than Perilune. Each keeps what it did in a folder of its own under the evaluation's
id, so that after a crash the same command goes on there.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perilune.api.master.v1.master_pb2 import TaskSample
from perilune.errors import InvalidInputError, MissingDependencyError, StateError
from perilune.evaluation.metrics import Figure
from perilune.evaluation.own import Sampling
from perilune.stats import Z_95

PYTHON = "PERILUNE_HARNESS_PYTHON"
LOG = "harness.log"
NUM_LOG_LINES = 15
SEED = 0


@dataclass(frozen=True)
class Asked:
    """Describes what a harness is asked to do."""

    task: str
    url: str  # of the endpoint, …/v1
    model: str  # its name there
    folder: Path  # where it keeps its work
    sampling: Sampling
    limit: int | None
    tokenizer: Path | None  # a folder with the model's, where the endpoint shows it
    api_key: str = ""


@dataclass(frozen=True)
class Said:
    """Describes what a harness found."""

    figures: Sequence[Figure]
    samples: Sequence[TaskSample]
    num_problems: int
    note: str = ""


@dataclass(frozen=True)
class Harness:
    """A harness: its package, its command line, and how its results are read."""

    name: str
    package: str  # as pip and importlib.metadata call it
    module: str
    command: Callable[[Asked], list[str]]  # behind `python`
    environment: Callable[[Asked], Mapping[str, str]]
    read: Callable[[Asked], Said]


def python_with(harness: Harness) -> str:
    """The Python that has a harness. MissingDependencyError says how to install it."""
    if named := os.environ.get(PYTHON):
        return named
    if importlib.util.find_spec(harness.module) is not None:
        return sys.executable
    raise MissingDependencyError(
        f"{harness.name} is not installed: pip install 'perilune[evaluate]', or name the Python of an environment that "
        f"has {harness.package} in {PYTHON}"
    )


async def version_of(harness: Harness) -> str:
    """The version that is installed. MissingDependencyError if none is."""
    python = python_with(harness)
    asked = f"from importlib.metadata import version; print(version({harness.package!r}))"
    try:
        process = await asyncio.create_subprocess_exec(
            python, "-c", asked, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError as error:
        raise MissingDependencyError(f"{PYTHON}={python} cannot be run: {error.strerror}") from error
    output, _ = await process.communicate()
    if process.returncode:
        raise MissingDependencyError(f"{python} has no {harness.package}: pip install 'perilune[evaluate]' for it")
    return output.decode().strip()


async def run(harness: Harness, asked: Asked, notify: Callable[[str], None]) -> Said:
    """Runs a task by a harness, from where an earlier try had come.

    Raises:
        StateError: it ended without a result; the message has its last words.
        MissingDependencyError: it is not installed.
        InvalidInputError: its results cannot be read.
    """
    asked.folder.mkdir(parents=True, exist_ok=True)
    command = [python_with(harness), *harness.command(asked)]
    notify(f"{harness.name} runs {asked.task}; its log is {asked.folder / LOG}")
    with (asked.folder / LOG).open("ab") as log:
        place = Path(asked.task).parent if Path(asked.task).is_file() else asked.folder
        status = await _ended(command, {**_inherited(), **harness.environment(asked)}, log, place)
    if status:
        last = _last_lines(asked.folder / LOG)
        raise StateError(
            f"{harness.name} ended with status {status} in {asked.task}; what it has done is kept, and the same "
            f"command goes on. Its last words:\n{last}"
        )
    try:
        return await asyncio.to_thread(harness.read, asked)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:  # files of another version of it
        raise InvalidInputError(f"what {harness.name} wrote in {asked.folder} cannot be read: {error!r}") from error


def _inherited() -> dict[str, str]:
    """This process's variables but Perilune's own, among which are secrets; a hub's token is the harness's to have."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("PERILUNE_")}


async def _ended(command: Sequence[str], environment: Mapping[str, str], log: Any, place: Path) -> int:
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=place
    )
    try:
        return await process.wait()
    finally:
        if process.returncode is None:  # the command was stopped
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-NUM_LOG_LINES:])


def _newest(folder: Path, pattern: str) -> Path:
    found = sorted(folder.rglob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"there is no {pattern} in {folder}")
    return found[-1]


def _with_error(name: str, value: float, error: Any) -> Figure:
    if isinstance(error, int | float) and math.isfinite(error):
        return Figure(name, value, value - Z_95 * error, value + Z_95 * error)
    return Figure(name, value)


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, bool) or _is_figure(value) else None


# --- lm-evaluation-harness ----------------------------------------------------------------------------------------


def _lm_eval_command(asked: Asked) -> list[str]:
    """Completions, where the tokenizer is known (texts are generated and scored), else chats (generated alone)."""
    if asked.tokenizer:
        kind, path, tokenizer = "local-completions", "completions", str(asked.tokenizer)
        reads = {"tokenizer_backend": "huggingface", "tokenizer": tokenizer}
    else:
        kind, path, reads = "local-chat-completions", "chat/completions", {"tokenizer_backend": "none"}
    arguments = {
        "model": asked.model,
        "base_url": f"{asked.url.rstrip('/')}/{path}",
        "num_concurrent": asked.sampling.max_concurrent,
        "timeout": 3600,
        **reads,
    }
    drawn = _drawn(asked.sampling)
    return [
        "-m", "lm_eval", "run", "--tasks", asked.task, "--model", kind,
        "--model_args", ",".join(f"{key}={value}" for key, value in arguments.items()),
        "--output_path", str(asked.folder / "results"), "--log_samples", "--use_cache", str(asked.folder / "cache"),
        "--seed", str(SEED),
        *([] if asked.sampling.plain else ["--apply_chat_template"]),
        *(["--system_instruction", asked.sampling.system] if asked.sampling.system else []),
        *(["--limit", str(asked.limit)] if asked.limit else []),
        *(["--gen_kwargs", ",".join(f"{key}={value}" for key, value in drawn.items())] if drawn else []),
    ]  # fmt: skip


def _drawn(sampling: Sampling) -> dict[str, Any]:
    if (sampling.num_samples or 1) > 1:
        raise InvalidInputError("lm-eval draws as often as its task says: leave --samples out")
    given = {"temperature": sampling.temperature, "max_gen_toks": sampling.max_tokens}
    top_p = {"top_p": sampling.top_p} if sampling.top_p < 1 else {}
    return {key: value for key, value in given.items() if value is not None} | top_p


def _lm_eval_results(asked: Asked) -> Said:
    document = json.loads(_newest(asked.folder / "results", "results_*.json").read_text(encoding="utf-8"))
    results = document["results"]
    name = asked.task if asked.task in results else next(iter(results))
    figures = list(_lm_eval_figures(results[name], ""))
    figures += [
        figure for each, found in results.items() if each != name for figure in _lm_eval_figures(found, f"{each} ")
    ]
    counts = [each["effective"] for each in document.get("n-samples", {}).values()]
    samples = list(_lm_eval_samples(asked.folder / "results"))
    note = f"the first {asked.limit} problems of each of its tasks" if asked.limit else ""
    return Said(figures, samples, sum(counts) or len(samples), note)


def _lm_eval_figures(found: Mapping[str, Any], prefix: str) -> Iterator[Figure]:
    """Figures are `metric,filter`, and their standard errors `metric_stderr,filter`."""
    for name, value in found.items():
        metric, comma, chosen = name.partition(",")
        if comma and _is_figure(value) and not metric.endswith("_stderr"):
            yield _with_error(f"{prefix}{name}", value, found.get(f"{metric}_stderr,{chosen}"))


def _lm_eval_samples(folder: Path) -> Iterator[TaskSample]:
    problem = 0
    stamps = {path.stem.rpartition("_")[2] for path in folder.rglob("samples_*.jsonl")}
    for path in sorted(folder.rglob(f"samples_*_{max(stamps)}.jsonl") if stamps else ()):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield _lm_eval_sample(json.loads(line), problem, path.stem.removeprefix("samples_").rpartition("_")[0])
            problem += 1


def _lm_eval_sample(row: Mapping[str, Any], problem: int, task: str) -> TaskSample:
    asked = row.get("arguments") or {}
    first: Mapping[str, Any] = next(iter(asked.values()), {}) if isinstance(asked, dict) else {}
    values = {name: row[name] for name in row.get("metrics", []) if _number(row.get(name)) is not None}
    value = next((_number(each) for each in values.values()), None)
    return TaskSample(
        problem=problem,
        problem_id=f"{task} {row.get('doc_id', problem)}",
        prompt=_as_text(first.get("arg_0", "")),
        reference=_as_text(row.get("target", "")),
        response=_as_text(row.get("filtered_resps") or row.get("resps") or ""),
        value=value,
        evidence={name: str(each) for name, each in values.items()},
    )


# --- inspect-ai ---------------------------------------------------------------------------------------------------


def _inspect_command(asked: Asked) -> list[str]:
    sampling = asked.sampling
    if unfinished := _unfinished(asked.folder):
        return ["-m", "inspect_ai", "eval-retry", str(unfinished), *_inspect_places(asked)]
    if sampling.plain:
        raise InvalidInputError("inspect-ai asks by chat messages: leave --plain out")
    given = {
        "--epochs": sampling.num_samples,
        "--temperature": sampling.temperature,
        "--max-tokens": sampling.max_tokens,
        "--top-p": sampling.top_p if sampling.top_p < 1 else None,
        "--system-message": sampling.system or None,
        "--limit": asked.limit,
        "--seed": SEED,
    }
    options = [text for name, value in given.items() if value is not None for text in (name, str(value))]
    model = ["--model", f"openai-api/local/{asked.model}"]
    task = Path(asked.task).name if Path(asked.task).is_file() else asked.task  # it takes no path from the root
    return ["-m", "inspect_ai", "eval", task, *model, *options, *_inspect_places(asked)]


def _inspect_places(asked: Asked) -> list[str]:
    concurrency = str(asked.sampling.max_concurrent)
    return [
        "--log-dir", str(asked.folder / "logs"), "--log-format", "json", "--display", "plain",
        "--max-connections", concurrency, "--log-buffer", "1",
    ]  # fmt: skip


def _unfinished(folder: Path) -> Path | None:
    """The newest log, if its evaluation did not come to its end: its samples are taken over."""
    try:
        newest = _newest(folder / "logs", "*.json")
        status = json.loads(newest.read_text(encoding="utf-8")).get("status")
    except (OSError, ValueError):
        return None
    return newest if status in ("started", "error", "cancelled") else None


def _inspect_environment(asked: Asked) -> dict[str, str]:
    return {"LOCAL_BASE_URL": asked.url, "LOCAL_API_KEY": asked.api_key or "none"}


def _inspect_results(asked: Asked) -> Said:
    document = json.loads(_newest(asked.folder / "logs", "*.json").read_text(encoding="utf-8"))
    if document["status"] != "success":
        raise ValueError(f"its status is {document['status']}: {(document.get('error') or {}).get('message', '')}")
    figures = [figure for scorer in document["results"]["scores"] for figure in _inspect_figures(scorer)]
    samples = [_inspect_sample(place, each) for place, each in _placed(document.get("samples") or [])]
    count = document["results"].get("total_samples") or len(samples)
    note = f"the first {asked.limit} problems" if asked.limit else ""
    return Said(figures, samples, len({sample.problem for sample in samples}) or count, note)


def _inspect_figures(scorer: Mapping[str, Any]) -> Iterator[Figure]:
    metrics = {name: each["value"] for name, each in scorer["metrics"].items() if _is_figure(each["value"])}
    error = metrics.pop("stderr", None)
    for name, value in metrics.items():
        yield _with_error(f"{scorer['name']} {name}", value, error if name in ("accuracy", "mean") else None)


def _placed(samples: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Samples with their problems' places: epochs of one problem have the same."""
    places: dict[Any, int] = {}
    for sample in samples:
        yield places.setdefault(sample["id"], len(places)), sample


_VERDICTS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # correct, partial, incorrect, no answer


def _inspect_sample(problem: int, sample: Mapping[str, Any]) -> TaskSample:
    scores = sample.get("scores") or {}
    verdict = next((each["value"] for each in scores.values()), None)
    value = _VERDICTS.get(verdict) if isinstance(verdict, str) else _number(verdict)
    said = {
        f"{name} {key}": str(each[key])
        for name, each in scores.items()
        for key in ("answer", "explanation")
        if each.get(key)
    }
    output = sample.get("output") or {}
    usage = sum(each.get("output_tokens", 0) for each in (sample.get("model_usage") or {}).values())
    return TaskSample(
        problem=problem,
        number=sample.get("epoch", 1) - 1,
        problem_id=str(sample["id"]),
        prompt=_as_text(sample.get("input", "")),
        reference=_as_text(sample.get("target", "")),
        response=_as_text(output.get("completion", "")),
        value=value,
        num_tokens=usage,
        evidence=said,
    )


def _as_text(value: Any) -> str:
    """A text as it is; messages by their contents, and anything else as JSON."""
    if isinstance(value, list) and all(
        isinstance(each, dict) and isinstance(each.get("content"), str) for each in value
    ):
        return "\n\n".join(each["content"] for each in value)
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


HARNESSES: Mapping[str, Harness] = {
    "lm-eval": Harness(
        "lm-eval",
        "lm_eval",
        "lm_eval",
        _lm_eval_command,
        lambda asked: {"OPENAI_API_KEY": asked.api_key or "none"},
        _lm_eval_results,
    ),
    "inspect": Harness(
        "inspect-ai", "inspect_ai", "inspect_ai", _inspect_command, _inspect_environment, _inspect_results
    ),
}
