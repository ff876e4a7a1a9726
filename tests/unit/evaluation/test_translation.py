"""HumanEval's tests in other languages: the types that are inferred, the values that are written."""

from __future__ import annotations

from typing import Any

import pytest

from perilune.evaluation.translation import DIALECTS, LANGUAGES, Type, read_function, translated, type_of


def row(arguments: str, *tests: str, name: str = "f") -> dict[str, Any]:
    return {
        "task_id": "HumanEval/0",
        "prompt": f'def {name}({arguments}):\n    """ Do it.\n    Well.\n    """\n',
        "entry_point": name,
        "test": "METADATA = {}\n\ndef check(candidate):\n" + "".join(f"    assert {test}\n" for test in tests),
    }


def value_in(language: str, *tests: str) -> str:
    function = read_function(row("x", *tests))
    return DIALECTS[language].value(function.cases[0].arguments[0], function.types[0])


def test_types_are_those_of_all_values_together() -> None:
    function = read_function(row("a, b", "candidate([], 1) == True", "candidate([2, 0.5], 2) == False"))
    assert function.types == [Type("list", (Type("float"),)), Type("int")]
    assert function.returns == Type("bool")
    assert type_of([]) == Type("list", (Type("any"),))
    assert type_of({"a": [1]}) == Type("dict", (Type("str"), Type("list", (Type("int"),))))


@pytest.mark.parametrize(
    ("language", "written"),
    [
        ("java", 'List.of(List.of("a\\"b", "c"), List.of())'),
        ("cpp", 'vector<vector<string>>({vector<string>({string("a\\"b"), string("c")}), vector<string>({})})'),
        ("csharp", 'new List<List<string>> {new List<string> {"a\\"b", "c"}, new List<string> {}}'),
        ("javascript", '[["a\\"b", "c"], []]'),
        ("typescript", '[["a\\"b", "c"], []]'),
        ("php", "[['a\"b', 'c'], []]"),
        ("bash", "'a\"b c\n'"),
    ],
)
def test_a_value_is_written_in_every_language(language: str, written: str) -> None:
    assert value_in(language, "candidate([['a\"b', 'c'], []]) == 1") == written


def test_numbers_keep_their_kind() -> None:
    assert value_in("java", "candidate([1, 2]) == 1") == "List.of(1L, 2L)"
    assert value_in("java", "candidate([1, 2.5]) == 1") == "List.of(1.0, 2.5)"
    assert value_in("php", "candidate(True) == 1") == "true"


def test_tests_that_are_sums_negations_and_tolerances_are_read() -> None:
    function = read_function(row("x", "not candidate(3 * 5)", "candidate(2) is True"))
    assert [(case.arguments, case.expected) for case in function.cases] == [([15], False), ([2], True)]
    assert read_function(row("x", "candidate([1]) == 2 + 2", "True")).cases[0].expected == 4
    near = read_function(row("x", "abs(candidate(3.5) - 0.5) < 1e-6"))
    assert (near.cases[0].expected, near.cases[0].tolerance) == (0.5, 1e-6)


def test_what_a_language_cannot_write_is_left_out_of_it_alone() -> None:
    def languages(*tests: str, arguments: str = "x") -> set[str]:
        return {str(each["language"]) for each in translated(row(arguments, *tests))}

    assert languages("candidate(1) == 2") == set(LANGUAGES)
    assert languages("candidate(['a b']) == 2") == set(LANGUAGES) - {"bash"}
    assert languages("candidate({'a': 1}) == 2") == {"python", "javascript", "php"}
    assert languages("candidate(None) == 2") == {"python"}
    assert languages("candidate([1, 'a']) == 2") == {"python"}
    assert languages("candidate(1) == candidate(2)") == {"python"}
    assert languages("candidate(1, 2) == 2") == {"python"}


def test_names_that_other_languages_keep_for_themselves_are_changed() -> None:
    rows = {each["language"]: each for each in translated(row("string", "candidate('a') == 'b'"))}
    assert "public static string f(string string_)" in rows["csharp"]["prompt"]
    assert "$1 is string_, a text" in rows["bash"]["prompt"]


def test_parts_that_look_like_places_stay_as_they_are() -> None:
    rows = {each["language"]: each for each in translated(row("x", "candidate('CALL') == 'EXPECTED NAME'"))}
    assert "HOLDS" not in rows["java"]["tests"]
    assert 'Objects.equals(Problem.f("CALL"), "EXPECTED NAME")' in rows["java"]["tests"]
