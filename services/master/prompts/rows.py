"""Rows of data as prompts: what cannot be used is an error that names row and key, or is skipped and counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.data.rows import kind_of, label_of, messages_of, plain_text, text_of, value_at
from perilune.errors import InvalidInputError
from perilune.recipe import RowPrompts
from services.master.prompts.prompt import make_prompt

Row = Mapping[str, Any] | InvalidInputError  # or why it could not be read


def prompts_of_rows(rows: Iterable[tuple[str, Row]], table: RowPrompts, name: str) -> tuple[list[Prompt], list[str]]:
    """The prompts of all rows, each with the place where it lies, and what is to be said of those that were skipped.

    InvalidInputError: a row cannot be used and is not to be skipped, or none can be.
    """
    prompts: list[Prompt] = []
    skipped: list[InvalidInputError] = []
    for where, row in rows:
        try:
            prompts.append(prompt_of_row(row, table, where))
        except InvalidInputError as error:
            if not table.skip_invalid:
                raise InvalidInputError(f"{error}. prompts.skip_invalid = true leaves such rows out") from error
            skipped.append(error)
    num_rows = len(prompts) + len(skipped)
    said = [f"{name}: {len(skipped)} of {num_rows} rows skipped, the first because {skipped[0]}"] if skipped else []
    if not prompts:
        raise InvalidInputError("; ".join(["there are no prompts", *said]) if said else f"{name} has no prompts")
    return prompts, said


def prompt_of_row(row: Row, table: RowPrompts, where: str) -> Prompt:
    """One row as a prompt. InvalidInputError names the row and the key that is wrong."""
    if isinstance(row, InvalidInputError):
        raise row
    return make_prompt(
        _question(_value(row, table.question, where, "question"), table, where),
        text_of(_value(row, table.answer, where, "answer"), where, table.answer),
        template=table.template,
        system=table.system,
        labels={key: label_of(_value(row, key, where, "labels"), where, key) for key in table.labels},
    )


def _value(row: Mapping[str, Any], key: str, where: str, setting: str) -> Any:
    try:
        return value_at(row, key, where)
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}: set prompts.{setting} to the right key") from error


def _question(value: Any, table: RowPrompts, where: str) -> str | list[dict[str, str]]:
    key = table.question
    if isinstance(value, str):
        return plain_text(value, where, key)
    if not isinstance(value, list) or not value:
        raise InvalidInputError(f"{where}: {key!r} is neither text nor a list of messages: it is {kind_of(value)}")
    if table.template != "{question}":
        raise InvalidInputError(
            f"{where}: {key!r} is a list of messages, and prompts.template is for questions that are text"
        )
    return messages_of(value, where, key)
