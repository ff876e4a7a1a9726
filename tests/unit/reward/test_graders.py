"""Every grader against hand-labelled cases, and what is true for all answers."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perilune.api.reward.v1.reward_pb2 import Outcome
from perilune.errors import InvalidInputError
from services.reward.answer_extraction import boxed, committed, without_thinking
from services.reward.equality.notation import normalise
from services.reward.equality.numbers import read_number
from services.reward.equality.structure import equal
from services.reward.graders import GRADERS, find_grader
from services.reward.graders.grader import GradingSample
from tests.unit.reward.conftest import read_cases


def value_of(grader_name: str, case: dict[str, Any]) -> float | None:
    """What a grader says, with the part that services leave to processes done here."""
    grader = find_grader(grader_name)
    sample = GradingSample(case.get("question", ""), case["reference"], case["response"])
    options = grader.read_options(case.get("options", {}))
    verdict = grader.grade(sample, options)
    if verdict is None:
        assert grader.work
        verdict = grader.work(sample, options)
    return verdict.value


@pytest.mark.parametrize("name", ["exact", "numeric", "format"])
def test_labelled_cases(name: str) -> None:
    cases = read_cases(name)
    wrong = [case for case in cases if value_of(name, case) != float(case["correct"])]
    assert not wrong, f"{len(wrong)} of {len(cases)}"


@pytest.mark.parametrize("name", ["choice", "regex", "json", "instructions", "length", "repetition", "format"])
def test_labelled_grader_cases(name: str) -> None:
    cases = [case for case in read_cases("reward/graders") if case["grader"] == name]
    wrong = [(case, value_of(name, case)) for case in cases if value_of(name, case) != case["value"]]
    assert cases
    assert not wrong, f"{len(wrong)} of {len(cases)}"


def test_math_follows_the_label_policy_on_pairs() -> None:
    pairs = read_cases("math_pairs")
    cases = [case | {"response": rf"So \boxed{{{case['answer']}}}."} for case in pairs]
    wrong = [case for case in cases if value_of("math", case) != float(case["correct"])]
    assert not wrong, f"{len(wrong)} of {len(cases)}"


def test_math_finds_the_committed_answer() -> None:
    cases = read_cases("math_responses")
    wrong = [case for case in cases if value_of("math", case) != float(case["correct"])]
    assert not wrong, f"{len(wrong)} of {len(cases)}"


def test_cheap_comparison_never_contradicts_algebra() -> None:
    """Whatever is decided without sympy is decided rightly; only the rest may be left open."""
    decided = [(case, equal(case["reference"], case["answer"])) for case in read_cases("math_pairs")]
    assert not [case for case, verdict in decided if verdict is not None and verdict != case["correct"]]
    assert sum(verdict is not None for _, verdict in decided) > len(decided) / 2


@given(st.fractions(max_denominator=10**6))
def test_a_fraction_is_read_exactly_in_every_notation(value: Fraction) -> None:
    sign, size = ("-" if value < 0 else ""), abs(value)
    for text in (f"{value}", rf"{sign}\frac{{{size.numerator}}}{{{size.denominator}}}"):
        number = read_number(text)
        assert number is not None
        assert number.value == value


@given(st.integers(-(10**15), 10**15), st.integers(1, 10**6))
def test_integers_that_differ_are_never_equal(number: int, difference: int) -> None:
    assert equal(str(number), f"{number:,}") is True
    assert equal(str(number), str(number + difference)) is False


@pytest.mark.slow
@given(st.text(max_size=200))
def test_any_text_is_an_answer_that_can_be_judged(text: str) -> None:
    """Responses are whatever a model writes: nothing in the service's own process may raise on them."""
    for name in ("exact", "numeric", "math", "format"):
        grader = GRADERS[name]
        verdict = grader.grade(GradingSample("", "42", text), grader.read_options({}))
        assert verdict is None or verdict.value in (0.0, 1.0)


@given(st.text(alphabet="0123456789abxyz+-*/^_={}()[],.\\ $<>", max_size=60))
def test_every_answer_is_equal_to_itself_and_normal_forms_are_stable(text: str) -> None:
    if normalise(text):
        assert equal(text, text) is True


@given(st.lists(st.integers(0, 99), min_size=2, max_size=5), st.randoms())
def test_unordered_means_any_order_of_the_same_items(numbers: list[int], random: Any) -> None:
    shuffled = random.sample(numbers, len(numbers))
    case = {
        "reference": " ".join(map(str, numbers)),
        "response": f"answer: {' '.join(map(str, shuffled))}",
        "options": {"marker": "answer:", "unordered": "true"},
    }
    assert value_of("exact", case) == 1.0
    assert value_of("exact", case | {"response": case["response"] + " 100"}) == 0.0


