"""Says what is wrong with a recipe, in words: each mistake by its key."""

from __future__ import annotations

import difflib
import re
import typing

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from perilune.errors import RecipeError
from perilune.recipe.history import MOVED
from perilune.recipe.overrides import annotations_at, known_keys, models_in, name_of
from perilune.recipe.recipe import Recipe


class Mistake(typing.NamedTuple):
    """Describes what is wrong with a recipe, and at which key."""

    key: str
    text: str
    of_machine: bool = False  # another machine may have what is missing here

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"


def recipe_error(name: str, mistakes: typing.Sequence[Mistake]) -> RecipeError:
    """One error that names every mistake."""
    heading = f"{name} has {len(mistakes)} mistake{'s' * (len(mistakes) > 1)}:"
    return RecipeError("\n".join([heading, *(f"  {mistake}" for mistake in mistakes)]))


def _location(detail: ErrorDetails) -> list[int | str]:
    """Returns where in the file a mistake is."""
    location, _ = _resolved(detail["loc"])
    if "options" in location:
        del location[location.index("options") + 2 :]
    return location


def _resolved(location: typing.Iterable[int | str]) -> tuple[list[int | str], list[typing.Any]]:
    """The keys along the location of a mistake, and what the schema says of the last one.

    Behind the key of a union the location names the member that was chosen, which is no key of the file.
    """
    keys: list[int | str] = []
    found: list[typing.Any] = [Recipe]
    for part in location:
        tables = [table for annotation in found for table in models_in(annotation)]
        if len(tables) > 1:
            found = [table for table in tables if part in _tags(table)]
        else:
            keys.append(part)
            found = [inner for annotation in found for inner in annotations_at(annotation, [part])]
    return keys, found


def _tags(table: type[BaseModel]) -> list[typing.Any]:
    """The names by which a union's key (`source`, `type`) chooses a table."""
    fields = [table.model_fields[key] for key in ("source", "type") if key in table.model_fields]
    return [tag for field in fields for tag in typing.get_args(field.annotation)]


def _key(detail: ErrorDetails) -> str:
    """The key at fault. A complaint about several tables together begins with it."""
    named = re.match(r"Value error, (\w+(?:\.\w+)+)\b", detail["msg"])
    return name_of(_location(detail)) or (named[1] if named else "recipe")


def _explained(error: ValidationError) -> list[Mistake]:
    """The mistakes, one a key: a value that fits no member of a union is complained of by each."""
    found: dict[str, Mistake] = {}
    for detail in error.errors():
        found.setdefault(_key(detail), Mistake(_key(detail), _explain(detail)))
    return list(found.values())


def _explain(detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        if moved := MOVED.get(name_of(_location(detail))):
            return f"has moved; {moved}"
        known = _known_keys(detail["loc"][:-1])
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here are {', '.join(sorted(known))}"
        return f"no such key; {hint}"
    if detail["type"] == "missing":
        return "is required and missing"
    if detail["type"] == "union_tag_not_found":
        table = name_of(_location(detail))
        if former := [key for key in detail["input"] if f"{table}.{key}" in MOVED]:
            return f"the key {former[0]} has moved; {MOVED[f'{table}.{former[0]}']}"
        return f"the key {detail['ctx']['discriminator']} is required and missing"
    if detail["type"] == "union_tag_invalid":
        kind = detail["ctx"]
        return f"the key {kind['discriminator']} says {kind['tag']!r}; known are {kind['expected_tags']}"
    message = detail["msg"].removeprefix("Value error, ")
    if "options" in detail["loc"][:-1]:
        message = "an option is text, a number, or true or false"
    given = "" if isinstance(detail["input"], dict) else f" (got {detail['input']!r:.80})"
    return f"{message[:1].lower()}{message[1:]}{given}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys of the table at a location, for the hint about a misspelt one."""
    _, found = _resolved(location)
    return [key for annotation in found for key in known_keys(annotation, [])]


def _leave_out(document: typing.Any, location: list[typing.Any]) -> None:
    for part in location[:-1]:
        if not isinstance(document, dict | list) or (isinstance(document, dict) and part not in document):
            return
        document = document[part]
    if isinstance(document, dict) and location:
        document.pop(location[-1], None)
