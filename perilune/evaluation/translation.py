"""HumanEval's problems in eight languages, by translation of their tests, as MultiPL-E does it (arXiv:2208.08227); rows
are read by `perilune.grading.codetests.translated`.

A signature's types are inferred from the values of all tests. A problem is left out of a language in which a value
cannot be written (a list of several types in Java, a text with spaces in a list in Bash), and out of all but Python
where a test is more than a comparison of values.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RESERVED = frozenset(
    "string int char long double float bool list map set class new function var let const in is object operator case "
    "switch default static public private this void return base params out ref default delete do end then fi done "
    "array abstract interface package event lock checked fixed".split()
)


@dataclass(frozen=True)
class Type:
    """A value's type: `int`, `float`, `bool`, `str`, a `list` or a `dict` of types; `any` of an empty list's values."""

    name: str
    of: tuple[Type, ...] = ()


@dataclass(frozen=True)
class Case:
    """A call and what it has to return, exactly or up to a tolerance."""

    arguments: Sequence[Any]
    expected: Any
    tolerance: float | None = None


@dataclass(frozen=True)
class Function:
    """A problem as every language sees it: a function with typed arguments, its description, its tests."""

    name: str
    arguments: Sequence[str]
    types: Sequence[Type]
    returns: Type
    description: str
    cases: Sequence[Case]


class UntranslatableError(ValueError):
    """A problem, or a value of it, cannot be written in a language."""


@dataclass(frozen=True)
class Dialect:
    """Says how a language writes a function, its values, and a test."""

    comment: str
    begin: Callable[[Function, str], str]  # with the description as comments: the function up to its body
    value: Callable[[Any, Type], str]
    test: Callable[[str, Function, Case], str]  # of a call's text
    run: Callable[[str], str]  # of all tests: what runs them, behind the program
    header: str = ""  # imports
    opening: str = ""  # of a class, where functions have to be in one
    closing: str = "}\n"  # of all that the prompt opens
    call: str = "{}"  # of the function's name


def translated(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A row of HumanEval as one for each language that it can be written in."""
    rows: list[Mapping[str, Any]] = [_in_python(row)]
    try:
        function = read_function(row)
    except UntranslatableError:
        return rows
    for language, dialect in DIALECTS.items():
        try:
            rows.append({"name": row["task_id"], "language": language, **_written(function, dialect)})
        except UntranslatableError:
            continue
    return rows


def _in_python(row: Mapping[str, Any]) -> dict[str, Any]:
    name, tests = row["entry_point"], f"{row['test']}\ncheck({row['entry_point']})"
    # What the prompt defines beside the function is there in any case.
    header, prompt = f"{row['prompt']}\n    pass\n\n", row["prompt"]
    return {
        "name": row["task_id"],
        "language": "python",
        "header": header,
        "prompt": prompt,
        "tests": tests,
        "entry_point": name,
    }


def _written(function: Function, dialect: Dialect) -> dict[str, str]:
    lines = [f"{dialect.comment} {line}".rstrip() for line in function.description.splitlines()]
    tests = [dialect.test(_call(function, case, dialect), function, case) for case in function.cases]
    begun = dialect.begin(function, "\n".join(lines))
    return {
        "header": dialect.header,
        "opening": dialect.opening,
        "prompt": f"{dialect.header}{dialect.opening}{begun}",
        "closing": dialect.closing,
        "tests": dialect.run("\n".join(tests)),
        "entry_point": function.name,
    }


def _call(function: Function, case: Case, dialect: Dialect) -> str:
    values = [dialect.value(value, kind) for value, kind in zip(case.arguments, function.types, strict=True)]
    return f"{dialect.call.format(function.name)}({', '.join(values)})"


# --- From Python --------------------------------------------------------------------------------------------------


def read_function(row: Mapping[str, Any]) -> Function:
    """A row's function, types and tests. UntranslatableError if a test is more than a comparison of values."""
    name = row["entry_point"]
    definition = _definition(ast.parse(f"{row['prompt']}\n    pass\n"), name)
    cases = list(_cases(_definition(ast.parse(row["test"]), "check")))
    arguments = [each.arg for each in definition.args.args]
    if not cases or any(len(case.arguments) != len(arguments) for case in cases):
        raise UntranslatableError(f"{name} is not called with all its arguments")
    types = [_common(type_of(case.arguments[place]) for case in cases) for place in range(len(arguments))]
    returns = _common(type_of(case.expected) for case in cases)
    if any(case.tolerance for case in cases):
        returns = Type("float")
    plain = [f"{each}_" if each in RESERVED else each for each in arguments]
    return Function(name, plain, types, returns, ast.get_docstring(definition) or "", cases)