def test_thinking_is_cut_away() -> None:
    assert without_thinking("<think>a</think>b") == "b"
    assert without_thinking("a</think>b") == "b"
    assert without_thinking("a<think>b") == "a"
    assert without_thinking("<think>a<think>b</think>c</think>d") == "d"
    assert without_thinking("no tags") == "no tags"


def test_the_committed_answer() -> None:
    assert boxed(r"\boxed{\frac{1}{2}} and then") == r"\frac{1}{2}"
    assert boxed(r"\boxed{1} or \boxed{2}") == "1, 2"
    assert boxed(r"\boxed{1} is wrong, \boxed{2}") == "2"
    assert boxed(r"\boxed{1") is None
    assert committed("the answer is 3. Wait.\nThe answer is 4.") == "4"
    assert committed("answer: 9 12", marker="answer:") == "9 12"
    assert committed("") is None


@pytest.mark.parametrize(
    ("grader", "options", "message"),
    [
        ("exact", {"maker": "answer:"}, "no option 'maker'; did you mean 'marker'"),
        ("exact", {"unordered": "perhaps"}, "'unordered'.*perhaps"),
        ("numeric", {"tolerance": "-1"}, "'tolerance'.*greater than or equal to 0"),
        ("numeric", {"tolerance": "nan"}, "'tolerance'"),
        ("format", {"pattern": "("}, "'pattern'.*no regular expression"),
        ("format", {"tags": "<think>"}, "'tags'.*without brackets"),
    ],
)
def test_a_bad_option_is_explained(grader: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        find_grader(grader).read_options(options)


def test_an_unknown_grader_is_explained() -> None:
    with pytest.raises(InvalidInputError, match="did you mean 'numeric'"):
        find_grader("numerics")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ('{"type": "strin"}', "no json schema: .*'strin'"),
        ('{"$schema": "http://json-schema.org/draft-07/schema#", "items": 5}', "no json schema: .*items"),
        ('{"$schema": "https://example.org/draft", "type": "object"}', "example.org/draft' is not known"),
        ('{"$ref": "http://127.0.0.1:9/remote.json"}', "remote.json' is not in the schema, and nothing is fetched"),
        ('{"$ref": "#/$defs/missing"}', "missing' is not in the schema"),
        ('{"pattern": "("}', "not a 'regex'"),
    ],
)
def test_a_bad_json_schema_is_explained_before_anything_is_graded(schema: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"option 'json_schema'.*{message}"):
        find_grader("json").read_options({"json_schema": schema})


def test_a_json_schema_without_end_is_no_verdict() -> None:
    with pytest.raises(InvalidInputError, match="refers to itself without end"):
        value_of("json", {"reference": "", "response": "{}", "options": {"json_schema": '{"$ref": "#"}'}})


@pytest.mark.parametrize("text", ["A is " * 800, "all " * 1000, "```json {" * 5000, "[```" * 8000, "(A) " * 1000])
def test_hostile_text_is_read_in_linear_time(text: str) -> None:
    start = time.process_time()
    for name, reference in (("choice", "B"), ("json", "[1]"), ("math", "5")):
        grader = find_grader(name)
        grader.grade(GradingSample("", reference, text), grader.read_options({}))
    assert time.process_time() - start < 3


def test_a_language_that_cannot_be_told_is_named() -> None:
    case = {
        "reference": '[{"id": "language:response_language", "language": "xx"}]',
        "response": "Any words in English.",
    }
    with pytest.raises(InvalidInputError, match="language 'xx' is not known"):
        value_of("instructions", case)


@pytest.mark.parametrize(
    ("outcome", "take", "value"),
    [
        (Outcome(value=0.5), "value", 0.5),
        (Outcome(value=-2, correct=True), "value", -2),
        (Outcome(value=0.5, correct=True), "correct", 1),
        (Outcome(value=1), "correct", 1),
        (Outcome(value=0.9), "correct", 0),
        (Outcome(value=1, correct=False), "correct", 0),
    ],
)
def test_an_outcome_is_a_value(outcome: Outcome, take: str, value: float) -> None:
    grader = find_grader("outcome")
    verdict = grader.grade(GradingSample("", "", "", outcome=outcome), grader.read_options({"take": take}))
    assert verdict
    assert verdict.value == value


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (None, "no environment gave this response an outcome"),
        (Outcome(error="the board is gone"), "the environment failed: the board is gone"),
        (Outcome(value=1, error="the board is gone"), "the environment failed"),
        (Outcome(), "without a finite value"),
        (Outcome(value=float("nan")), "without a finite value"),
    ],
)
def test_without_an_outcome_there_is_no_value(outcome: Outcome | None, said: str) -> None:
    grader = find_grader("outcome")
    with pytest.raises(InvalidInputError, match=said):
        grader.grade(GradingSample("", "", "", outcome=outcome), grader.read_options({}))
