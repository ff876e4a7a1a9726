"""A recipe: one TOML file is one run. Parsed and checked before anything heavy is imported.

Every table is a class, every key a field, and the field's comment is its documentation (docs/recipes.md is the tour).
Unknown keys are errors: a misspelt option must not train silently.

    model  stages  prompts  samplers  rollout  engines  environments  reward  trainer      the tables, made of
                `perilune.table`
    recipe      all of them, and what must hold between them
    overrides   `--set key.path=value`
    reading     from a file, the wire, the database; `history` knows what keys were called before
    mistakes    what is wrong, in words
    preflight   what can be known before anything is started
    needs       what a run needs beside its trainer and workers
    files  toml the recipes that are shipped; writing one
"""

from perilune.recipe.engines import EngineBase, EngineTable, SglangEngineTable, TorchEngineTable, VllmEngineTable
from perilune.recipe.environments import (
    CalculatorEnvironment,
    EnvironmentBase,
    EnvironmentTable,
    GuessEnvironment,
    SandboxEnvironment,
)
from perilune.recipe.evaluate import EvaluateTable
from perilune.recipe.mistakes import Mistake, recipe_error
from perilune.recipe.model import AdapterTable, CreateModel, ModelTable
from perilune.recipe.prompts import (
    FilePrompts,
    FolderPrompts,
    HuggingFacePrompts,
    JsonlPrompts,
    PromptsBase,
    PromptsTable,
    QuestionTemplate,
    ReasoningGymPrompts,
    RowPrompts,
    TaskPrompts,
)
from perilune.recipe.reading import (
    check_recipe,
    load_recipe,
    mended,
    read_document,
    read_stored_recipe,
    recipe_from_json,
)
from perilune.recipe.recipe import MAX_PROBLEMS, EvaluationTable, Recipe, WeightsTable
from perilune.recipe.reward import GraderTable, LengthRewardTable, OverlongTable, RewardTable, ToggleTable, option_text
from perilune.recipe.rollout import RepetitionTable, RolloutTable
from perilune.recipe.samplers import (
    CurriculumSampler,
    MeasuredSampler,
    MixtureSampler,
    PrioritizedSampler,
    SamplerBase,
    SamplerTable,
    UniformSampler,
)
from perilune.recipe.stages import DpoStage, RowsStage, SftStage, StageBase, StageTable, WarmupStage
from perilune.recipe.teacher import TeacherTable
from perilune.recipe.trainer import TrainerTable
from perilune.table import (
    ArgumentName,
    NonNegativeFloat,
    NonNegativeInt,
    NumGenerated,
    Options,
    Paths,
    PositiveFloat,
    PositiveInt,
    Share,
    Table,
)

__all__ = [
    "MAX_PROBLEMS",
    "AdapterTable",
    "ArgumentName",
    "CalculatorEnvironment",
    "CreateModel",
    "CurriculumSampler",
    "DpoStage",
    "EngineBase",
    "EngineTable",
    "EnvironmentBase",
    "EnvironmentTable",
    "EvaluateTable",
    "EvaluationTable",
    "FilePrompts",
    "FolderPrompts",
    "GraderTable",
    "GuessEnvironment",
    "HuggingFacePrompts",
    "JsonlPrompts",
    "LengthRewardTable",
    "MeasuredSampler",
    "Mistake",
    "MixtureSampler",
    "ModelTable",
    "NonNegativeFloat",
    "NonNegativeInt",
    "NumGenerated",
    "Options",
    "OverlongTable",
    "Paths",
    "PositiveFloat",
    "PositiveInt",
    "PrioritizedSampler",
    "PromptsBase",
    "PromptsTable",
    "QuestionTemplate",
    "ReasoningGymPrompts",
    "Recipe",
    "RepetitionTable",
    "RewardTable",
    "RolloutTable",
    "RowPrompts",
    "RowsStage",
    "SamplerBase",
    "SamplerTable",
    "SandboxEnvironment",
    "SftStage",
    "SglangEngineTable",
    "Share",
    "StageBase",
    "StageTable",
    "Table",
    "TaskPrompts",
    "TeacherTable",
    "ToggleTable",
    "TorchEngineTable",
    "TrainerTable",
    "UniformSampler",
    "VllmEngineTable",
    "WarmupStage",
    "WeightsTable",
    "check_recipe",
    "load_recipe",
    "mended",
    "option_text",
    "read_document",
    "read_stored_recipe",
    "recipe_error",
    "recipe_from_json",
]