def _definition(tree: ast.Module, name: str) -> ast.FunctionDef:
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    others = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node not in found]
    if not found or others:
        raise UntranslatableError(f"{name} needs another function")
    return found[-1]


def _cases(check: ast.FunctionDef) -> Iterator[Case]:
    for statement in check.body:
        if not isinstance(statement, ast.Assert):
            if isinstance(statement, ast.Expr | ast.Pass):
                continue
            raise UntranslatableError("a test is more than assertions")
        if not isinstance(statement.test, ast.Constant):  # `assert True`, as the data set has many
            yield _case(statement.test)


def _case(test: ast.expr) -> Case:
    match test:
        case ast.Compare(left=ast.Call() as call, ops=[ast.Eq() | ast.Is()], comparators=[expected]) if _is_candidate(
            call
        ):
            return Case(_arguments(call), _literal(expected))
        case ast.Compare(
            left=ast.Call(args=[ast.BinOp(left=ast.Call() as call, op=ast.Sub(), right=expected)]),
            ops=[ast.Lt()],
            comparators=[tolerance],
        ) if _is_candidate(call):
            return Case(_arguments(call), float(_literal(expected)), float(_literal(tolerance)))
        case ast.UnaryOp(op=ast.Not(), operand=ast.Call() as call) if _is_candidate(call):
            return Case(_arguments(call), False)
        case ast.Call() if _is_candidate(test):
            return Case(_arguments(test), True)
    raise UntranslatableError(f"a test is no comparison of values: {ast.unparse(test)}")


