"""Says what is fine-tuned, on what and how: a TOML file, or the default plan for files of rows."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from perilune.errors import RecipeError
from perilune.recipe import AdapterTable, Mistake, ModelTable, SftStage, recipe_error
from perilune.recipe.files import chat_template_text
from perilune.recipe.overrides import apply_override, known_keys, name_of
from perilune.table import PositiveInt, Table

PRESETS = Path(__file__).parent / "presets"
PATH_KEYS = ("path", "heldout_path")
# Of a stage that does not say otherwise: a set of rows from anywhere is learnt from as far as it can be.
DEFAULTS: dict[str, Any] = {"type": "sft", "epochs": 1.0, "batch_size": 32, "broken": "drop", "too_long": "drop"}


class SftTrainer(Table):
    """`[trainer]`: how passes are made, and whether adapters are trained."""

    microbatch_tokens: PositiveInt = 4096  # tokens in one forward and backward pass: sequences packed into a row
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast over fp32 weights
    adapter: AdapterTable | None = None
    num_threads: PositiveInt | None = None  # torch threads; as many as cores, if not given


class SftPlan(Table):
    """All that decides the result, but the content of the files that it names."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    model: ModelTable
    # The token that ends a response, where the chat template writes one that the model does not know as such.
    end_token: str | None = None
    trainer: SftTrainer = SftTrainer()
    stages: Annotated[list[SftStage], Field(min_length=1)]


class PlanDocument(SftPlan):
    """A plan as it is written: `defaults` are keys of every stage that does not say otherwise."""

    defaults: SftStage


def read_plan(
    sources: Sequence[Path],
    flags: Mapping[str, Any],
    model: str | None = None,
    preset: str | None = None,
    overrides: Sequence[str] = (),
) -> SftPlan:
    """Reads a plan from one TOML file, or makes the plan for files of rows.

    Args:
        flags: keys of every stage, from the command line; None where it does not say.
        model: the policy to begin with, in place of the plan's.
        preset: a name in `presets`.
        overrides: changes that come last, KEY=VALUE.

    Raises:
        RecipeError: no such file, no TOML, or wrong keys and values, each named.
    """
    document = _document(sources, preset)
    if model is not None:
        document["model"] = {**document.get("model", {}), "path": _if_there(model, Path())}
    _add_flags(document, {key: value for key, value in flags.items() if value is not None})
    for override in overrides:
        apply_override(document, override, PlanDocument)
    if not document.get("model"):
        raise RecipeError("which model is trained? give --model, a folder or package:NAME")
    name = str(sources[0]) if sources else "the plan"
    try:
        return SftPlan.model_validate(_folded(document))
    except ValidationError as error:
        raise recipe_error(name, [_mistake(detail) for detail in error.errors()]) from error


def _document(sources: Sequence[Path], preset: str | None) -> dict[str, Any]:
    is_plan = len(sources) == 1 and sources[0].suffix == ".toml"
    document = _settled(_toml(sources[0]), sources[0].parent) if is_plan else {}
    if preset:
        if document.get("stages"):
            raise RecipeError(f"{sources[0]} has stages of its own: leave --preset {preset} out")
        document = {**_preset(preset), **document}
    if not is_plan:
        document["defaults"] = {"path": [os.path.abspath(source) for source in sources]}
    document.setdefault("defaults", {})
    document.setdefault("stages", [{}])
    return document


def _preset(name: str) -> dict[str, Any]:
    file = PRESETS / f"{name}.toml"
    if not file.is_file():
        raise RecipeError(
            f"there is no preset {name!r}; there are {', '.join(sorted(p.stem for p in PRESETS.iterdir()))}"
        )
    return _toml(file)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"cannot read the plan {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{path} is no valid TOML: {error}") from error


def _settled(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The document with the paths that it names made independent of where it lies."""
    for table in (document.get("defaults", {}), *document.get("stages", [])):
        for key in PATH_KEYS:
            given = table.get(key)
            if given:
                table[key] = [os.path.abspath(folder / path) for path in ([given] if isinstance(given, str) else given)]
    model = document.get("model", {})
    if path := model.get("path"):
        model["path"] = _if_there(path, folder)
    if template := model.get("chat_template"):
        model["chat_template"] = chat_template_text(template, folder)
    return document


def _if_there(path: str, folder: Path) -> str:
    return os.path.abspath(folder / path) if (folder / path).exists() else path


def _add_flags(document: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """Puts flags among the defaults. RecipeError: a stage says something else itself."""
    for key, value in flags.items():
        for index, stage in enumerate(document["stages"]):
            if key in stage:
                raise RecipeError(f"stage {index} has a {key} of its own: write --set stages.{index}.{key}={value}")
        document["defaults"][key] = value


def _folded(document: dict[str, Any]) -> dict[str, Any]:
    """The document with each stage's defaults in it."""
    defaults = {**DEFAULTS, **document["defaults"]}
    if "num_steps" in document["defaults"]:
        defaults.pop("epochs")
    stages = [
        {**{key: value for key, value in defaults.items() if not ("num_steps" in stage and key == "epochs")}, **stage}
        for stage in document["stages"]
    ]
    return {key: value for key, value in document.items() if key != "defaults"} | {"stages": stages}


def _mistake(detail: ErrorDetails) -> Mistake:
    """A mistake in words, with the nearest key where there is none of that name."""
    place, message = list(detail["loc"]), detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(place[-1]), known_keys(SftPlan, place[:-1]), n=1, cutoff=0.5)
        return Mistake(name_of(place), f"no such key{f'; did you mean {near[0]!r}?' if near else ''}")
    return Mistake(name_of(place) or "plan", f"{message[:1].lower()}{message[1:]}")
