"""Rows of data as prompts: what cannot be used is an error that names row and key, or is skipped and counted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.data.files import Row
from perilune.data.jsonlines import ExactNumber, parse_object
from perilune.data.rows import kind_of, label_of, messages_in_parts, plain_text, text_of, value_at
from perilune.errors import InvalidInputError
from perilune.images import InvalidImageError
from perilune.recipe import EnvironmentBase, EnvironmentTable, RowPrompts
from perilune.recipe.environments import KINDS
from services.master.prompts.images import LOOKED_AT, ImageAccess, RowImages
from services.master.prompts.prompt import make_prompt

NO_ENVIRONMENT = "none"  # as a row writes it

_ENVIRONMENT: TypeAdapter[EnvironmentBase] = TypeAdapter(EnvironmentTable)


def prompts_of_rows(
    rows: Iterable[tuple[str, Row]],
    table: RowPrompts,
    name: str,
    beside: Path = Path(),
    access: ImageAccess = LOOKED_AT,
) -> tuple[list[Prompt], list[str]]:
    """The prompts of all rows, each with the place where it lies, and what is to be said of those that were left out.

    A row whose image cannot be shown is left out, whatever `skip_invalid` says: its image is the data's own fault, and
    the others can be used. `beside`: where images' paths begin.

    InvalidInputError: a row cannot be used and is not to be skipped, or none can be.
    """
    prompts: list[Prompt] = []
    skipped: list[InvalidInputError] = []
    unseen: list[str] = []
    for where, row in rows:
        try:
            prompts.append(prompt_of_row(row, table, where, beside, access))
        except InvalidImageError as error:
            unseen.append(f"left out: {error}")
        except InvalidInputError as error:
            if not table.skip_invalid:
                raise InvalidInputError(f"{error}. prompts.skip_invalid = true leaves such rows out") from error
            skipped.append(error)
    num_rows = len(prompts) + len(skipped) + len(unseen)
    said = [f"{name}: {len(skipped)} of {num_rows} rows skipped, the first because {skipped[0]}"] if skipped else []
    if unseen:
        hint = "" if table.convert_images else " (prompts.convert_images = true takes some that need a choice)"
        said += [f"{name}: {len(unseen)} of {num_rows} rows left out for their images{hint}", *unseen]
    if not prompts:
        raise InvalidInputError("; ".join(["there are no prompts", *said[:9]]) if said else f"{name} has no prompts")
    return prompts, said


def prompt_of_row(
    row: Row, table: RowPrompts, where: str, beside: Path = Path(), access: ImageAccess = LOOKED_AT
) -> Prompt:
    """One row as a prompt. InvalidInputError names the row and the key that is wrong; InvalidImageError the image."""
    if isinstance(row, InvalidInputError):
        raise row
    images = RowImages(row, table, access, beside, where)
    question = _question(_value(row, table.question, where, "question"), table, where, images)
    return make_prompt(
        images.messages(question, table.template),
        text_of(_value(row, table.answer, where, "answer"), where, table.answer),
        template=table.template,
        system=table.system,
        labels={key: label_of(_value(row, key, where, "labels"), where, key) for key in table.labels},
        environment_json=_environment(row, table, where),
    )


def _value(row: Mapping[str, Any], key: str, where: str, setting: str) -> Any:
    try:
        return value_at(row, key, where)
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}: set prompts.{setting} to the right key") from error


def _environment(row: Mapping[str, Any], table: RowPrompts, where: str) -> str | None:
    """A row's environment as JSON; empty if it is to have none, None if it says nothing."""
    key = table.environment
    value = None if key is None else _value(row, key, where, "environment")
    if key is None or value is None or value == "":
        return None
    if value == NO_ENVIRONMENT:
        return ""
    given = _environment_table(value, where, key)
    if given.get("type") not in table.environments:
        raise InvalidInputError(
            f"{where}: {key!r} is of the type {given.get('type')!r:.80}, which is none of prompts.environments: "
            f"{', '.join(table.environments)}"
        )
    try:
        return _ENVIRONMENT.validate_python(given).model_dump_json()
    except ValidationError as error:
        detail = error.errors()[0]
        path = ".".join([key, *map(str, detail["loc"][1:])])  # behind the kind
        said = f"{detail['msg']} (got {detail['input']!r:.80})"
        if detail["type"] == "extra_forbidden":
            said = f"no such key; known are {', '.join(KINDS[given['type']].model_fields)}"
        raise InvalidInputError(f"{where}: {path!r}: {said}") from error


def _environment_table(value: Any, where: str, key: str) -> dict[str, Any]:
    """Returns what a row says: a kind's name, or a table; in CSV and the like a table is JSON."""
    if isinstance(value, str):
        if not value.lstrip().startswith("{"):
            return {"type": value.strip()}
        value = parse_object(value.encode(), f"{where}: {key!r}")
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{where}: {key!r} is neither an environment's name nor its table: {kind_of(value)}")
    # Parquet gives every table the keys of all of them: what is null was not said.
    said = {name: each for name, each in value.items() if each is not None}
    return {name: json.loads(each.text) if isinstance(each, ExactNumber) else each for name, each in said.items()}


def _question(value: Any, table: RowPrompts, where: str, images: RowImages) -> str | list[dict[str, Any]]:
    key = table.question
    if isinstance(value, str):
        return plain_text(value, where, key)
    if not isinstance(value, list) or not value:
        raise InvalidInputError(f"{where}: {key!r} is neither text nor a list of messages: it is {kind_of(value)}")
    if table.template != "{question}":
        raise InvalidInputError(
            f"{where}: {key!r} is a list of messages, and prompts.template is for questions that are text"
        )
    return messages_in_parts(value, where, key, images.read)
