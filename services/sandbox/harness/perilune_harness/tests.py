"""Runs tests of a program that lies in another job, and reaches it by calls alone.

This side holds the expected values. What comes in are plain values, decoded and compared here, and numbers of objects
that stay with the program. An operator between such an object and a value of the tests is not there: it would hand the
expected value over, and let the program answer for itself.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import os
import sys
import traceback
import types
from collections.abc import Sequence
from typing import Any

from .wire import TAG, Channel, decode, encode

SOURCE = "tests.py"
TO_PROGRAM, TO_SANDBOX = b">", b"!"


class BrokenTestError(Exception):
    """The test itself cannot run; this says nothing about the program."""


class ProgramError(Exception):
    """The program raised something that is no built-in exception."""


class Program:
    """The program, seen from its tests."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.callbacks: list[Any] = []
        self.classes: dict[int, Any] = {}

    def call(self, number: int, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
        coded = [encode(argument, self.hold) for argument in arguments]
        reply = self.ask({"do": "call", "on": number, "arguments": coded, "keywords": encode(keywords, self.hold)})
        for i, value in reply.get("changed", {}).items():
            _change(arguments[int(i)], decode(value, self.held))
        return decode(reply["value"], self.held)

    def operator(self, number: int, name: str, *arguments: Any) -> Any:
        coded = [encode(argument, self.hold) for argument in arguments]
        return self.value({"do": "operator", "on": number, "name": name, "arguments": coded})

    def get(self, number: int, name: str) -> Any:
        return self.value({"do": "get", "on": number, "name": name})

    def set(self, number: int, name: str, value: Any) -> None:
        self.value({"do": "set", "on": number, "name": name, "value": encode(value, self.hold)})

    def value(self, message: Any) -> Any:
        return decode(self.ask(message)["value"], self.held)

    def ask(self, message: Any) -> Any:
        """Sends a request, serves what the program asks meanwhile, and gives the reply."""
        self.channel.send(message, TO_PROGRAM)
        while True:
            reply = self.channel.receive()
            if "call" not in reply:
                break
            self.channel.send(self.call_back(reply), TO_PROGRAM)
        if "raised" in reply:
            raise self.error(reply["raised"])
        return reply

    def call_back(self, message: Any) -> Any:
        try:
            result = self.callbacks[message["call"]](*decode(message["arguments"], self.held))
            return {"value": encode(result, self.hold)}
        except Exception as error:  # noqa: BLE001 a function of the tests may raise anything, for the program to see
            return {"raised": f"{type(error).__name__}: {error}"}

    def hold(self, value: Any) -> Any:
        if type(value) in (RemoteObject, RemoteClass):
            return {TAG: "object", "is": _number(value)}
        if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)):
            self.callbacks.append(value)
            return {TAG: "object", "is": len(self.callbacks) - 1, "theirs": True}
        if hasattr(value, "__next__"):
            return {TAG: "iterator", "is": [encode(item, self.hold) for item in value]}
        raise BrokenTestError(f"the tests give the program a {type(value).__name__}, which cannot be sent")

    def held(self, told: Any) -> Any:
        if "bases" in told:
            return self.class_of(told)
        return RemoteObject(self, int(told["is"]), self.class_of(told["of"]) if "of" in told else None)

    def class_of(self, told: Any) -> Any:
        """The class that stands for one of the program; exceptions become real ones, so that they can be caught."""
        number = int(told["is"])
        if number not in self.classes:
            native = _builtin_exception(told["bases"])
            if native and native.__name__ == told["type"]:
                self.classes[number] = native
            elif native:
                self.classes[number] = type(str(told["type"]), (native,), {"_remote": (self, number)})
            else:
                self.classes[number] = RemoteClass(str(told["type"]), (), {"_remote": (self, number)})
        return self.classes[number]

    def error(self, told: Any) -> BaseException:
        """The exception to raise here for what the program raised there."""
        kind, text = self.class_of(told["of"]), str(told["text"])
        try:
            error = kind(text)
        except TypeError:  # such as UnicodeDecodeError, which wants five arguments
            error = None
        if not isinstance(error, BaseException):
            error = ProgramError(f"{kind.__name__}: {text}")
        error.from_the_program = True
        return error


