"""What a recipe with a teacher must hold, and what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perilune.errors import RecipeError
from perilune.recipe import check_recipe
from perilune.recipe.files import settled
from perilune.recipe.needs import needs
from services.trainer.preflight import mistakes
from tests.unit.rollout.tiny import tiny_llama, tiny_tokenizer
from tests.unit.test_recipe import minimal

DISTILL: dict[str, Any] = {"num_iterations": 1, "objective": {"type": "distill"}}
CREATED = {"create": {"task": "search", "max_positions": 128}}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"trainer": DISTILL}, "trainer.objective.type = 'distill' needs a [teacher]: give teacher.model"),
        ({"teacher": {"model": "m"}}, "[teacher] has no use with trainer.objective.type = 'k15': leave it out"),
        (
            {"trainer": DISTILL, "teacher": {"model": "m", "top_k": 0}},
            "trainer.objective.control_variate needs teacher.top_k above 0",
        ),
        ({"trainer": DISTILL, "teacher": {"model": "m"}, "rollout": {"temperature": 0.7}}, "leave it at 1"),
        ({"trainer": DISTILL, "teacher": {"model": ""}}, "teacher.model"),
    ],
)
def test_what_does_not_fit_is_said(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_recipe(minimal(**changes))
    assert problem in str(caught.value)


def test_a_teacher_is_served_here_unless_it_is_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "larger").mkdir()
    recipe = settled(check_recipe(minimal(trainer=DISTILL, teacher={"model": "larger"})), tmp_path)
    assert needs(recipe).teacher == str(tmp_path / "larger")
    elsewhere = check_recipe(minimal(trainer=DISTILL, teacher={"model": "larger", "address": "10.0.0.1:7060"}))
    assert needs(elsewhere).teacher is None
    assert needs(check_recipe(minimal())).teacher is None


def test_a_teacher_of_another_tokenizer_or_none_is_named_at_submission(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    for model, problem in ((str(tmp_path), "has another tokenizer than the policy"), ("nowhere", "'nowhere'")):
        recipe = check_recipe(minimal(model=CREATED, trainer=DISTILL, teacher={"model": model}))
        (mistake,) = [each for each in mistakes(recipe) if each.key == "teacher.model"]
        assert problem in mistake.text
    same = check_recipe(minimal(model={"path": str(tmp_path)}, trainer=DISTILL, teacher={"model": str(tmp_path)}))
    assert [each for each in mistakes(same) if each.key.startswith("teacher")] == []
