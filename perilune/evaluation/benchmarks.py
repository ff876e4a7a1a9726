"""The table of tasks: every benchmark of k1.5's App. C, and what else is measured without another's harness.

A row says how a benchmark is run: which reader makes problems of its data, how often each is asked, what the harnesses
of others call it. A benchmark of one's own is a reader in `problems` and a row here.
"""

from __future__ import annotations

import difflib
import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from perilune.curation.shipped import REASONING_GYM, SHIPPED, file_in_package
from perilune.data.files import rows_of
from perilune.data.jsonlines import parse_object
from perilune.errors import InvalidInputError, MissingDependencyError
from perilune.evaluation import problems
from perilune.evaluation.problems import Problem, Reader, Row, grader
from perilune.evaluation.translation import LANGUAGES, translated
from perilune.tasks import TASKS, content_of

NUM_GENERATED = 200  # problems of an endless task, where no limit says otherwise
GENERATED_SEED = 42
AIME_RUNS = 8


@dataclass(frozen=True)
class Benchmark:
    """Describes a benchmark: its data's reader, and how it is run."""

    title: str
    read: Reader
    about: str  # how it is run, for a reader
    num_samples: int = 1  # responses to each problem
    temperature: float = 0.0
    max_tokens: int = 2048
    shipped: str = ""  # the package's set that is its data (perilune.curation.shipped); else a file has to be named
    expand: Callable[[Row], Sequence[Row]] | None = None  # a row of the data as several
    votes: bool = False  # answers are compared as texts, so that a majority means something
    lm_eval: str = ""  # what lm-evaluation-harness calls it
    inspect: str = ""  # and inspect-evals


BENCHMARKS: Mapping[str, Benchmark] = {
    "mmlu": Benchmark(
        "MMLU",
        problems.mmlu,
        "grader choice, zero-shot with reasoning",
        lm_eval="mmlu",
        inspect="inspect_evals/mmlu_0_shot",
    ),
    "ifeval": Benchmark(
        "IF-Eval",
        problems.ifeval,
        "grader instructions: all twenty-five checks, strict, by prompt",
        max_tokens=1280,
        lm_eval="ifeval",
        inspect="inspect_evals/ifeval",
    ),
    "cluewsc": Benchmark("CLUEWSC", problems.cluewsc, "grader choice, zero-shot, in Chinese"),
    "ceval": Benchmark("C-Eval", problems.ceval, "grader choice, zero-shot, in Chinese", lm_eval="ceval-valid"),
    "humaneval": Benchmark(
        "HumanEval",
        problems.humaneval,
        "the sandbox runs its tests",
        shipped="humaneval",
        lm_eval="humaneval_instruct",
        inspect="inspect_evals/humaneval",
    ),
    "humaneval-mul": Benchmark(
        "HumanEval-Mul",
        problems.translated,
        f"HumanEval's tests, translated, in the sandbox: {', '.join(LANGUAGES)}",
        shipped="humaneval",
        expand=translated,
    ),
    "livecodebench": Benchmark(
        "LiveCodeBench",
        problems.livecodebench,
        "the sandbox runs public and private tests",
        max_tokens=8192,
        temperature=0.2,
        inspect="inspect_evals/livecodebench_pro",
    ),
    "codeforces": Benchmark(
        "Codeforces",
        problems.codeforces,
        "the sandbox runs examples and official tests; a share solved, no rating",
        max_tokens=8192,
        temperature=0.2,
    ),
    "aime2024": Benchmark(
        "AIME 2024",
        problems.aime,
        "grader math, pass@1 over 8 runs",
        num_samples=AIME_RUNS,
        temperature=0.6,
        max_tokens=32768,
        votes=True,
        lm_eval="aime24",
        inspect="inspect_evals/aime2024",
    ),
    "math500": Benchmark(
        "MATH-500",
        problems.math500,
        "grader math, by value",
        max_tokens=8192,
        votes=True,
        lm_eval="minerva_math500",
        inspect="inspect_evals/math",
    ),
    "mmmu": Benchmark(
        "MMMU",
        problems.mmmu,
        "graders choice and math; pictures in the message",
        lm_eval="mmmu_val",
        inspect="inspect_evals/mmmu_multiple_choice",
    ),
    "mathvision": Benchmark("MATH-Vision", problems.math_vision, "graders choice and math; pictures in the message"),
    "mathvista": Benchmark(
        "MathVista",
        problems.math_vista,
        "graders choice and math; pictures in the message",
        inspect="inspect_evals/mathvista",
    ),
}