class RemoteObject:
    """An object or a function of the program. What is asked of it is asked there; it is compared by identity here."""

    __slots__ = ("_kind", "_remote")

    def __init__(self, program: Program, number: int, kind: Any) -> None:
        object.__setattr__(self, "_remote", (program, number))
        object.__setattr__(self, "_kind", kind)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        program, number = _remote(self)
        return program.get(number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        program, number = _remote(self)
        program.set(number, name, value)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return object.__getattribute__(self, "_kind") or RemoteObject

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        program, number = _remote(self)
        return program.call(number, arguments, keywords)

    def __len__(self) -> Any:
        return _operator(self, "len")

    def __iter__(self) -> Any:
        return _operator(self, "iter")

    def __next__(self) -> Any:
        return _operator(self, "next")

    def __getitem__(self, key: Any) -> Any:
        return _operator(self, "getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _operator(self, "setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        _operator(self, "delitem", key)

    def __str__(self) -> str:
        return str(_operator(self, "str"))

    def __repr__(self) -> str:
        return str(_operator(self, "repr"))

    def __bool__(self) -> bool:
        return _operator(self, "bool") is True

    def __hash__(self) -> int:
        return hash(_number(self))

    def __eq__(self, other: Any) -> bool:
        """Between two objects of the program it is the program's to say; a value of the tests is never equal."""
        if type(other) is not RemoteObject:
            return False
        return _number(self) == _number(other) or _operator(self, "eq", other) is True

    def __enter__(self) -> Any:
        program, number = _remote(self)
        return program.get(number, "__enter__")()

    def __exit__(self, *_: Any) -> bool:
        program, number = _remote(self)
        return program.get(number, "__exit__")(None, None, None) is True


class RemoteClass(type):
    """A class of the program: calling it makes an object there."""

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        program, number = _remote(cls)
        return program.call(number, arguments, keywords)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        program, number = _remote(cls)
        return program.get(number, name)

    def __instancecheck__(cls, value: Any) -> bool:
        return type(value) is RemoteObject and _operator(cls, "isinstance", value) is True


def _remote(value: Any) -> Any:
    read = type.__getattribute__ if isinstance(value, type) else object.__getattribute__
    return read(value, "_remote")


def _number(value: Any) -> Any:
    return _remote(value)[1]


def _operator(value: Any, name: str, *arguments: Any) -> Any:
    program, number = _remote(value)
    return program.operator(number, name, *arguments)


def _builtin_exception(bases: Sequence[str]) -> Any:
    """The nearest built-in one. Of those that are no errors only SystemExit: the others stop the tests' own runner."""
    for name in bases:
        found = getattr(builtins, str(name), None)
        if isinstance(found, type) and issubclass(found, (Exception, SystemExit)):
            return found
    return ProgramError if "BaseException" in bases else None


def _change(given: Any, value: Any) -> None:
    if isinstance(given, (list, bytearray)) and type(given) is type(value):
        given[:] = value
    elif isinstance(given, (dict, set)) and type(given) is type(value):
        given.clear()
        given.update(value)


# --- Running the tests --------------------------------------------------------------------------------------------


def names_of(program: Program, told: dict[str, Any], entry_point: str, modules: set[str]) -> dict[str, Any]:
    """What the tests find defined: what the program defines, unless it has a built-in's name (`abs` and `all` stay
    what they are, where the tests are not about just that function) or one that the tests use as a module."""
    names: dict[str, Any] = {}
    for name, value in told.items():
        if name.startswith("__") or (name != entry_point and (hasattr(builtins, name) or name in modules)):
            continue
        if not isinstance(value, dict) or value[TAG] != "module":
            names[name] = decode(value, program.held)
        elif value["is"].partition(".")[0] in _MODULES:  # `import math as m`: the tests get their own
            with contextlib.suppress(ImportError):
                names[name] = importlib.import_module(value["is"])
    return names


_MODULES = {*sys.stdlib_module_names} if sys.version_info >= (3, 10) else {*sys.builtin_module_names}


def modules_in(source: str) -> set[str]:
    """The standard modules of which the tests use something by `module.name`, imported by them or not."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError) as error:
        raise BrokenTestError(f"the test does not compile: {error}") from error
    owners = (node.value for node in nodes if isinstance(node, ast.Attribute))
    return {owner.id for owner in owners if isinstance(owner, ast.Name)} & {*_MODULES, "numpy", "pytest"}


def run_source(source: str, names: dict[str, Any], entry_point: str, modules: set[str]) -> None:
    """Asserts at the top level, HumanEval's check(candidate), unittest's cases: whatever the source has."""
    module = sys.modules["tests"] = types.ModuleType("tests")
    namespace = module.__dict__
    namespace.update(names)
    for name in modules:
        with contextlib.suppress(ImportError):  # what the tests import themselves is told then
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
    import unittest

    cases = [case for case in namespace.values() if isinstance(case, type) and issubclass(case, unittest.TestCase)]
    loader = unittest.TestLoader()
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in dict.fromkeys(cases))
    if not suite.countTestCases():
        return
    result = unittest.TextTestRunner(stream=sys.stderr).run(suite)
    for test, told in [*result.errors, *result.failures]:
        raise AssertionError(f"{test.id()}: {told.strip().splitlines()[-1]}")
    if result.testsRun == len(result.skipped):
        raise BrokenTestError("every test was skipped")


def run_pytest(names: dict[str, Any], module_name: str) -> None:
    module = sys.modules[module_name] = types.ModuleType(module_name)
    module.__dict__.update(names)
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


def verdict(error: BaseException | None, module_name: str) -> dict[str, str]:
    """What the tests found. Only this process says it, and never the program."""
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
    found: BaseException | None = None
    try:
        with open(SOURCE, encoding="utf-8") as file:
            source = file.read()
        modules = modules_in(source)
        names = names_of(Program(channel), channel.receive()["names"], name, modules)
        if kind == "pytest":
            run_pytest(names, name)
        else:
            run_source(source, names, name, modules)
    except BaseException as error:  # noqa: BLE001 SystemExit too: tests that leave early have not passed
        traceback.print_exception(type(error), error, error.__traceback__)
        found = error
    channel.send(verdict(found, name), TO_SANDBOX)
