"""Reads the source of tests: which modules they use, what cannot be carried for them, and what they take for classes.

The program has no say in this: what is decided here is the same for a right program, a wrong one and a cheat.
"""

from __future__ import annotations

import ast
import builtins
import collections
import datetime
import decimal
import fractions
import sys
from collections.abc import Iterator

# What cannot be carried to a program in another job, by the names that tests use for it.
_NEEDS = {
    **dict.fromkeys(("patch", "monkeypatch"), "to replace something for the program"),
    **dict.fromkeys(
        ("tmp_path", "tmp_path_factory", "tmpdir", "tempfile", "open", "Path"), "files in common with the program"
    ),
    **dict.fromkeys(("environ", "chdir", "argv", "getcwd"), "a process in common with the program"),
    **dict.fromkeys(("asyncio", "IsolatedAsyncioTestCase"), "to await the program's coroutines"),
    **dict.fromkeys(
        ("inspect", "dis", "gc", "weakref", "getrefcount", "getsource", "signature"), "to look into the program"
    ),
    **dict.fromkeys(
        ("pickle", "dataclasses", "asdict", "fields", "is_dataclass"), "to take the program's objects apart"
    ),
    **dict.fromkeys(
        ("warns", "assertWarns", "warnings", "caplog", "assertLogs", "logging"), "the program's warnings and log"
    ),
    **dict.fromkeys(("capfd", "capfdbinary", "capsysbinary", "subprocess"), "the program's own streams"),
}
# What tests may replace all the same: it is asked for here.
_CARRIED = ("builtins.input", "builtins.print", "sys.stdin", "sys.stdout")

MODULES = {*sys.stdlib_module_names} if sys.version_info >= (3, 10) else {*sys.builtin_module_names}
_OWNERS = {*MODULES, "numpy", "pytest", "mock", "mocker", "self", "cls"}  # whose attributes mean what _NEEDS says
_TAKES_CLASSES = ("isinstance", "issubclass", "raises", "assertRaises", "assertRaisesRegex", "assertIsInstance")
_PLAIN: tuple[type, ...] = (
    *(int, float, complex, str, bytes, bytearray, list, dict, set, frozenset, tuple, range, slice, type(None)),
    *(datetime.datetime, datetime.time, datetime.timedelta, decimal.Decimal, fractions.Fraction),
    *(collections.deque, collections.Counter, collections.OrderedDict, Exception, type(iter([])), type(len)),
    *(type(lambda: None), type(_ for _ in ())),
)
_PLAIN_NAMES = frozenset(name for kind in _PLAIN for name in dir(kind))


def parse(source: str) -> ast.Module:
    """The tests as a tree. ValueError, with the reason, if they do not compile."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"the test does not compile: {error}") from error


def modules_in(tree: ast.Module) -> set[str]:
    """The standard modules of which the tests use something by `module.name`, imported by them or not."""
    owners = (node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {owner.id for owner in owners if isinstance(owner, ast.Name)} & {*MODULES, "numpy", "pytest"}


# --- What cannot be carried -----------------------------------------------------------------------------------------


def needs_of(tree: ast.Module, module_name: str) -> str:
    """Names what the tests use that cannot be carried; empty if there is nothing."""
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    own = {alias.asname or alias.name for alias in _imported(tree, module_name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef):
            return _NEEDS["asyncio"]
        need = "" if isinstance(node, ast.alias) and node.name in own else _need(node, own)
        is_name_of_import = isinstance(node, (ast.alias, ast.arg)) and need == _NEEDS["patch"]
        if need and not is_name_of_import and not _is_carried(node, parents, module_name):
            return need
    return ""


def _need(node: ast.AST, own: set[str]) -> str:
    """The need behind the name that this node holds, if it is not the program's own name or attribute."""
    if isinstance(node, ast.Attribute):
        name = node.attr if _root(node) in _OWNERS else ""
    else:
        name = next((n for f in ("id", "arg", "name") if isinstance(n := getattr(node, f, None), str)), "")
    return "" if name in own else _NEEDS.get(name, "")


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _imported(tree: ast.Module, module_name: str) -> Iterator[ast.alias]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == module_name:
            yield from node.names


def _is_carried(node: ast.AST, parents: dict[ast.AST, ast.AST], module_name: str) -> bool:
    """True for a part of a call such as `monkeypatch.setattr("builtins.input", …)` or `patch("sys.stdout", …)`."""
    while isinstance(node, (ast.Name, ast.Attribute)):
        node = parents[node]
    if not isinstance(node, ast.Call) or not node.args:
        return False
    parts = [part.value if isinstance(part, ast.Constant) else ast.unparse(part) for part in node.args[:2]]
    whole = ".".join(map(str, parts))
    return parts[0] in _CARRIED or whole in _CARRIED or whole.startswith(f"{module_name}.")


# --- What the tests take for classes and objects --------------------------------------------------------------------


def class_names(tree: ast.Module) -> frozenset[str]:
    """The names that the tests use as classes: capitalised ones, and those that only a class can be in their place."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _last(node.func) in _TAKES_CLASSES:
            found |= {_last(part) for argument in node.args[:2] for part in _parts(argument)}
        elif isinstance(node, ast.ExceptHandler) and node.type:
            found |= {_last(part) for part in _parts(node.type)}
        elif isinstance(node, ast.ClassDef):
            found |= {_last(base) for base in node.bases}
        elif isinstance(node, (ast.Name, ast.Attribute)) and is_capitalised(_last(node)):
            found.add(_last(node))
    return frozenset(found - {""})


def is_capitalised(name: str) -> bool:
    """True if the first letter is a capital, as in names of classes."""
    return name.lstrip("_")[:1].isupper()


def handles_objects(tree: ast.Module) -> bool:
    """True if the tests work with objects of the program's own classes, and not only with plain values.

    They do if they make one of a class, or use an attribute that no plain value has of what the program gave. A class
    Solution is only where a task wants its function.
    """
    defined = _defined(tree)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _root(node.func) not in defined]
    called = {_last(call.func) for call in calls}
    if "Solution" in called:
        return bool({name for name in called if is_capitalised(name)} - {"Solution"})
    if any(is_capitalised(name) for name in called):
        return True
    results = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and node.value in calls
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return any(
        isinstance(node, ast.Attribute)
        and node.attr not in _PLAIN_NAMES
        and (node.value in calls or (isinstance(node.value, ast.Name) and node.value.id in results))
        for node in ast.walk(tree)
    )


def _defined(tree: ast.Module) -> set[str]:
    """The names that are not the program's: the tests' own, imported ones and built-ins."""
    found = {*dir(builtins), *_OWNERS}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in _OWNERS:
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = ((alias.asname or alias.name) for alias in node.names if alias.name.partition(".")[0] in _OWNERS)
            found |= set(names)
    return found


def _parts(node: ast.AST) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.Tuple) else [node] if isinstance(node, ast.expr) else []


def _last(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