_MARKED = grader("exact", marker="answer:")  # as most of the families end their answers
FAMILY_GRADERS: Mapping[str, Mapping[str, object]] = {name: _MARKED for name in TASKS if name != "guess"} | {
    "large_sums": grader("numeric"),
    "programs": grader("code", format="apps"),
    "search": grader("exact", marker="answer:", unordered="true"),
    "sums": grader("numeric"),
}  # `guess` is played with an environment, which an evaluation does not have


@dataclass(frozen=True)
class Task:
    """A task with its problems, as one evaluation asks it."""

    name: str
    problems: Sequence[Problem]
    num_available: int  # of which a limit chose some
    data: str  # says where they came from
    num_samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 512
    votes: bool = True
    is_chat: bool = True  # its questions are written for models that chat


def find_task(name: str, path: str, graders: Sequence[Mapping[str, object]], limit: int | None) -> Task:
    """A task by its name, with its problems.

    Args:
        name: a benchmark, a family of Perilune's own, `reasoning-gym:NAME`, or with a path whatever the reader likes.
        path: a file of its data; empty for what a package ships or is generated.
        graders: for prompts of one's own.
        limit: so many problems, spread over the data; all if None.

    Raises:
        InvalidInputError: no such task (the message names near ones), or a row cannot be used.
        NotFoundError: no such file. MissingDependencyError: its data's package is not installed.
    """
    if name in BENCHMARKS:
        return _benchmark(name, path, limit)
    if path:
        return _own_prompts(name, path, graders, limit)
    if name in TASKS:
        return _family(name, limit)
    if name.startswith(REASONING_GYM):
        return _reasoning_gym(name, limit)
    raise InvalidInputError(f"there is no task {name!r}; {near(name)}")


HARNESS_NAMES = ("lm-eval", "inspect")


def check_name(text: str) -> None:
    """InvalidInputError if a task's name cannot be any: near ones are named. Files are not looked for."""
    name, _, path = text.partition("=")
    is_file = bool(path) or PurePath(name).suffix in (".jsonl", ".json", ".parquet", ".csv")
    is_others = name.partition(":")[0] in HARNESS_NAMES or name.startswith(REASONING_GYM)
    if not (is_file or is_others or name in BENCHMARKS or name in FAMILY_GRADERS):
        raise InvalidInputError(f"there is no task {name!r}; {near(name)}")


def near(name: str) -> str:
    """Names of tasks like one that does not exist.

    >>> near("humanevl")
    'near are humaneval, humaneval-mul; `perilune evaluate --list` shows all'
    """
    known = [*BENCHMARKS, *FAMILY_GRADERS]
    found = difflib.get_close_matches(name.lower(), known, n=3)
    return f"{'near' if found else 'known'} are {', '.join(found or known)}; `perilune evaluate --list` shows all"


