"""Coding problems as rows of files: read as they are, or rejected with their place and the reason."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError

from perilune.api.sandbox.v1.sandbox_pb2 import Comparison
from perilune.api.sandbox.v1.sandbox_pb2 import Program as SandboxProgram
from perilune.data.files import rows_of
from perilune.data.jsonlines import ExactNumber
from perilune.data.rows import kind_of, plain_text
from perilune.errors import InvalidInputError
from perilune.grading.codetests.languages import language_called

RANDOM, SMALL, EXTREME, ADVERSARIAL = "random", "small", "extreme", "adversarial"
KINDS = (SMALL, EXTREME, ADVERSARIAL, RANDOM)
KEYS = {
    *("id", "statement", "language", "solutions", "wrong_solutions", "generator", "generators", "validator", "checker"),
    *("comparison", "entry_point", "examples", "malformed", "time_limit_s", "memory_mb"),
}


@dataclass(frozen=True)
class Program:
    """A source and its language."""

    source: str
    language: str = "python"


@dataclass(frozen=True)
class Generator:
    """A program that writes inputs of the kinds named."""

    program: Program
    kinds: tuple[str, ...] = KINDS
    written_by: str = "given"


@dataclass(frozen=True)
class Problem:
    """A coding problem. With an `entry_point` its inputs are JSON lists of a function's arguments, else stdin."""

    id: str
    statement: str
    solutions: tuple[Program, ...]
    wrong_solutions: tuple[Program, ...] = ()
    generators: tuple[Generator, ...] = ()
    validator: Program | None = None
    comparison: Comparison = field(default_factory=Comparison)
    entry_point: str = ""
    examples: tuple[bytes, ...] = ()
    malformed: tuple[bytes, ...] = ()  # inputs that the validator is to reject
    time_limit_s: float | None = None
    memory_mb: int | None = None

    @property
    def has_checker(self) -> bool:
        """True if a program judges outputs."""
        return self.comparison.kind == Comparison.KIND_CHECKER


@dataclass(frozen=True)
class BrokenRow:
    """A row that is no problem, and why not."""

    place: str  # file and line
    reason: str


def read_problems(path: Path) -> tuple[dict[str, Mapping[str, Any]], dict[str, Problem], list[BrokenRow]]:
    """The rows and problems of a file by id, and the rows that are none.

    NotFoundError: the file cannot be read. InvalidInputError: it is of no format that is known, or is empty.
    """
    rows: dict[str, Mapping[str, Any]] = {}
    problems: dict[str, Problem] = {}
    broken = []
    for where, found in rows_of(str(path), None):
        try:
            if isinstance(found, InvalidInputError):
                raise found
            row = {key: _plain(value) for key, value in found.items() if value is not None}
            problem = read_problem(row, where)
            if problem.id in problems:
                raise InvalidInputError(f"{where}: the id {problem.id!r} was used above")
        except InvalidInputError as error:
            broken.append(BrokenRow(where, str(error)))
        else:
            rows[problem.id], problems[problem.id] = row, problem
    if not rows and not broken:
        raise InvalidInputError(f"{path} holds no problems: write one a row")
    return rows, problems, broken


def read_problem(row: Mapping[str, Any], where: str) -> Problem:
    """Reads one row. InvalidInputError names the key and what is wrong with it."""
    if unknown := sorted(set(row) - KEYS):
        raise InvalidInputError(
            f"{where}: there is no key {unknown[0]!r} of a problem; known are {', '.join(sorted(KEYS))}"
        )
    language = _language(row.get("language", "python"), where, "language")
    entry_point = plain_text(row.get("entry_point", ""), where, "entry_point", may_be_blank=True).strip()
    programs = {
        key: tuple(_program(value, language, where, f"{key}[{at}]") for at, value in enumerate(_list(row, key, where)))
        for key in ("solutions", "wrong_solutions")
    }
    if entry_point and any(program.language != "python" for program in programs["solutions"]):
        raise InvalidInputError(f"{where}: 'entry_point' is for functions in Python; use stdin and stdout for others")
    return Problem(
        id=_id(row, where),
        statement=plain_text(row.get("statement"), where, "statement"),
        solutions=tuple(dict.fromkeys(programs["solutions"])),
        wrong_solutions=tuple(dict.fromkeys(programs["wrong_solutions"])),
        generators=tuple(_generators(row, where)),
        validator=_optional_program(row, "validator", where),
        comparison=_comparison(row, bool(entry_point), where),
        entry_point=entry_point,
        examples=tuple(_input(value, bool(entry_point), where, "examples") for value in _list(row, "examples", where)),
        malformed=tuple(_input(value, False, where, "malformed") for value in _list(row, "malformed", where)),
        time_limit_s=_positive(row, "time_limit_s", where),
        memory_mb=None if (memory := _positive(row, "memory_mb", where)) is None else max(1, int(memory)),
    )


