"""What a caller may ask for."""

from __future__ import annotations

import pytest

from perilune.api.sandbox.v1 import sandbox_pb2 as api
from perilune.errors import InvalidInputError
from services.sandbox.job import Limits
from services.sandbox.languages import LANGUAGES, language_named
from services.sandbox.languages.java import main_class
from services.sandbox.messages import check_path, read_files, read_limits
from services.sandbox.test_values import call_values, plain


@pytest.mark.parametrize("path", ["a", "a/b.txt", ".hidden", "a b/ü", "..a"])
def test_paths_in_the_work_folder(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize("path", ["", "/", "/etc/passwd", "../a", "a/../b", "a//b", "a/", "./a", "a\0b", "x" * 2000])
def test_paths_that_leave_it(path: str) -> None:
    with pytest.raises(InvalidInputError, match="no path in the work folder"):
        check_path(path)


def test_a_file_that_comes_twice() -> None:
    with pytest.raises(InvalidInputError, match="given 2 times"):
        read_files([api.File(path="a"), api.File(path="a", content=b"x")])


def test_limits_are_the_default_where_unset_and_never_beyond_the_largest() -> None:
    default, largest = Limits(cpu_s=5, num_processes=10), Limits(cpu_s=20, num_processes=20)
    assert read_limits(api.Limits(cpu_s=7), default, largest) == Limits(cpu_s=7, num_processes=10)
    for wrong in (api.Limits(cpu_s=21), api.Limits(cpu_s=-1), api.Limits(cpu_s=float("nan")), api.Limits(num_files=0)):
        with pytest.raises(InvalidInputError, match="limit"):
            read_limits(wrong, default, largest)


def test_call_values_keep_what_json_tells_apart() -> None:
    test = api.CallTest(arguments_json='[1, 1.0, {"k": [9007199254740993]}]', expected_json="null")
    arguments, expected = call_values(test)
    assert (arguments[0], type(arguments[1])) == (1, float)
    assert arguments[2] == {"#": "dict", "is": [["k", [9007199254740993]]]}
    assert expected is None
    test = api.CallTest(function="f")
    test.arguments.extend([3, "x", [1.5]])
    test.expected.number_value = 4
    assert call_values(test) == ([3, "x", [1.5]], 4)
    assert type(call_values(test)[0][0]) is int
    with pytest.raises(InvalidInputError, match="JSON"):
        call_values(api.CallTest(arguments_json="[1"))


@pytest.mark.parametrize(
    ("told", "value"),
    [
        ({"#": "tuple", "is": [1, {"#": "set", "is": [3, 2]}]}, [1, [2, 3]]),
        ({"#": "dict", "is": [[1, "a"], [{"#": "tuple", "is": [1, 2]}, None]]}, {"1": "a", "[1, 2]": None}),
        ({"#": "float", "is": "inf"}, float("inf")),
    ],
)
def test_returned_values_as_json(told: object, value: object) -> None:
    assert plain(told) == value


@pytest.mark.parametrize("told", [{}, {"#": "object", "is": 1}, {"#": "dict", "is": [1]}, {"#": "float", "is": "x"}])
def test_returned_values_that_no_harness_sends(told: object) -> None:
    with pytest.raises((LookupError, TypeError, ValueError)):
        plain(told)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("public class Two {}\nclass One { static void main(String[] a) {} }", "Two"),
        ("class Helper {}\nclass Problem {\n  public static void main(String[] a) {}\n}", "Problem"),
        ("class Main {\n  static class In {}\n  public static void main(String[] a) {} }\nclass Z {}", "Main"),
        ("public final class Deep {}", "Deep"),
        ("int x;", "Main"),
    ],
)
def test_the_class_that_java_starts(source: str, name: str) -> None:
    assert main_class(source) == name


def test_languages_answer_to_all_their_names() -> None:
    names = [name for language in LANGUAGES.values() for name in (language.name, *language.aliases)]
    assert len(names) == len(set(names))
    assert {language_named(name).name for name in names} == set(LANGUAGES)
    with pytest.raises(InvalidInputError, match="did you mean 'javascript'"):
        language_named("javscript")
