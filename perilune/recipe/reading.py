"""Reading recipes: from a TOML file, from the wire, from the database of an earlier version."""

from __future__ import annotations

import copy
import functools
import logging
import tomllib
import typing
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import from_json

from perilune.errors import RecipeError
from perilune.recipe.history import upgraded
from perilune.recipe.mistakes import Mistake, _explained, _key, _leave_out, _location, recipe_error
from perilune.recipe.overrides import apply_override
from perilune.recipe.recipe import Recipe


def load_recipe(path: str | Path, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Reads and checks a TOML recipe.

    Args:
        path: the file.
        overrides: changes that apply after the file, in order; `perilune.recipe.overrides` has their rules.

    Raises:
        RecipeError: no such file, no TOML, or wrong keys and values, each named.
    """
    return check_recipe(read_document(path, overrides), name=str(path))


def read_document(path: str | Path, overrides: typing.Sequence[str] = ()) -> dict[str, typing.Any]:
    """The tables of a TOML file with the overrides applied. RecipeError: no such file, no TOML, a wrong override."""
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{path} is no valid TOML: {error}") from error
    for override in overrides:
        apply_override(document, override, Recipe)
    return document


def check_recipe(document: dict[str, typing.Any], name: str = "recipe") -> Recipe:
    """Checks a recipe given as a mapping. RecipeError names every wrong key at once."""
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise recipe_error(name, _explained(error)) from error


def recipe_from_json(text: str) -> Recipe:
    """The inverse of `Recipe.model_dump_json`, of this version or an earlier one, with the same errors as a file."""
    try:
        document = upgraded(from_json(text))
    except ValueError as error:
        raise recipe_error("the recipe", [Mistake("recipe", f"is no JSON: {error}")]) from error
    return check_recipe(document, "the recipe")


def mended(document: dict[str, typing.Any]) -> tuple[Recipe | None, list[Mistake]]:
    """The recipe of a document, and its mistakes. What is wrong is left out of it, so that the rest can be looked at;
    None if nothing is left to look at.
    """
    try:
        return Recipe.model_validate(document), []
    except ValidationError as error:
        mistakes, rest = _explained(error), copy.deepcopy(document)
        for detail in error.errors():
            _leave_out(rest, _location(detail))
    try:
        return Recipe.model_validate(rest), mistakes
    except ValidationError:
        return None, mistakes


def read_stored_recipe(text: str) -> Recipe:
    """A recipe that was checked when it was submitted, perhaps by another version: for the database and the wire.

    Keys of an earlier version are read as they were meant (`perilune.recipe.history`); keys that this version does not
    know are ignored and logged, once each.

    Raises:
        RecipeError: no JSON, or a known key whose value this version cannot read.
    """
    try:
        document = upgraded(from_json(text))
    except ValueError as error:
        raise RecipeError(f"this version cannot read the stored recipe: it is no JSON: {error}") from error
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        unknown = tuple(_key(detail) for detail in error.errors() if detail["type"] == "extra_forbidden")
    try:
        recipe = Recipe.model_validate(document, extra="ignore")
    except ValidationError as error:
        lines = [f"  {mistake}" for mistake in _explained(error)]
        raise RecipeError("\n".join(["this version cannot read the stored recipe:", *lines])) from error
    _log_ignored(recipe.name, unknown)
    return recipe


@functools.lru_cache(maxsize=256)  # lists of runs are asked for every second
def _log_ignored(name: str, keys: tuple[str, ...]) -> None:
    logger.warning("recipe %s: ignoring keys that this version does not know: %s", name, ", ".join(keys))


logger = logging.getLogger(__name__)
