"""What of a recipe's rewards this service cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from perilune.preflight import nearest
from perilune.recipe import GraderTable, Mistake, Recipe, option_text
from services.reward.graders import GRADERS
from services.reward.graders.grader import Grader
from services.reward.graders.judge import JudgeSettings


def mistakes(recipe: Recipe) -> list[Mistake]:
    """Every wrong grader and option, by its key."""
    return [
        Mistake(f"reward.graders.{index}.{mistake.key}", mistake.text)
        for index, table in enumerate(recipe.reward.graders)
        for mistake in _of_grader(table)
    ]


def _of_grader(table: GraderTable) -> Iterator[Mistake]:
    grader = GRADERS.get(table.name)
    if grader is None:
        yield Mistake("name", f"there is no grader {table.name!r}; {nearest(table.name, GRADERS)}")
        return
    given = {key: option_text(value) for key, value in table.options.items()}
    known = set(grader.options.model_fields)
    takes_any = grader.options.model_config.get("extra") == "allow"
    unknown = [] if takes_any else sorted(given.keys() - known)
    for key in unknown:
        yield Mistake(f"options.{key}", f"{table.name} has no such option; {nearest(key, known)}")
    yield from _wrong_values(grader, {key: text for key, text in given.items() if key not in unknown})
    if _asks_judge(table) and not JudgeSettings().url:
        yield Mistake("name", "asks a judge, and the reward service has none: set PERILUNE_JUDGE_URL")


def _wrong_values(grader: Grader[Any], given: dict[str, str]) -> Iterator[Mistake]:
    try:
        grader.options.model_validate(given)
    except ValidationError as error:
        for detail in error.errors():
            key = ".".join(["options", *map(str, detail["loc"][:1])])
            message = detail["msg"].removeprefix("Value error, ")
            yield Mistake(key, f"{message[:1].lower()}{message[1:]} (got {detail['input']!r:.80})")


def _asks_judge(table: GraderTable) -> bool:
    return table.name == "judge" or (table.name == "math" and table.options.get("judge", 0) not in (0, "0"))
