"""The files that a recipe names: made independent of the folder that it was submitted from."""

from __future__ import annotations

import os
from pathlib import Path

from perilune.data.jsonlines import read_bytes
from perilune.errors import InvalidInputError, NotFoundError
from perilune.images.rendering import PACKAGE, RenderTable
from perilune.objectives.objective import Objective
from perilune.recipe import (
    FilePrompts,
    FolderPrompts,
    GraderTable,
    HuggingFacePrompts,
    JsonlPrompts,
    ModelTable,
    PromptsTable,
    Recipe,
    RowsStage,
    SftStage,
    StageTable,
    TeacherTable,
    WarmupStage,
)
from perilune.recipe.evaluate import EvaluateTable
from perilune.recipe.needs import function_of


def settled(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with absolute paths, and with its chat template's text in place of the file.

    Paths are relative to `folder`. A model or data set that is no file there may be a name on the hub, or lie where
    the trainer runs: it stays as it is written.

    InvalidInputError: the file of the chat template cannot be read.
    """
    changes = {
        "prompts": _of_prompts(recipe.prompts, folder),
        "model": _of_model(recipe.model, folder),
        "reward": recipe.reward.model_copy(update={"graders": [_of_grader(t, folder) for t in recipe.reward.graders]}),
        "trainer": recipe.trainer.model_copy(update={"objective": _of_objective(recipe.trainer.objective, folder)}),
        "teacher": _of_teacher(recipe.teacher, folder),
        "stages": [_of_stage(table, folder) for table in recipe.stages],
        "evaluate": [_of_evaluate(table, folder) for table in recipe.evaluate],
    }
    return recipe.model_copy(update=changes)


def chat_template_text(template: str, folder: Path = Path()) -> str:
    """The text of a chat template that is given as itself, or as a file with any suffix.

    InvalidInputError: the file cannot be read.
    """
    if "{{" in template or "{%" in template:
        return template
    try:
        return read_bytes(folder / template).decode("utf-8")
    except (NotFoundError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"model.chat_template: {error}") from error


def _of_prompts(table: PromptsTable, folder: Path) -> PromptsTable:
    table = table.model_copy(update={"render": _of_render(table.render, folder)})
    match table:
        case FolderPrompts():
            return table.model_copy(update={"path": _absolute(table.path, folder)})
        case JsonlPrompts():
            heldout = table.heldout_path and _absolute(table.heldout_path, folder)
            return table.model_copy(update={"path": _absolute(table.path, folder), "heldout_path": heldout})
        case FilePrompts():
            heldout_paths = table.heldout_path and [_absolute(path, folder) for path in table.heldout_path]
            paths = [_absolute(path, folder) for path in table.path]
            return table.model_copy(update={"path": paths, "heldout_path": heldout_paths})
        case HuggingFacePrompts():
            return table.model_copy(update={"dataset": _if_there(table.dataset, folder)})
        case _:
            return table


def _of_render(table: RenderTable | None, folder: Path) -> RenderTable | None:
    """A table with absolute fonts, but for those of packages."""
    fonts = (
        tuple(path if path.startswith(PACKAGE) else _absolute(path, folder) for path in table.fonts) if table else ()
    )
    return table and table.model_copy(update={"fonts": fonts})


def _of_model(table: ModelTable, folder: Path) -> ModelTable:
    template = table.chat_template and chat_template_text(table.chat_template, folder)
    return table.model_copy(update={"path": _if_there(table.path, folder), "chat_template": template})


def _of_stage(table: StageTable, folder: Path) -> StageTable:
    if isinstance(table, WarmupStage):
        return table.model_copy(update={"render": _of_render(table.render, folder)})
    if not isinstance(table, RowsStage):
        return table
    changes = {"path": [_absolute_if_there(path, folder) for path in table.path]}
    if isinstance(table, SftStage) and table.heldout_path:
        changes["heldout_path"] = [_absolute_if_there(path, folder) for path in table.heldout_path]
    return table.model_copy(update=changes)


def _of_objective(table: Objective, folder: Path) -> Objective:
    path = _if_there(table.frozen_path, folder)
    return table if path is None else table.model_copy(update={"frozen_model": path})


def _of_evaluate(table: EvaluateTable, folder: Path) -> EvaluateTable:
    """A task whose data, or whose harness's task, is a file."""
    before, mark, path = table.task.rpartition("=")
    if not mark:
        before, mark, path = table.task.partition(":") if ":" in table.task else ("", "", table.task)
    return table.model_copy(update={"task": f"{before}{mark}{_if_there(path, folder)}"})


def _of_teacher(table: TeacherTable | None, folder: Path) -> TeacherTable | None:
    return table and table.model_copy(update={"model": _absolute_if_there(table.model, folder)})


def _of_grader(table: GraderTable, folder: Path) -> GraderTable:
    named = function_of(table.plugin or "")
    return table.model_copy(update={"plugin": f"{_absolute(named[0], folder)}:{named[1]}"}) if named else table


def _absolute(path: str, folder: Path) -> str:
    return os.path.abspath(folder / path)  # without `..`, and with symbolic links as they are


def _if_there(path: str | None, folder: Path) -> str | None:
    return None if path is None else _absolute_if_there(path, folder)


def _absolute_if_there(path: str, folder: Path) -> str:
    return _absolute(path, folder) if (folder / path).exists() else path
