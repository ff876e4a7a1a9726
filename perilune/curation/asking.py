"""Questions about rows, put to a model that answers with JSON of a schema; what does not follow it is asked again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perilune.completions import ModelTable
from perilune.curation.stages.stage import Tools
from perilune.curation.workspace import Row, Survivors

BATCH = 256
NUM_ASKED = 3  # times, before a model is taken to answer nonsense


def choices_schema(choices: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The schema of an object that has one of some values under each key."""
    return {
        "type": "object",
        "properties": {key: {"type": "string", "enum": list(values)} for key, values in choices.items()},
        "required": list(choices),
        "additionalProperties": False,
    }


def classified(
    model: ModelTable, choices: Mapping[str, Sequence[str]], rows: Survivors, tools: Tools
) -> Iterator[tuple[Row, dict[str, str] | None]]:
    """Each row with a model's choice under each key; None, and a failure, where it made none that is allowed."""
    for batch in tools.answered(model, rows, NUM_ASKED, BATCH, choices_schema(choices)):
        for row, answers in batch:
            found = next(filter(None, (chosen(text, choices) for text in answers.texts)), None)
            if found is None:
                said = f"no answer of {model.name} follows the schema: {answers.texts[:1]!r:.200}"
                tools.fail(row, answers.failure or said)
            yield row, found


def chosen(text: str, choices: Mapping[str, Sequence[str]]) -> dict[str, str] | None:
    """The choices of an answer; None if it is no such object.

    >>> chosen('```json\\n{"type": "Proof"}\\n```', {"type": ["proof", "open"]})
    {'type': 'proof'}
    >>> chosen('{"type": "essay"}', {"type": ["proof", "open"]})
    """
    match = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        found = json.loads(match[0]) if match else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    named = {key: {value.casefold(): value for value in values} for key, values in choices.items()}
    values = {key: named[key].get(str(found.get(key, "")).strip().casefold()) for key in choices}
    return {key: value for key, value in values.items() if value} if all(values.values()) else None
