"""Recipes of earlier versions. A key that has moved is an error in a file; in a stored recipe it says what it said."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

Document = dict[str, Any]

MOVED: dict[str, str] = {
    "sampling": "write [prompts.sampler], with `type` in place of `strategy` and only the keys of that type",
}
"""What a file has to say in place of a key that it must not have any more."""


def upgraded(document: Any) -> Any:
    """A stored recipe in this version's keys. What is no recipe at all comes back as it is."""
    if not isinstance(document, dict):
        return document
    return functools.reduce(lambda current, upgrade: upgrade(current), UPGRADES, document)


def _sampling_to_sampler(document: Document) -> Document:
    """`[sampling]` had one `strategy`, and the keys of every strategy."""
    if not isinstance(table := document.get("sampling"), dict) or not isinstance(document.get("prompts"), dict):
        return document
    strategy = table.get("strategy", "uniform")
    own_keys = ("warmup_iterations", "difficulty_label", "min_difficulty") if strategy == "curriculum" else ()
    sampler = {"type": strategy} | {key: table[key] for key in own_keys if key in table}
    rest = {key: value for key, value in document.items() if key != "sampling"}
    return rest | {"prompts": {"sampler": sampler} | document["prompts"]}


UPGRADES: tuple[Callable[[Document], Document], ...] = (_sampling_to_sampler,)
"""From the oldest keys to the newest; each is a pure function, and leaves a recipe of today as it is."""
