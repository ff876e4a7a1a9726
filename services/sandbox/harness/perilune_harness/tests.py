"""Runs tests of a program that lies in another job, and reaches it by calls alone (`program`).

This side holds the expected values, and its word alone counts.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import os
import random
import sys
import traceback
import types
from typing import Any

from .program import TO_SANDBOX, BrokenTestError, Program, ProgramError
from .proxies import RemoteClass, RemoteObject
from .reading import MODULES, class_names, handles_objects, modules_in, needs_of, parse
from .wire import TAG, Channel

SOURCE = "tests.py"

_LOOKS_AT_OUTPUT = ("capsys", "redirect_stdout", "stdout", "builtins.print")


def read(source: str) -> Any:
    """Parses the tests' source. BrokenTestError: it is no Python."""
    try:
        return parse(source)
    except ValueError as error:
        raise BrokenTestError(str(error)) from error


def names_of(program: Program, defined: dict[str, Any], hidden: set[str]) -> dict[str, Any]:
    """Names that the tests find defined: the program's, but for those that must keep their meaning."""
    names: dict[str, Any] = {}
    for name, value in defined.items():
        if name.startswith("__") or name in hidden:
            continue
        if not isinstance(value, dict) or value[TAG] != "module":
            names[name] = program.by_name(name, program.decode(value))
        elif value["is"].partition(".")[0] in MODULES:  # `import math as m`: the tests get their own
            with contextlib.suppress(ImportError):
                names[name] = importlib.import_module(value["is"])
    return names


def run_source(source: str, names: dict[str, Any], entry_point: str, modules: set[str]) -> None:
    """Asserts at the top level, HumanEval's check(candidate), unittest's cases: whatever the source has."""
    module = sys.modules["tests"] = types.ModuleType("tests")
    namespace = module.__dict__
    namespace.update(names)
    for name in modules:
        with contextlib.suppress(ImportError):  # the tests fail at their own import of it
            namespace[name] = importlib.import_module(name)
    if entry_point:
        if entry_point not in names:
            raise ProgramError(f"the program defines no {entry_point}")
        namespace["candidate"] = names[entry_point]
    exec(compile(source, SOURCE, "exec", dont_inherit=True), namespace)
    check = namespace.get("check")
    if entry_point and isinstance(check, types.FunctionType):
        check(names[entry_point])
    if "unittest" in sys.modules:
        run_unittest(namespace)


def run_unittest(namespace: dict[str, Any]) -> None:
    """Runs the TestCases among these names. AssertionError for the first that fails."""
    import unittest

    cases = [case for case in namespace.values() if isinstance(case, type) and issubclass(case, unittest.TestCase)]
    loader = unittest.TestLoader()
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in dict.fromkeys(cases))
    if not suite.countTestCases():
        return
    result = unittest.TextTestRunner(stream=sys.stderr).run(suite)
    for test, text in [*result.errors, *result.failures]:
        raise AssertionError(f"{test.id()}: {text.strip().splitlines()[-1]}")
    if result.testsRun == len(result.skipped):
        raise BrokenTestError("every test was skipped")


class RemoteModule(types.ModuleType):
    """The program's module: names that hold plain values are asked for again each time, and can be set there."""

    def __init__(self, name: str, module: Any, names: dict[str, Any]) -> None:
        super().__init__(name)
        plain = {name for name, value in names.items() if not isinstance(value, (RemoteObject, RemoteClass, type))}
        self.__dict__.update(names, _module=module, _plain=plain)

    def __getattribute__(self, name: str) -> Any:
        found = types.ModuleType.__getattribute__(self, name)
        return (
            getattr(self.__dict__["_module"], name)
            if name in types.ModuleType.__getattribute__(self, "__dict__").get("_plain", ())
            else found
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.__dict__["_module"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("__"):
            setattr(self.__dict__["_module"], name, value)
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        delattr(self.__dict__["_module"], name)
        self.__dict__.pop(name, None)


def run_pytest(module: RemoteModule) -> None:
    """Runs pytest on the tests' file; raises the first error of a test."""
    sys.modules[module.__name__] = module
    import pytest

    errors: list[BaseException] = []
    passed: list[str] = []

    class Watch:
        def pytest_exception_interact(self, call: Any) -> None:
            error = call.excinfo.value
            errors.append(error.__cause__ or error)

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.passed and report.when == "call":
                passed.append(report.nodeid)

    quiet = ["-q", "-x", "-p", "no:cacheprovider", "--rootdir=.", "-c", os.devnull, "--import-mode=importlib"]
    status = int(pytest.main([*quiet, SOURCE], plugins=[Watch()]))
    if errors:
        raise errors[0]
    if status != 0 or not passed:
        raise BrokenTestError(f"pytest ended with status {status} after {len(passed)} passed tests")


def verdict(error: BaseException | None, module_name: str, needs: str = "") -> dict[str, str]:
    """The tests' verdict. Only this process gives it, and never the program."""
    if needs:
        return {"verdict": "broken", "why": f"the tests need what cannot be carried to the program: {needs}"}
    if error is None:
        return {"verdict": "passed"}
    text = f"{type(error).__name__}: {error}"[:2000]
    if hasattr(error, "from_the_program") or isinstance(error, ProgramError):
        return {"verdict": "raised", "why": text}
    missing = isinstance(error, ImportError) and error.name != module_name
    if isinstance(error, BrokenTestError) or missing:
        return {"verdict": "broken", "why": text}
    return {"verdict": "failed", "why": _line_of(error) or text}


def _line_of(error: BaseException) -> str:
    """The statement that failed, as it stands in the source."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(SOURCE)]
    if not frames or not frames[-1].line:
        return ""
    kind = "" if isinstance(error, AssertionError) else type(error).__name__
    why = ": ".join(filter(None, [kind, str(error)[:500]]))
    return f"line {frames[-1].lineno}: {frames[-1].line[:500]}" + (f" ({why})" if why else "")


def main(kind: str, name: str) -> None:
    """`kind` is source or pytest; `name` is the entry point, or the module that the pytest file imports."""
    channel = Channel()
    program = Program(channel)
    found: BaseException | None = None
    needs = ""
    try:
        with open(SOURCE, encoding="utf-8") as file:
            source = file.read()
        tree = read(source)
        modules = modules_in(tree)
        needs = needs_of(tree, name)
        program.class_names, program.handles_objects = class_names(tree), handles_objects(tree)
        program.records = [word for word in _LOOKS_AT_OUTPUT if word in source]
        run(program, kind, name, source, modules)
    except BaseException as error:  # noqa: BLE001 SystemExit too: tests that leave early have not passed
        traceback.print_exception(type(error), error, error.__traceback__)
        found = error
    channel.send(verdict(found, name, program.needs or (needs if found is not None else "")), TO_SANDBOX)


def run(program: Program, kind: str, name: str, source: str, modules: set[str]) -> None:
    """Receives what the program defines, and runs the tests against it."""
    hello = program.channel.receive()
    module = program.decode(hello["module"])
    _share_seed(program, module)
    if kind == "pytest":
        run_pytest(RemoteModule(name, module, names_of(program, hello["names"], set())))
    else:
        hidden = {*dir(builtins), *modules} - {name}  # `abs` and `all` stay what they are
        run_source(source, names_of(program, hello["names"], hidden), name, modules)


def _share_seed(program: Program, module: Any) -> None:
    """A seed that the tests set holds for the program too."""
    own = random.seed

    def seed(a: Any = None, version: int = 2) -> None:
        own(a, version)
        program.operator(object.__getattribute__(module, "_remote")[1], "seed", a)

    random.seed = seed