def spread(size: int, limit: int | None) -> list[int]:
    """Places of so many problems, evenly over all, so that a part is of every subject.

    >>> spread(10, 4), spread(3, None), spread(3, 9)
    ([0, 2, 5, 7], [0, 1, 2], [0, 1, 2])
    """
    count = size if limit is None else min(limit, size)
    return [place * size // count for place in range(count)]


def _benchmark(name: str, path: str, limit: int | None) -> Task:
    table = BENCHMARKS[name]
    rows = list(_rows_at(path) if path else _shipped_rows(name))
    if table.expand:
        rows = [(where, each) for where, row in rows for each in table.expand(row)]
    found = [table.read(row, where) for where, row in (rows[place] for place in spread(len(rows), limit))]
    return Task(
        name,
        _not_none(found, path or name),
        len(rows),
        path or SHIPPED[table.shipped].package,
        table.num_samples,
        table.temperature,
        table.max_tokens,
        table.votes,
    )


def _shipped_rows(name: str) -> list[tuple[str, Row]]:
    shipped = BENCHMARKS[name].shipped
    if not shipped:
        raise InvalidInputError(
            f"no package is known that ships the data of {name}: name a file in the benchmark's own format, "
            f"such as {name}=FILE.jsonl or {name}=FILE.parquet"
        )
    path = file_in_package(SHIPPED[shipped].package, SHIPPED[shipped].path)
    with gzip.open(path, "rb") as file:
        lines = enumerate(file.read().splitlines(), 1)
    return [
        (f"{path.name}, line {number}", parse_object(line, f"{path.name}, line {number}")) for number, line in lines
    ]


def _rows_at(path: str) -> list[tuple[str, Row]]:
    rows = []
    for where, row in rows_of(path, None):
        if isinstance(row, InvalidInputError):
            raise row
        rows.append((where, row))
    return rows


def _own_prompts(name: str, path: str, graders: Sequence[Mapping[str, object]], limit: int | None) -> Task:
    if not graders:
        raise InvalidInputError(
            f"{path} holds prompts of your own, so that a grader has to be named: --grader math, for example; "
            f"or, for a benchmark's data, write NAME={path}. {near(name)}"
        )
    rows, read = _rows_at(path), problems.own_prompts("question", "answer", graders)
    found = [read(row, where) for where, row in (rows[place] for place in spread(len(rows), limit))]
    return Task(name, _not_none(found, path), len(rows), path)


def _family(name: str, limit: int | None) -> Task:
    if name not in FAMILY_GRADERS:
        raise InvalidInputError(
            f"{name!r} is played with an environment, which an evaluation does not have; {near('')}"
        )
    task, count, graders = TASKS[name], limit or NUM_GENERATED, [FAMILY_GRADERS[name]]
    made = [task.problem(GENERATED_SEED, index, held_out=True) for index in range(count)]
    found = [
        Problem(f"{name} {index}", [{"role": "user", "content": _shown(content_of(task, each))}], each.answer, graders)
        for index, each in enumerate(made)
    ]
    return Task(name, found, count, f"held-out problems of seed {GENERATED_SEED}", is_chat=False)


def _shown(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A message's content with its pictures as an endpoint takes them."""
    return content if isinstance(content, str) else [problems.image_part(part) for part in content]


def _reasoning_gym(name: str, limit: int | None) -> Task:
    dataset = name.removeprefix(REASONING_GYM)
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise MissingDependencyError(f"{name} needs `pip install reasoning-gym`") from error
    if dataset not in DATASETS:
        found = difflib.get_close_matches(dataset, DATASETS, n=3) or sorted(DATASETS)[:8]
        raise InvalidInputError(f"reasoning-gym has no dataset {dataset!r}; near are {', '.join(found)}")
    count = limit or NUM_GENERATED
    made = reasoning_gym.create_dataset(dataset, size=count, seed=GENERATED_SEED)
    rows = [(f"{dataset} {index}", made[index]) for index in range(count)]
    read = problems.own_prompts("question", "answer", [grader("math")])
    return Task(name, [read(row, where) for where, row in rows], count, f"made by seed {GENERATED_SEED}")


def _not_none(found: Sequence[Problem], where: str) -> Sequence[Problem]:
    if not found:
        raise InvalidInputError(f"there are no problems in {where}")
    return found