def _plain(value: Any) -> Any:
    """A value with Python's own numbers."""
    match value:
        case ExactNumber():
            return json.loads(value.text)
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
    return value


def _id(row: Mapping[str, Any], where: str) -> str:
    value = row.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return where if value is None else plain_text(value, where, "id")


def _list(row: Mapping[str, Any], key: str, where: str) -> Sequence[Any]:
    value = row.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInputError(f"{where}: {key!r} must be a list, and is {kind_of(value)}")
    return value


def _language(value: Any, where: str, key: str) -> str:
    return language_called(plain_text(value, where, key))


def _program(value: Any, language: str, where: str, key: str) -> Program:
    """A program: its source, or an object with its language too."""
    if isinstance(value, Mapping):
        named = value.get("language")
        language = language if named is None else _language(named, where, f"{key}.language")
        return Program(plain_text(value.get("source"), where, f"{key}.source"), language)
    return Program(plain_text(value, where, key), language)


def _optional_program(row: Mapping[str, Any], key: str, where: str) -> Program | None:
    return None if row.get(key) is None else _program(row[key], "python", where, key)


def _generators(row: Mapping[str, Any], where: str) -> list[Generator]:
    given = [row["generator"]] if row.get("generator") is not None else []
    return [
        _generator(value, where, f"generators[{at}]")
        for at, value in enumerate([*given, *_list(row, "generators", where)])
    ]


def _generator(value: Any, where: str, key: str) -> Generator:
    program = _program(value, "python", where, key)
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind is not None and kind not in KINDS:
        raise InvalidInputError(f"{where}: {f'{key}.kind'!r} is {kind_of(kind)}; known are {', '.join(KINDS)}")
    return Generator(program, (kind,) if kind else KINDS)


def _comparison(row: Mapping[str, Any], is_function: bool, where: str) -> Comparison:
    """Returns how outputs are compared: as the row says, by its checker, else by lines or JSON values."""
    checker = _optional_program(row, "checker", where)
    value = row.get("comparison")
    if checker is not None:
        if is_function or value is not None:
            raise InvalidInputError(f"{where}: a 'checker' goes with stdin and stdout, and with no 'comparison'")
        program = SandboxProgram(language=checker.language, source=checker.source)
        return Comparison(kind=Comparison.KIND_CHECKER, checker=program)
    if value is None:
        return Comparison(kind=Comparison.KIND_JSON if is_function else Comparison.KIND_LINES)
    found = _named_comparison({"kind": value} if isinstance(value, str) else value, where)
    if (found.kind == Comparison.KIND_JSON) != is_function or found.kind == Comparison.KIND_CHECKER:
        raise InvalidInputError(f"{where}: this 'comparison' is not for {'functions' if is_function else 'stdout'}")
    return found


def _named_comparison(value: Any, where: str) -> Comparison:
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{where}: 'comparison' must be a name or an object, and is {kind_of(value)}")
    kind = str(value.get("kind", "")).removeprefix("KIND_")
    try:
        return ParseDict({**value, "kind": f"KIND_{kind.upper()}"}, Comparison())
    except ParseError as error:
        raise InvalidInputError(f"{where}: 'comparison' is none of the sandbox's: {error}") from error


def _input(value: Any, is_function: bool, where: str, key: str) -> bytes:
    """An input: text, `{"base64": …}`, or for a function its list of arguments."""
    if is_function and isinstance(value, list):
        return json.dumps(value).encode()
    if isinstance(value, Mapping) and set(value) == {"base64"}:
        try:
            return base64.b64decode(str(value["base64"]), validate=True)
        except binascii.Error as error:
            raise InvalidInputError(f"{where}: {key!r} holds no base64: {error}") from error
    if not isinstance(value, str):
        raise InvalidInputError(f"{where}: {key!r} must hold inputs as text, and holds {kind_of(value)}")
    return value.encode("utf-8", "surrogatepass")


def _positive(row: Mapping[str, Any], key: str, where: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise InvalidInputError(f"{where}: {key!r} must be a number above 0, and is {kind_of(value)}")
    return float(value)
