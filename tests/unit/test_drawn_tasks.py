"""Tasks that draw: one seed is the same bytes, answers are what is shown, held-out problems stay apart."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from perilune.images import read_image
from perilune.images.drawing import COLOURS
from perilune.tasks import TASKS, content_of, images_of, labels_of
from perilune.tasks.counting import Problem as Counting
from perilune.tasks.drawn import Scene, Thing
from perilune.tasks.patterns import Problem as Pattern
from perilune.tasks.relations import Problem as Relation

DRAWN = sorted(name for name, task in TASKS.items() if hasattr(task, "draw"))


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
    scene = Scene(4, 8, ((1, RED), (6, BLUE), (15, Thing("red", "cross"))))
    assert scene.words == "b1 red circle c2 blue square d4 red cross"
    assert [Counting(scene, colour).answer for colour in ("red", "blue", "green")] == ["2", "1", "0"]
    assert Relation(scene, BLUE, RED).answer == "below right"
    assert Relation(scene, RED, Thing("red", "cross")).answer == "above left"
    assert Pattern(Scene(4, 8, ()), (RED, BLUE)).answer == "blue square"  # the sixteenth cell
    assert Pattern(Scene(4, 8, ()), (RED, BLUE, RED)).answer == "red circle"


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
    ],
)
def test_options_that_do_not_fit_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        problems(name, 1, **options)
