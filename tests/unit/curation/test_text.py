"""How questions are compared: what is one question, what is another."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest

from perilune.curation.arithmetic import contradicted
from perilune.curation.duplicates import SIMILARITY, exact_duplicates, near_duplicates, sign, similarity
from perilune.curation.overlap import EvaluationSets
from perilune.curation.question_types import OPEN, TYPES, opened, type_of
from perilune.curation.text import cleaned, numbers, same_text_key, without_label

TRAIN = "A train goes 240 miles in 4 hours. How fast is it?"
LABELS = (
    "**2.4**", "2.4", "__7.__", "<b>3</b>", "№ 10.", "42/", "7.)", "Aufgabe 19:", "Problem 14 (5 points).", "Question 3 of 60:",
    "Task C:", "ix.", "### 12.", "### 12. 1.", "Задача 5.", "**Exercise 1.2** -", "12 -", "(b)",
)  # fmt: skip
CLIPS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
TYPESET = r"What is $2+2$? $\textbf{(A)}\ 3 \qquad \textbf{(B)}\ 4 \qquad \textbf{(C)}\ 5$"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Problem 12: Find x", "Find x"),
        ("Q3) Find x", "Find x"),
        ("7. Find x", "Find x"),
        ("(iv) Find x", "Find x"),
        ("- Find x", "Find x"),
        ("3 apples cost 2 euros", "3 apples cost 2 euros"),
        ("3.5 litres are left", "3.5 litres are left"),
        ("12", "12"),
    ],
)
def test_a_lists_number_is_no_part_of_a_question(text: str, rest: str) -> None:
    assert without_label(text) == rest


def test_cleaning_keeps_what_is_said_and_is_done_once() -> None:
    text = "A\u00a0line \r\n\r\n\r\n\r\nwith\x00 a\u200b  tab\tand e\u0301"
    assert cleaned(text) == "A line\n\nwith a tab and \u00e9"
    assert cleaned(cleaned(text)) == cleaned(text)


@pytest.mark.parametrize("other", ["1) what is 2 + 3", "What  is 2+3 ?", "WHAT IS 2+3?", "Problem 4. What is 2+3?"])
def test_one_text_has_one_key(other: str) -> None:
    assert same_text_key(other) == same_text_key("What is 2+3?")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the smallest prime above 10?", "Find the least prime above 10."),
        ("Calculate 12 + 5.", "What is 12 + 5?"),
        ("Tom has 3 apples and buys 4 more. How many apples does he have in total?",
         "Tom has 3 apples and buys 4 more. How many apples has Tom altogether?"),
    ],
)  # fmt: skip
def test_other_words_for_one_question(one: str, other: str) -> None:
    assert similarity(one, other) >= SIMILARITY


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Tom has 3 apples and buys 4 more. How many?", "Tom has 3 apples and buys 5 more. How many?"),
        ("What is 12 - 5?", "What is 12 + 5?"),
        ("What is 12 - 5?", "What is 5 - 12?"),
        ("Find the area of a circle of radius 5", "Find the perimeter of a circle of radius 5"),
        ("Find the least number above 7 that 3 divides", "Find the greatest number above 7 that 3 divides"),
        ("How many even digits has 2024?", "How many odd digits has 2024?"),
        ("Solve x + y = 3 for x", "Solve x + y = 3 for y"),
    ],
)
def test_alike_texts_that_ask_for_other_things(one: str, other: str) -> None:
    assert similarity(one, other) < SIMILARITY


def test_of_duplicates_the_first_stays() -> None:
    questions = ["What is 2+3?", "Name a prime number above 10", "1. what is 2 +3", "Compute 2+3", "What is 2+4?"]
    signed = sign(questions)
    assert [(each.row, each.of) for each in exact_duplicates(signed)] == [(2, 0)]
    rows = np.arange(len(questions))
    near = near_duplicates(signed, rows, questions.__getitem__)
    assert [(each.row, each.of) for each in near] == [(2, 0), (3, 0)]


def test_numbers_of_a_list_are_none_of_the_question() -> None:
    assert numbers("3. Tom has 1,200 coins and 3.5 litres") == ["1200", "3.5"]


@pytest.mark.parametrize(
    ("question", "set_and_place"),
    [
        (CLIPS, ("gsm", 0)),
        ("Here is one: " + CLIPS.replace("altogether", "in all"), ("gsm", 0)),
        ("Compute 17 * 3.", ("gsm", 1)),
        ("Ben sold pins to 51 of his friends in June. How many pins did Ben sell?", None),
        ("What is 17*4?", None),
    ],
)
def test_questions_of_evaluation_sets(question: str, set_and_place: tuple[str, int] | None) -> None:
    sets = EvaluationSets()
    assert sets.add("gsm", [CLIPS, "What is 17*3?"]) == 2
    found = sets.overlaps([question]).get(0)
    assert (found and (found.evaluation, found.question)) == set_and_place


def test_the_words_of_a_template_are_no_evidence() -> None:
    template = "How many ways are there to put {} different balls into boxes so that no box at all is empty?"
    sets = EvaluationSets()
    sets.add("balls", [template.format(number) for number in range(3, 30)])
    assert list(sets.overlaps([template.format(70), template.format(7)])) == [1]


def test_an_instruction_that_a_few_evaluation_questions_share_is_no_evidence() -> None:
    ask = "On which day of May is {} held? Answer with -1 if the ordinal does not exist in the month of this question."
    sets = EvaluationSets()
    sets.add("days", [ask.format(each) for each in ("the fair", "a dance", "the harvest", "our meeting", "one race")])
    assert not sets.overlaps([ask.format("the yearly cattle market of the upper valley")])


@pytest.mark.parametrize(
    ("question", "answer", "value"),
    [
        ("What is 12 × (3 + 4)?", "85", "84"),
        ("Q3) Calculate $\\frac{3}{4} + \\frac14$.", "2", "1"),
        ("Evaluate 2^10", "1,025", "1024"),
        ("What is 7 squared?", "48", "49"),
        ("Simplify 6/8", "3/5", "3/4"),
        ("Find the value of 1,000 - 1.", "999", ""),
        ("1/3 =", "0.33", ""),
        ("What is 7/2?", "3", ""),  # a quotient without its remainder
        ("What is 3 + 4?", "seven", ""),
        ("Solve 3x + 1 = 2", "4", ""),
        ("10-5-2024", "4", ""),
        ("What is 9**9**9**9?", "1", ""),
        ("What is 1/0?", "1", ""),
        (f"What is {'(' * 150}1 + 1{')' * 150}?", "3", ""),
        (f"1{' ' * 20_000}x", "3", ""),  # which a pattern would take for ever to reject
        (f"1{'.' * 20_000}x", "3", ""),
    ],
)
def test_bare_arithmetic_is_its_own_reference(question: str, answer: str, value: str) -> None:
    assert contradicted(question, answer) == value


def test_the_words_of_a_raw_sets_own_template_are_no_evidence() -> None:
    sets = EvaluationSets()
    template = "Now here is your task for this day: please count all the legs of {} dogs, {} hens, 6 cows and 8 ducks"
    sets.add("legs", [template.format(3, 4)])
    asked = [template.format(number, 4) for number in range(5, 25)]
    assert list(sets.overlaps(asked[:1])) == [0]
    assert list(sets.overlaps([*asked, template.format(3, 4)])) == [len(asked)]


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("What is 3 * 4? (A) 7 (B) 12 (C) 34", "B", "multiple choice"),
        ("Which of the following is prime?\nA. 4\nB. 5\nC. 6\nD. 8", "B", "multiple choice"),
        (TYPESET, "B", "multiple choice"),
        ("Is it true or false that 2 is odd?", "false", "true or false"),
        ("Is 91 a prime number?", "No", "yes or no"),
        ("Does the sum of 3 and 4 exceed 5?", "", "yes or no"),
        ("Prove that the square root of 2 is irrational.", "", "proof"),
        ("Let n be odd. Show that n^2 is odd.", "", "proof"),
        ("Let f(x) = x + 1. (a) Find f(2). (b) Find f(3).", "3, 4", "several parts"),
        ("What is the sum of 1 and 2? What is their product?", "3, 2", "several parts"),
        ("Points A, B and C lie on a line. Find AB.", "3", "open"),
        ("A. Smith has 3 books and B. Jones has 4. How many have they?", "7", "open"),
        ("Is x larger or smaller than y?", "larger", "either or"),
        ("A magician shows that he has 3 cards. How many are red?", "3", "open"),
        ("If a = 2 and b = 3, find a + b", "5", "open"),
    ],
)
def test_question_types(question: str, answer: str, kind: str) -> None:
    assert type_of(question, answer) == kind


@pytest.mark.parametrize(
    ("question", "answer", "pair"),
    [
        ("What is 3 * 4? (A) 7 (B) 12 (C) 34", "B", ("What is 3 * 4?", "12")),
        ("What is 3 * 4? (A) 7 (B) 12 (C) 34", "(C) 34", ("What is 3 * 4?", "34")),
        ("What is 3 * 4?\nOptions:\nA) 7\nB) 12\nC) 34", "12", ("What is 3 * 4?", "12")),
        (TYPESET, "B", ("What is $2+2$?", "4")),
        ("Which of these is prime? (A) 4 (B) 5 (C) 6", "B", None),
        ("What is 3 * 4? (A) 7 (B) none of these (C) 34", "B", None),
        ("What is 3 * 4? (A) 7 (B) 12 (C) 34", "D", None),
    ],
)  # fmt: skip
def test_choices_become_open_questions(question: str, answer: str, pair: tuple[str, str] | None) -> None:
    assert opened(question, answer) == pair


def test_the_rules_for_types_on_the_labelled_questions() -> None:
    lines = resources.files("perilune.curation").joinpath("labelled_types.jsonl").read_text().splitlines()
    said = [(row["type"], type_of(row["question"], row["answer"])) for row in map(json.loads, lines)]
    for kind in (*TYPES, OPEN):
        right = sum(label == rule == kind for label, rule in said)
        assert right >= 0.95 * sum(label == kind for label, _ in said), f"recall of {kind}"
        assert right >= 0.9 * sum(rule == kind for _, rule in said), f"precision of {kind}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is $3 \\times 4$?", "what is 3 × 4"),
        ("Solve $\\frac{x}{2} + 3 = 7$ for x.", "Solve x/2 + 3 = 7 for x."),
        ("What is x² + 1?", "What is x^{2} + 1?"),
        ("Tom has 1,200 coins", "Tom has 1200 coins"),
        ("Tom has two thousand five hundred coins", "Tom has 2500 coins"),
        ("Теll me the sum of 3 and 4", "Tell me the sum of 3 and 4"),
        ("What’s the area?", "What is the area?"),
        ("１２ + ３", "12 + 3"),
        *((f"{label} {TRAIN}", TRAIN) for label in LABELS),
    ],
)
def test_other_signs_for_one_question(one: str, other: str) -> None:
    assert same_text_key(one) == same_text_key(other)


def test_a_drawing_and_a_program_stay_as_they_are() -> None:
    board = "Solve the board:\n_ Q _  _\nQ _ _  _\n_ _ Q  _"
    assert cleaned(board) == board
    assert same_text_key(board) != same_text_key(board.replace("_ _ Q", "_ Q _"))
    program = "What does it print?\n\nfor i in range(3):\n    if i:\n        print(i)"
    assert cleaned(program) == program


def test_a_templates_words_may_change_and_what_fills_it_may_not() -> None:
    words = "hello world table chair lamp river stone cloud".split()
    questions = [f"Spell this word backward, as in sun and nus, for me: {word}" for word in words]
    questions.append("Write this word backward, as in sun and nus, for me: lamp")
    near = near_duplicates(sign(questions), np.arange(len(questions)), questions.__getitem__)
    assert [(each.row, each.of) for each in near] == [(8, 4)]


def test_an_evaluation_question_inside_a_longer_text() -> None:
    sets = EvaluationSets()
    sets.add("exam", ["A box holds 14 rows of 23 buttons. How many buttons are in the box?", "What is 17*3?"])
    asked = [
        "I sat an exam on Monday, and liked this: A crate contains 14 rows of 23 buttons. How many buttons are in the crate? It was easy.",
        "Good morning. What is 17 * 3? Thanks.",
        "I sat an exam on Monday, and liked this: A crate contains 15 rows of 23 buttons. How many buttons are in the crate? It was easy.",
    ]
    assert {place: found.question for place, found in sets.overlaps(asked).items()} == {0: 0, 1: 1}