def _is_candidate(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "candidate" and not call.keywords


def _arguments(call: ast.Call) -> list[Any]:
    return [_literal(argument) for argument in call.args]


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def _literal(node: ast.expr) -> Any:
    """A value as it is written, also as a sum, product or quotient of numbers, which some tests have."""
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        numbers = _literal(node.left), _literal(node.right)
        if all(isinstance(each, int | float) for each in numbers) and numbers[1]:
            return _OPERATORS[type(node.op)](*numbers)
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(each) for each in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise UntranslatableError(f"{ast.unparse(node)} is no plain value") from error


def type_of(value: Any) -> Type:
    """A value's type; a tuple is a list. UntranslatableError for what languages have in too many ways."""
    match value:
        case bool():
            return Type("bool")
        case int() | float() | str():
            return Type(type(value).__name__)
        case list() | tuple():
            return Type("list", (_common(map(type_of, value)),))
        case dict():
            return Type("dict", (_common(map(type_of, value)), _common(map(type_of, value.values()))))
    raise UntranslatableError(f"{value!r} has no type that all languages know")


def _common(types: Iterable[Type]) -> Type:
    found = Type("any")
    for each in types:
        found = _both(found, each)
    return found


def _both(one: Type, other: Type) -> Type:
    if one == other or other.name == "any":
        return one
    if one.name == "any":
        return other
    if {one.name, other.name} == {"int", "float"}:
        return Type("float")
    if one.name == other.name and one.of:
        return Type(one.name, tuple(_both(*pair) for pair in zip(one.of, other.of, strict=True)))
    raise UntranslatableError(f"a value is {one.name} and {other.name}")


# --- Values -------------------------------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    """A text as most languages write it: JSON's escapes, beyond ASCII as it is."""
    return json.dumps(text, ensure_ascii=False)


def _number(value: Any, kind: Type) -> str:
    if kind.name == "bool":
        return "true" if value else "false"
    if kind.name == "int" and abs(value) >= 1 << 63:
        raise UntranslatableError(f"{value} has more than 64 bits")
    return repr(float(value)) if kind.name == "float" else str(value)


def _json_value(value: Any, kind: Type) -> str:
    match kind.name:
        case "str":
            return _quoted(value)
        case "list":
            return f"[{', '.join(_json_value(each, kind.of[0]) for each in value)}]"
        case "dict":
            pairs = (f"{_json_value(k, kind.of[0])}: {_json_value(v, kind.of[1])}" for k, v in value.items())
            return f"{{{', '.join(pairs)}}}"
    return _number(value, kind)


def _php_value(value: Any, kind: Type) -> str:
    match kind.name:
        case "str":
            return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
        case "list":
            return f"[{', '.join(_php_value(each, kind.of[0]) for each in value)}]"
        case "dict":
            pairs = (f"{_php_value(k, kind.of[0])} => {_php_value(v, kind.of[1])}" for k, v in value.items())
            return f"[{', '.join(pairs)}]"
    return _number(value, kind)


def _typed(
    names: Mapping[str, str], lists: str, sequence: str, integer: str
) -> tuple[Callable[[Type], str], Callable[[Any, Type], str]]:
    """How a language with types names them, and writes values of them.

    Args:
        names: of plain types, by Python's.
        lists: the type of a list, around that of its values.
        sequence: a list of values, with its TYPE, that of one of its VALUES, and these.
        integer: a whole number.
    """

    def name(kind: Type) -> str:
        if kind.name == "list":
            return lists.format(name(kind.of[0]))
        if kind.name not in names:
            raise UntranslatableError(f"{kind.name} is not written in this language")
        return names[kind.name]

    def value(given: Any, kind: Type) -> str:
        if kind.name == "list":
            values = ", ".join(value(each, kind.of[0]) for each in given)
            return sequence.replace("TYPE", name(kind)).replace("VALUES", values)
        name(kind)
        if kind.name == "str":
            return names["quote"].format(_quoted(given))
        return integer.format(_number(given, kind)) if kind.name == "int" else _number(given, kind)

    return name, value


def _bash_value(value: Any, kind: Type) -> str:
    return "'" + _bash_text(value, kind).replace("'", "'\\''") + "'"


def _bash_text(value: Any, kind: Type, depth: int = 0) -> str:
    """A list is its values with spaces between them, a list of lists has a line for each."""
    if kind.name == "list" and depth < 2:
        nested = kind.of[0].name == "list"
        return ("\n" if nested else " ").join(_bash_text(each, kind.of[0], depth + 1) for each in value)
    if kind.name in ("list", "dict", "any"):
        raise UntranslatableError(f"{kind.name} is not written in Bash")
    if kind.name != "str":
        return _number(value, kind)
    if depth and value.split() != [value]:
        raise UntranslatableError(f"{value!r} is no word of a list")
    return str(value)


def _filled(form: str, **parts: str) -> str:
    """A form with each part in its place, whatever the parts hold."""
    return re.sub("|".join(parts), lambda found: parts[found[0]], form)


# --- Languages ----------------------------------------------------------------------------------------------------


def _tested(same: str, near: str, fail: str, value: Callable[[Any, Type], str]) -> Callable[[str, Function, Case], str]:
    """Makes tests: CALL and EXPECTED are the SAME, or NEAR up to TOLERANCE, or it FAILs."""

    def test(call: str, function: Function, case: Case) -> str:
        form = same if case.tolerance is None else near
        expected = value(case.expected, function.returns)
        return _filled(fail, HOLDS=_filled(form, CALL=call, EXPECTED=expected, TOLERANCE=repr(case.tolerance)))

    return test


def _plain_begin(form: str, argument: str = "{}") -> Callable[[Function, str], str]:
    def begin(function: Function, comments: str) -> str:
        names = ", ".join(argument.format(name) for name in function.arguments)
        return _filled(form, COMMENTS=comments, NAME=function.name, ARGUMENTS=names)

    return begin


def _typed_begin(form: str, argument: str, name: Callable[[Type], str]) -> Callable[[Function, str], str]:
    def begin(function: Function, comments: str) -> str:
        pairs = zip(function.arguments, function.types, strict=True)
        arguments = ", ".join(argument.format(each, name(kind)) for each, kind in pairs)
        parts = {"COMMENTS": comments, "NAME": function.name, "ARGUMENTS": arguments}
        return _filled(form, RETURNS=name(function.returns), **parts)

    return begin


def _bash_begin(function: Function, comments: str) -> str:
    pairs = enumerate(zip(function.arguments, function.types, strict=True), 1)
    places = "\n".join(f"# ${number} is {name}, {_in_words(kind)}" for number, (name, kind) in pairs)
    return f"{comments}\n#\n{places}\n{function.name}() {{\n"


def _in_words(kind: Type) -> str:
    if kind.name == "list":
        return "lines of values with spaces between them" if kind.of[0].name == "list" else "values with spaces between"
    return {"int": "an integer", "float": "a decimal", "bool": "true or false"}.get(kind.name, "a text")


def _bash_test(call: str, function: Function, case: Case) -> str:
    if case.tolerance is not None:
        raise UntranslatableError("Bash computes no decimals")
    words = " ".join(_bash_value(v, kind) for v, kind in zip(case.arguments, function.types, strict=True))
    if _bash_text(case.expected, function.returns).endswith("\n"):
        raise UntranslatableError("Bash cuts line feeds off what a function says")
    expected = _bash_value(case.expected, function.returns)
    return f'[[ "$({function.name} {words})" == {expected} ]] || {{ echo "wrong: {function.name}"; exit 1; }}'


_java_name, _java_value = _typed(
    {"int": "Long", "float": "Double", "bool": "Boolean", "str": "String", "quote": "{}", "any": "Long"},
    "List<{}>",
    "List.of(VALUES)",
    "{}L",
)
_cpp_name, _cpp_value = _typed(
    {"int": "long", "float": "double", "bool": "bool", "str": "string", "quote": "string({})", "any": "long"},
    "vector<{}>",
    "TYPE({VALUES})",
    "{}L",
)
_cs_name, _cs_value = _typed(
    {"int": "long", "float": "double", "bool": "bool", "str": "string", "quote": "{}", "any": "long"},
    "List<{}>",
    "new TYPE {VALUES}",
    "{}L",
)
_ts_name, _ = _typed(
    {"int": "number", "float": "number", "bool": "boolean", "str": "string", "quote": "{}", "any": "any"},
    "{}[]",
    "",
    "{}",
)

_ASSERT = 'const assert = require("node:assert");'
_NODE_TEST = _tested(
    "assert.deepStrictEqual(CALL, EXPECTED)",
    "assert(Math.abs(CALL - EXPECTED) < TOLERANCE)",
    "HOLDS;",
    _json_value,
)
_CS_SAME = """\
    static bool Same(object one, object other) {
        var a = one as System.Collections.IList;
        var b = other as System.Collections.IList;
        if (a == null || b == null) return Equals(one, other);
        if (a.Count != b.Count) return false;
        for (int i = 0; i < a.Count; i++) if (!Same(a[i], b[i])) return false;
        return true;
    }
"""

_METHOD = "COMMENTS\n    public static RETURNS NAME(ARGUMENTS) {\n"

DIALECTS: Mapping[str, Dialect] = {
    "java": Dialect(
        "    //",
        _typed_begin(_METHOD, "{1} {0}", _java_name),
        _java_value,
        _tested(
            "Objects.equals(CALL, EXPECTED)",
            "Math.abs(CALL - EXPECTED) < TOLERANCE",
            '        if (!(HOLDS)) throw new AssertionError("wrong");',
            _java_value,
        ),
        lambda tests: f"class Tests {{\n    public static void main(String[] args) {{\n{tests}\n    }}\n}}\n",
        header="import java.util.*;\nimport java.util.stream.*;\n",
        opening="class Problem {\n",
        closing="    }\n}\n",
        call="Problem.{}",
    ),
    "cpp": Dialect(
        "//",
        _typed_begin("COMMENTS\nRETURNS NAME(ARGUMENTS) {\n", "{1} {0}", _cpp_name),
        _cpp_value,
        _tested("CALL == EXPECTED", "fabs(CALL - EXPECTED) < TOLERANCE", "    if (!(HOLDS)) abort();", _cpp_value),
        lambda tests: f"int main() {{\n{tests}\n}}\n",
        header="#include <bits/stdc++.h>\nusing namespace std;\n",
    ),
    "csharp": Dialect(
        "    //",
        _typed_begin(_METHOD, "{1} {0}", _cs_name),
        _cs_value,
        _tested(
            "Same(CALL, EXPECTED)",
            "Math.Abs(CALL - EXPECTED) < TOLERANCE",
            '        if (!(HOLDS)) throw new Exception("wrong");',
            _cs_value,
        ),
        lambda tests: f"class Tests {{\n{_CS_SAME}    public static void Main() {{\n{tests}\n    }}\n}}\n",
        header="using System;\nusing System.Collections.Generic;\nusing System.Linq;\nusing System.Text;\n",
        opening="class Problem {\n",
        closing="    }\n}\n",
        call="Problem.{}",
    ),
    "javascript": Dialect(
        "//",
        _plain_begin("COMMENTS\nfunction NAME(ARGUMENTS) {\n"),
        _json_value,
        _NODE_TEST,
        lambda tests: f"{_ASSERT}\n{tests}\n",
    ),
    "typescript": Dialect(
        "//",
        _typed_begin("COMMENTS\nfunction NAME(ARGUMENTS): RETURNS {\n", "{0}: {1}", _ts_name),
        _json_value,
        _NODE_TEST,
        lambda tests: f"declare function require(name: string): any;\n{_ASSERT}\n{tests}\n",
    ),
    "php": Dialect(
        "//",
        _plain_begin("COMMENTS\nfunction NAME(ARGUMENTS) {\n", "${}"),
        _php_value,
        _tested(
            "CALL === EXPECTED",
            "abs(CALL - EXPECTED) < TOLERANCE",
            'if (!(HOLDS)) { throw new Exception("wrong"); }',
            _php_value,
        ),
        lambda tests: f"{tests}\n",
        header="<?php\n",
    ),
    "bash": Dialect("#", _bash_begin, _bash_value, _bash_test, lambda tests: f"{tests}\n", header="#!/bin/bash\n"),
}
LANGUAGES = ("python", *DIALECTS)
