"""Tasks that draw: one seed is the same bytes, answers are what is shown, held-out problems stay apart."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from perilune.images import read_image
from perilune.images.drawing import COLOURS
from perilune.tasks import TASKS, content_of, digits, images_of, labels_of, mazes, puzzles
from perilune.tasks.charts import Problem as Chart
from perilune.tasks.clocks import Problem as Clock
from perilune.tasks.counting import Problem as Counting
from perilune.tasks.drawn import Scene, Thing
from perilune.tasks.mazes import Problem as Maze
from perilune.tasks.patterns import Problem as Pattern
from perilune.tasks.relations import Problem as Relation

DRAWN = sorted(name for name, task in TASKS.items() if hasattr(task, "draw"))
if find_spec("sklearn") is None:
    DRAWN.remove("digits")


def problems(name: str, count: int, **options: Any) -> list[Any]:
    return [TASKS[name].problem(1, index, **options) for index in range(count)]


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_seed_is_the_same_bytes(name: str) -> None:
    task = TASKS[name]
    first, again = ([images_of(task, each) for each in problems(name, 20)] for _ in range(2))
    assert first == again
    assert len({image for (image,) in first}) > 10
    assert read_image(first[0][0]).mode == "RGB"


@pytest.mark.parametrize("name", DRAWN)
def test_every_word_is_in_the_vocabulary(name: str) -> None:
    task = TASKS[name]
    for index, problem in enumerate(problems(name, 100)):
        for looks in (0.0, 1.0):
            text = task.trace(problem, Random(index), looks=looks)  # type: ignore[call-arg]
            assert {*task.question(problem).split(), *text.split(), *problem.answer.split()} <= set(task.VOCABULARY)
            assert looks == 0.0 or text.endswith(f"answer: {problem.answer}")


@pytest.mark.parametrize("name", DRAWN)
def test_held_out_problems_are_others_for_any_two_seeds(name: str) -> None:
    task = TASKS[name]
    shown = [
        {(task.question(p), *images_of(task, p)) for p in (task.problem(seed, i, held_out=held_out) for i in range(60))}
        for seed, held_out in ((1, False), (2, True))
    ]
    assert not shown[0] & shown[1]
    assert shown[1] != {(task.question(p), *images_of(task, p)) for p in problems(name, 60)}


@pytest.mark.parametrize("name", DRAWN)
def test_a_problem_has_a_difficulty_and_is_asked_in_parts(name: str) -> None:
    (problem,) = problems(name, 1)
    assert float(labels_of(problem)["difficulty"]) > 0
    image, text = content_of(TASKS[name], problem)
    assert image == {"type": "image", "bytes": images_of(TASKS[name], problem)[0]}  # type: ignore[comparison-overlap]
    assert text == {"type": "text", "text": TASKS[name].question(problem)}  # type: ignore[comparison-overlap]


def test_a_task_of_text_is_asked_as_it_was() -> None:
    (problem,) = problems("sums", 1)
    assert content_of(TASKS["sums"], problem) == TASKS["sums"].question(problem)
    assert images_of(TASKS["sums"], problem) == []
    assert labels_of(problem) == {}


RED, BLUE = Thing("red", "circle"), Thing("blue", "square")


def test_answers_by_hand() -> None:
    assert Scene(2, 8, ((1, RED), (2, BLUE))).words == "a1 none b1 red circle a2 blue square b2 none"
    scene = Scene(4, 8, ((1, RED), (6, BLUE), (15, Thing("red", "cross"))))
    assert scene.said(range(3)) == "a1 none b1 red circle c1 none"
    assert [Counting(scene, colour).answer for colour in ("red", "blue", "green")] == ["2", "1", "0"]
    assert Relation(scene, BLUE, RED).answer == "below right"
    assert Relation(scene, RED, Thing("red", "cross")).answer == "above left"
    assert Pattern(Scene(4, 8, ()), (RED, BLUE)).answer == "blue square"  # the sixteenth cell
    assert Pattern(Scene(4, 8, ()), (RED, BLUE, RED)).answer == "red circle"


def test_more_answers_by_hand() -> None:
    chart = Chart((("red", 3), ("blue", 5)), "value", ("blue",), 4)
    assert chart.answer == "5"
    assert replace(chart, kind="highest", colours=()).answer == "blue"
    assert replace(chart, kind="difference", colours=("blue", "red")).answer == "2"
    assert [Clock(minutes, 32).answer for minutes in (0, 65, 719)] == ["12:00", "1:05", "11:59"]
    maze = Maze(2, 8, frozenset({(0, 1), (1, 3), (2, 3)}), (0, 1, 3, 2))
    assert maze.answer == "3"
    image = mazes.draw(maze)
    assert image.getpixel((4, 8)) == (20, 20, 20)  # the wall below the first cell
    assert image.getpixel((12, 8)) == (255, 255, 255)  # the passage below the second
    assert [image.getpixel((4, 4)), image.getpixel((4, 12))] == [COLOURS["green"], COLOURS["red"]]


def test_ways_of_mazes_go_through_passages_and_are_the_only_ones() -> None:
    for problem in problems("mazes", 50):
        steps = list(pairwise(problem.way))
        assert all((min(step), max(step)) in problem.passages for step in steps)
        assert len(set(problem.way)) == len(problem.way)
        assert len(problem.passages) == 15  # a tree of 16 cells


@pytest.mark.parametrize("puzzle", ["mini_sudoku", "maze", "largest_island"])
def test_puzzles_of_reasoning_gym_are_drawn_by_what_they_hold(puzzle: str) -> None:
    for problem in problems("puzzles", 5, puzzle=puzzle):
        image = puzzles.draw(problem)
        assert image.size == (16 * len(problem.grid[0]) + 1, 16 * len(problem.grid) + 1)
        for row, signs in enumerate(problem.grid):
            for column, sign in enumerate(signs):
                cell = image.crop((16 * column + 1, 16 * row + 1, 16 * column + 16, 16 * row + 16))
                assert (set(cell.get_flattened_data()) == {(255, 255, 255)}) == (sign == puzzles.EMPTY)
        assert problem.answer.isdigit()


def test_handwritten_digits_are_shown_as_they_are() -> None:
    pytest.importorskip("sklearn")
    problem = digits.problem(1, 0, num_digits=2, scale=4)
    assert digits.draw(problem).size == (64, 32)
    assert len(problem.answer) == 2
    assert all(each % 5 for each in problem.chosen)
    assert all(each % 5 == 0 for each in digits.problem(1, 0, num_digits=3, held_out=True).chosen)


def test_what_the_words_say_is_what_the_picture_shows() -> None:
    for problem in problems("counting", 20):
        image = problem.scene.draw()
        for place in range(16):
            row, column = divmod(place, 4)
            seen = set(image.crop((8 * column, 8 * row, 8 * column + 8, 8 * row + 8)).get_flattened_data())
            colours = {name for name, value in COLOURS.items() if value in seen}
            assert colours == {thing.colour for where, thing in problem.scene.things if where == place}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("counting", {"side": 9}, "side must be 2 to 8"),
        ("counting", {"cell": 5}, "cell must be 6 to 256"),
        ("counting", {"min_things": 3, "max_things": 2}, "the first no larger"),
        ("positions", {"side": 2, "min_things": 5, "max_things": 5}, "no room in 2 x 2"),
        ("relations", {"min_things": 1}, "must be 2 to"),
        ("patterns", {"max_period": 16}, "must be 2 to 15"),
        ("seeing", {"kinds": "counting smelling"}, "no kind 'smelling'"),
        ("seeing", {"kinds": " "}, "names none"),
        ("charts", {"kinds": "sum"}, "no kind 'sum'"),
        ("charts", {"unit": 2}, "unit must be 3 to"),
        ("clocks", {"step": 0}, "step must be 1 to 30"),
        ("mazes", {"max_steps": 0}, "at least 1"),
        ("puzzles", {"puzzle": "chess"}, "no puzzle 'chess'"),
        ("digits", {"num_digits": 4}, "num_digits must be 1 to 3"),
    ],
)
def test_options_that_do_not_fit_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        problems(name, 1, **options)
