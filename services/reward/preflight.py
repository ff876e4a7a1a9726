"""Says what of a recipe's rewards this service cannot do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perilune.data.jsonlines import read_bytes
from perilune.errors import InvalidInputError, NotFoundError
from perilune.local.cluster import plugins_of_user
from perilune.recipe import GraderTable, Mistake, Recipe, option_text
from perilune.recipe.needs import function_of, is_address
from perilune.recipe.preflight import nearest
from services.reward.graders import GRADERS
from services.reward.graders.grader import Grader
from services.reward.graders.judge import JudgeSettings


def mistakes(recipe: Recipe) -> list[Mistake]:
    """Every wrong grader and option, by its key."""
    return [
        mistake._replace(key=f"reward.graders.{index}.{mistake.key}")
        for index, table in enumerate(recipe.reward.graders)
        for mistake in _of_grader(table)
    ]


def _of_grader(table: GraderTable) -> Iterator[Mistake]:
    if table.plugin is not None or table.name in plugins_of_user():
        yield from _of_plugin(table)
        return
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
        yield Mistake("name", "asks a judge, and the reward service has none: set PERILUNE_JUDGE_URL", True)


def _of_plugin(table: GraderTable) -> Iterator[Mistake]:
    """Returns what is wrong with a grader of one's own. One that answers at an address is not asked: it may come
    later."""
    if table.name in GRADERS:
        yield Mistake("name", f"there is a grader {table.name!r} already; give the plug-in another name")
    place = table.plugin
    if place is None or is_address(place):
        return
    named = function_of(place)
    if named is None:
        yield Mistake("plugin", f"{place!r} is neither HOST:PORT nor FILE.py:FUNCTION")
        return
    try:
        tree = ast.parse(read_bytes(Path(named[0])))
    except (NotFoundError, InvalidInputError, ValueError, SyntaxError) as error:
        yield Mistake("plugin", f"cannot read {named[0]}: {error}", of_machine=True)
        return
    functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    if named[1] not in functions:
        yield Mistake("plugin", f"{named[0]} has no function {named[1]!r}; {nearest(named[1], functions)}")
        return
    taken = functions[named[1]].args
    known = {each.arg for each in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)}
    for key in table.options if taken.kwarg is None else ():
        if key not in known:
            yield Mistake(f"options.{key}", f"{place} has no such parameter; {nearest(key, known)}")


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
