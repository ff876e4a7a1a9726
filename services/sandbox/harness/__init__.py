"""Calls of a program from outside its process: by its own tests, or with JSON arguments.

A harness turns the program, and its tests, into two programs that talk: `candidate` waits for calls, `tests` makes
them. They run in two jobs, and the judge passes their lines on. What the tests expect stays in the tests' job; only
what the tests' job says counts. A new language is one row of the table.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perilune.api.sandbox.v1 import sandbox_pb2 as api

FOLDER = Path(__file__).resolve().parent
# Where a job finds what it is shown of ours. At a level without mounts it is there, where it lies on the host.
INSIDE = "/perilune"
INSIDE_CPP = "perilune"
_PACKAGE = "perilune_harness"
_CANDIDATE = re.compile(r"\bauto\s+candidate\s*=\s*(\w+)\s*;")


@dataclass(frozen=True)
class Side:
    """One of the two programs, and what of the host it is shown at which place."""

    program: api.Program
    mounts: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Harness:
    """The two sides, for one language.

    `candidate(program, name)` answers calls of the function named; `tests(case)` makes them and compares.
    """

    candidate: Callable[[api.Program, str], Side]
    tests: Callable[[api.TestCase], Side]
    # Of a compiled language: what function a test is about; a test that does not say it cannot be run apart.
    function: Callable[[api.TestCase], str] | None = None
    # Whether the tests run in the service's own place, also where the program runs in an image.
    tests_run_here: bool = False


def session(output_bytes: int) -> Side:
    """A Python interpreter that executes what it is sent, one piece after another."""
    return _python("session", [output_bytes], [], [])


def _python_candidate(program: api.Program, name: str) -> Side:
    return _python("candidate", ["solution.py", "solution"], [_file("solution.py", program.source), *program.files], [])


def _python_tests(case: api.TestCase) -> Side:
    if case.HasField("pytest"):
        arguments, source = ["pytest", case.pytest.module or "solution"], case.pytest.source
        packages = ["pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments"]
    else:
        arguments, source, packages = ["source", case.assertion.entry_point], case.assertion.source, []
    if "numpy" in source:
        packages.append("numpy")
    return _python("tests", arguments, [_file("tests.py", source)], packages)


def _python(module: str, arguments: Sequence[object], files: Sequence[api.File], packages: Sequence[str]) -> Side:
    """A program that calls a module of the harness, and sees these of the service's own packages and no others."""
    found = {_PACKAGE: FOLDER / _PACKAGE}
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec and spec.origin and spec.submodule_search_locations:
            found[name] = Path(spec.origin).parent
        elif spec and spec.origin:
            found[Path(spec.origin).name] = Path(spec.origin)
    if "numpy" in found:
        libraries = found["numpy"].with_name("numpy.libs")
        found |= {libraries.name: libraries} if libraries.exists() else {}
    folders = dict.fromkeys([INSIDE, *(str(path.parent) for path in found.values())])
    source = (
        f"import sys\nsys.path[1:1] = {list(folders)}\n"
        f"from {_PACKAGE}.{module} import main\nmain({', '.join(map(repr, arguments))})\n"
    )
    program = api.Program(language="python", source=source, files=files)
    return Side(program, {f"{INSIDE}/{name}": path for name, path in found.items()})


def _javascript_candidate(program: api.Program, name: str) -> Side:
    files = [_file("solution.js", program.source), *program.files]
    return Side(api.Program(language="javascript", source=_javascript("candidate"), files=files))


def _javascript_tests(case: api.TestCase) -> Side:
    files = [_file("tests.js", case.assertion.source)]
    return Side(api.Program(language="javascript", source=_javascript("tests"), files=files))


def _cpp_candidate(program: api.Program, name: str) -> Side:
    """The program's own `main` is left alone, and ours calls the function."""
    source = (
        f'#include "{INSIDE_CPP}/candidate.hpp"\n#define main own_main\n#line 1 "main.cpp"\n{program.source}\n'
        f"#undef main\nint main() {{ return perilune::serve(&{name.replace('.', '::')}); }}\n"
    )
    files = [*program.files, *_headers("candidate")]
    return Side(api.Program(language="cpp", source=source, files=files, compiler_arguments=program.compiler_arguments))


def _cpp_tests(case: api.TestCase) -> Side:
    name = _cpp_function(case)
    source = (
        f'#include "{INSIDE_CPP}/tests.hpp"\nstatic perilune::Function {name}{{"{name}"}};\n{case.assertion.source}\n'
    )
    files = _headers("tests")
    return Side(api.Program(language="cpp", source=source, files=files, compiler_arguments=["-O0"]))  # quick to compile


def _cpp_function(case: api.TestCase) -> str:
    """The function that the tests are about: the one named, else the one that MultiPL-E's tests call `candidate`."""
    found = _CANDIDATE.search(case.assertion.source)
    return case.assertion.entry_point or (found[1] if found else "")


def _headers(part: str) -> list[api.File]:
    names = ("wire.hpp", f"{part}.hpp")
    texts = [(FOLDER / "cpp" / name).read_text(encoding="utf-8") for name in names]
    return [_file(f"{INSIDE_CPP}/{name}", text) for name, text in zip(names, texts, strict=True)]


def _javascript(part: str) -> str:
    return "".join((FOLDER / "javascript" / f"{name}.js").read_text(encoding="utf-8") for name in ("wire", part))


def _file(path: str, source: str) -> api.File:
    return api.File(path=path, content=source.encode("utf-8", "surrogateescape"))


HARNESSES: Mapping[str, Harness] = {
    "python": Harness(_python_candidate, _python_tests, tests_run_here=True),
    "javascript": Harness(_javascript_candidate, _javascript_tests),
    "cpp": Harness(_cpp_candidate, _cpp_tests, _cpp_function),
}
