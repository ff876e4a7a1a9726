"""Recipes of earlier versions. A key that has moved is an error in a file; in a stored recipe it says what it said."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

Document = dict[str, Any]

_ENGINE = ("quantization", "context_at_swap")
_OBJECTIVE = ("tau", "baseline", "correction", "correction_limit", "effective_share")

MOVED: dict[str, str] = {
    "sampling": "write [prompts.sampler], with `type` in place of `strategy` and only the keys of that type",
    **{f"rollout.{key}": f"write rollout.engine.{key}, in [rollout.engine]" for key in _ENGINE},
    "rollout.environment.name": "write rollout.environment.type",
    "rollout.environment.options": "write the options into [rollout.environment] itself, beside `type`",
    "warmup": 'write [[stages]] with type = "warmup" for a task\'s traces, or type = "sft" for a file\'s examples; '
    "an override is then stages.0.num_steps=900",
    **{f"trainer.{key}": f"write trainer.objective.{key}, in [trainer.objective]" for key in _OBJECTIVE},
}
"""Says what a file has to say in place of a key that it must not have any more."""


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


def _trainer_to_objective(document: Document) -> Document:
    """`[trainer]` held k1.5's keys itself, and a correction was used with `segments = "corrected"` only."""
    trainer = document.get("trainer")
    if not isinstance(trainer, dict) or not trainer.keys() & {*_OBJECTIVE, "segments"} or "objective" in trainer:
        return document
    objective = {key: trainer[key] for key in _OBJECTIVE if key in trainer}
    rest = {key: value for key, value in trainer.items() if key not in _OBJECTIVE}
    if trainer.get("segments") == "corrected":
        rest["segments"] = "all"
        objective.setdefault("correction", "decoupled")
    else:
        objective.pop("correction", None)
    return document | {"trainer": rest | {"objective": {"type": "k15"} | objective}}


def _warmup_to_stages(document: Document) -> Document:
    """`[warmup]` was the only stage, of a task's traces or of a file's examples."""
    if "warmup" not in document or "stages" in document:
        return document
    rest = {key: value for key, value in document.items() if key != "warmup"}
    if not isinstance(table := document["warmup"], dict):
        return rest
    given = {key: value for key, value in table.items() if value is not None}
    is_file = "path" in given
    unused = ("task", "options") if is_file else ("path",)
    keys = {key: value for key, value in given.items() if key not in unused}
    # What the keys were where a file did not say: other kinds have other defaults.
    keys = {"learning_rate": 1e-3, **keys}
    return rest | {"stages": [{"type": "sft" if is_file else "warmup", **keys}]}


def _rollout_to_engine(document: Document) -> Document:
    """`[rollout]` named an engine, and held the keys of every engine."""
    rollout = document.get("rollout")
    if not isinstance(rollout, dict) or isinstance(rollout.get("engine"), dict):
        return document
    if not rollout.keys() & {"engine", *_ENGINE}:
        return document
    kind = rollout.get("engine", "torch")
    own_keys = {"torch": _ENGINE, "vllm": ("context_at_swap",)}.get(kind, ()) if isinstance(kind, str) else ()
    engine = {"type": kind} | {key: rollout[key] for key in own_keys if key in rollout}
    rest = {key: value for key, value in rollout.items() if key not in _ENGINE}
    return document | {"rollout": rest | {"engine": engine}}


def _environment_to_kind(document: Document) -> Document:
    """`[rollout.environment]` had a `name`, and the keys of its kind under `options`."""
    rollout = document.get("rollout")
    table = rollout.get("environment") if isinstance(rollout, dict) else None
    if not isinstance(rollout, dict) or not isinstance(table, dict) or "name" not in table or "type" in table:
        return document
    options = table["options"] if isinstance(table.get("options"), dict) else {}
    rest = {key: value for key, value in table.items() if key not in ("name", "options")}
    return document | {"rollout": rollout | {"environment": {"type": table["name"]} | options | rest}}


UPGRADES: tuple[Callable[[Document], Document], ...] = (
    _sampling_to_sampler,
    _trainer_to_objective,
    _rollout_to_engine,
    _environment_to_kind,
    _warmup_to_stages,
)
"""From the oldest keys to the newest; each is a pure function, and leaves a recipe of today as it is."""
