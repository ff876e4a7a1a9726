"""A recipe: one TOML file is one run. Parsed and checked before anything heavy is imported.

Every table below is a class here, every key a field, and the field's comment is its documentation
(docs/recipes.md is the tour). Unknown keys are errors: a misspelt option must not train silently.
"""

from __future__ import annotations

import copy
import difflib
import functools
import logging
import re
import tomllib
import typing
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, from_json

from perilune.errors import RecipeError
from perilune.overrides import annotations_at, apply_override, known_keys, models_in, name_of
from perilune.recipe_history import MOVED, upgraded

logger = logging.getLogger(__name__)


def _with_question(template: str) -> str:
    if "{question}" not in template:
        raise ValueError("every prompt would be the same text: write {question} where the question goes")
    return template


PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]  # what messages carry
NumGenerated = Annotated[int, Field(gt=0, le=1_000_000)]  # prompts of a generator: an epoch of them is shuffled at once
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**31)]

Options = dict[str, str | int | float | bool]
Share = Annotated[float, Field(ge=0, le=1)]
Paths = Annotated[
    list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value), Field(min_length=1)
]
ArgumentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
QuestionTemplate = Annotated[str, AfterValidator(_with_question)]
Correction = Literal["truncated", "masked", "sequence", "decoupled", "adaptive"]  # of tokens


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CreateModel(Table):
    """A Llama-shaped model made on the spot, with a tokenizer over a task's own words."""

    task: str  # whose vocabulary the tokenizer has: a name in perilune/tasks
    hidden_size: PositiveInt = 128
    intermediate_size: PositiveInt = 384
    num_layers: PositiveInt = 4
    num_heads: PositiveInt = 4
    num_kv_heads: PositiveInt | None = None  # as many as heads, if not given
    max_positions: PositiveInt = 512

    @model_validator(mode="after")
    def _heads_divide(self) -> CreateModel:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of num_heads {self.num_heads}")
        if self.hidden_size // self.num_heads % 2:
            raise ValueError(f"hidden_size {self.hidden_size} over num_heads {self.num_heads} must be even (RoPE)")
        if self.num_heads % (self.num_kv_heads or self.num_heads):
            raise ValueError(f"num_heads {self.num_heads} is no multiple of num_kv_heads {self.num_kv_heads}")
        return self


class ModelTable(Table):
    """The policy at version 0: an existing model, or one made on the spot."""

    # A folder, a Hugging Face id, or `package:NAME` for a GGUF file inside an installed Python package.
    path: str | None = None
    create: CreateModel | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"  # what rollout workers hold and compute in
    chat_template: str | None = None  # a Jinja file, or its text, in place of the tokenizer's own
    # What the chat template is given beside the messages, such as enable_thinking = false. It becomes part of the
    # template: the warm-up, all engines and every later user of the trained model render alike.
    template_arguments: dict[ArgumentName, str | int | float | bool | list[str]] = {}

    @model_validator(mode="after")
    def _one_source(self) -> ModelTable:
        if (self.path is None) == (self.create is None):
            raise ValueError("give either model.path or a [model.create] table")
        return self


class WarmupTable(Table):
    """Supervised fine-tuning on reasoning traces before reinforcement learning (k1.5 §2.2)."""

    task: str | None = None  # a name in perilune/tasks that can write traces
    path: str | None = None  # or a JSONL file with `question` and `response` on each line
    options: Options = {}  # for the task's traces
    # So many different ones: the first of a file. If not given, all of a file, and 20,000 of a task, which has no end.
    num_examples: PositiveInt | None = None
    num_steps: PositiveInt = 500
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 1e-3

    @model_validator(mode="after")
    def _one_source(self) -> WarmupTable:
        if (self.task is None) == (self.path is None):
            raise ValueError("give either warmup.task or warmup.path")
        return self


class SamplerBase(Table):
    """A prompt sampler: which prompts an iteration draws (k1.5 §2.3.4); its kinds are in services/master/samplers."""

    type: str

    def labels(self) -> dict[str, str]:
        """The labels that every training prompt must have, by the key of this table that names them."""
        return {}


class UniformSampler(SamplerBase):
    """Each prompt once an epoch, in an order of the seed's."""

    type: Literal["uniform"]


class PrioritizedSampler(SamplerBase):
    """Prompts in proportion to their failures: 1 - the success rate so far."""

    type: Literal["prioritized"]


class CurriculumSampler(SamplerBase):
    """The whole set for so many iterations, then only prompts at least so hard; uniformly."""

    type: Literal["curriculum"]
    warmup_iterations: NonNegativeInt = 0
    difficulty_label: str = "difficulty"  # one of prompts.labels; a number in every row
    min_difficulty: float = 0.5

    def labels(self) -> dict[str, str]:
        return {"difficulty_label": self.difficulty_label}


SamplerTable = Annotated[UniformSampler | PrioritizedSampler | CurriculumSampler, Field(discriminator="type")]


class PromptsBase(Table):
    """What every source of prompts has."""

    sampler: SamplerTable = UniformSampler(type="uniform")


class TaskPrompts(PromptsBase):
    """Problems from one of Perilune's own generators: endless, so held-out ones are never seen in training."""

    source: Literal["task"]
    name: str
    num_train: NumGenerated = 20_000
    num_heldout: NumGenerated = 500
    options: Options = {}


class ReasoningGymPrompts(PromptsBase):
    """Problems from a reasoning-gym dataset, by its name there."""

    source: Literal["reasoning-gym"]
    name: str
    num_train: NumGenerated = 10_000
    num_heldout: NumGenerated = 500
    options: Options = {}
    template: QuestionTemplate = "{question}"
    system: str | None = None


class RowPrompts(PromptsBase):
    """Prompts that are rows of data. A key `a.b` is the key `b` of the object under `a`."""

    num_heldout: PositiveInt = 100  # the last so many rows are held out, unless held-out ones are named
    question: str = "question"  # the key of the question: text, or a list of {role, content}
    answer: str = "answer"  # the key of the reference answer: text, or a number, which is taken as it is written
    labels: list[str] = []  # keys that are kept as labels, for curricula
    template: QuestionTemplate = "{question}"  # around questions that are text
    system: str | None = None  # the first message, of conversations that have no system message of their own
    skip_invalid: bool = False  # leave rows out that cannot be used, count them and say why; else they are errors


class JsonlPrompts(RowPrompts):
    """One's own prompts: a JSON object a line."""

    source: Literal["jsonl"]
    path: str
    heldout_path: str | None = None  # if not given, the last num_heldout lines of `path` are held out


class FilePrompts(RowPrompts):
    """Files of rows: Parquet, JSON, JSON lines or CSV, several in the order given, a pattern's in that of names."""

    source: Literal["file"]
    path: Paths  # a path, a pattern such as data/*.parquet, or a list of them
    heldout_path: Paths | None = None  # if not given, the last num_heldout rows of `path` are held out
    format: Literal["parquet", "json", "jsonl", "csv", "tsv"] | None = None  # if not given, by the file's suffix


class HuggingFacePrompts(RowPrompts):
    """A Hugging Face dataset, from the hub or from a folder on disk."""

    source: Literal["huggingface"]
    dataset: str
    config: str | None = None
    split: str = "train"
    heldout_split: str | None = None  # if not given, the last num_heldout rows of `split` are held out


PromptsTable = Annotated[
    TaskPrompts | ReasoningGymPrompts | JsonlPrompts | HuggingFacePrompts | FilePrompts, Field(discriminator="source")
]


class RepetitionTable(Table):
    """When a response that repeats itself is ended (k1.5 §2.6.2); services/rollout/repetition.py has the rule."""

    min_tokens: PositiveInt = 384  # that were copied, less what did not fit
    min_repeats: PositiveInt = 6  # copies
    similarity: Annotated[float, Field(gt=0.5, le=1)] = 0.9  # of each copy to the one before; 1: exact


class EnvironmentTable(Table):
    """What a policy may talk to in the middle of a response: a row of services/rollout/environments."""

    name: str
    max_turns: PositiveInt = 8  # answers of the environment in one response
    options: Options = {}


class RolloutTable(Table):
    """How responses are sampled, and how far sampling may run ahead of training (k1.5 §2.6)."""

    engine: Literal["torch", "vllm", "sglang"] = "torch"
    prompts_per_iteration: PositiveInt = 64
    group_size: Annotated[int, Field(ge=2, lt=2**31)] = 8  # k: responses to one prompt
    temperature: PositiveFloat = 1.0  # what is trained is the policy at this temperature
    # These two are for runs that only evaluate: what is trained on is drawn from all of the vocabulary.
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: NonNegativeInt = 0  # 0: no truncation
    max_tokens: PositiveInt = 256  # of a response
    stop: list[Annotated[str, Field(min_length=1)]] = []
    # Whether graders, environments and the page see the model's special tokens in a response, such as `<think>` or
    # `<|tool_call|>` where they are ones; the token that ends a response is never shown.
    keep_special_tokens: bool = False
    max_running: PositiveInt = 256  # samples that one engine decodes at once
    # The torch engine only: weights rounded to int8, a scale for each output, and computed with in `model.dtype`. It
    # shows what a quantised engine does to learning, and is no faster.
    quantization: Literal["none", "int8"] = "none"
    # When weights change under a running sample, its context is read anew by the new version, so that a token's
    # log-probability is of one version on all that came before; or it is kept as the version before had read it, which
    # costs nothing and is not exact (the torch and vLLM engines).
    context_at_swap: Literal["reread", "keep"] = "reread"
    # Partial rollouts: response tokens a trajectory may get in one iteration; the rest is written in later ones.
    budget_tokens: PositiveInt | None = None
    # How many versions old a token in the loss may be when it is trained on.
    max_staleness: NonNegativeInt = 0
    # Whether max_staleness is also how many iterations sampling may be ahead of training; if not, it waits.
    asynchronous: bool = False
    repetition: RepetitionTable | None = None
    environment: EnvironmentTable | None = None

    @model_validator(mode="after")
    def _may_be_ahead(self) -> RolloutTable:
        if self.asynchronous and not self.max_staleness:
            raise ValueError("rollout.asynchronous needs rollout.max_staleness of at least 1")
        if self.quantization != "none" and self.engine != "torch":
            raise ValueError(f"rollout.quantization is the torch engine's; tell {self.engine} in its own way")
        if self.context_at_swap == "keep" and self.engine == "sglang":
            raise ValueError('rollout.context_at_swap = "keep" is for the torch and vllm engines; sglang reads anew')
        return self


class GraderTable(Table):
    """One grader and its share of the reward."""

    name: str
    weight: float = 1.0
    options: Options = {}
    # A grader of one's own (perilune.plugin): HOST:PORT where it answers, or FILE.py:FUNCTION, which `perilune train`
    # serves. Other reward services must have it under its name (PERILUNE_PLUGINS).
    plugin: str | None = None


class LengthRewardTable(Table):
    """The length reward (k1.5 §2.3.3): shorter correct answers of a group earn more, with a warm-up without it."""

    weight: NonNegativeFloat = 0.0
    warmup_iterations: NonNegativeInt = 0


class RewardTable(Table):
    graders: Annotated[list[GraderTable], Field(min_length=1)]
    length: LengthRewardTable = LengthRewardTable()
    repetition_penalty: NonNegativeFloat = 0.0  # off the reward of a response that was ended for repeating itself


class AdapterTable(Table):
    """Low-rank adapters are trained (LoRA, arXiv:2106.09685), and the policy's own weights stay as they are.

    They want a higher learning rate than the whole policy does (docs/weights.md).
    """

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0  # what an adapter adds is scaled by alpha / rank
    # Linear layers, by the last part of their names.
    targets: Annotated[list[str], Field(min_length=1)] = [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    ]  # fmt: skip


class K15Table(Table):
    """The objective of k1.5 (§2.3.1-2.3.2), summed over each response; services/trainer/objectives/k15.py."""

    type: Literal["k15"] = "k15"
    tau: NonNegativeFloat = 0.1
    # What a reward is compared with: the group's mean, or tau * log((1/k) sum exp(r/tau)).
    baseline: Literal["mean", "log_z"] = "mean"
    # Importance weights for tokens that another distribution wrote than the one that is trained; none, if not given.
    correction: Correction | None = None
    correction_limit: Annotated[float, Field(gt=1)] = 2.0  # on an importance weight, or on its inverse
    effective_share: Annotated[float, Field(gt=0, lt=1)] = 0.9  # adaptive: of a batch's tokens, after weighting


class GrpoTable(Table):
    """GRPO: group-normalised advantages, each token's ratio clipped; services/trainer/objectives/grpo.py."""

    type: Literal["grpo"]
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2  # a token's ratio counts within [1 - clip, 1 + clip]
    clip_high: PositiveFloat | None = None  # the upper distance, where it is another one (DAPO's clip-higher)


class RlooTable(Table):
    """REINFORCE with a leave-one-out baseline, which has no keys; services/trainer/objectives/rloo.py."""

    type: Literal["rloo"]


def _k15_by_default(value: object) -> object:
    return {"type": "k15", **value} if isinstance(value, dict) else value


ObjectiveTable = Annotated[
    K15Table | GrpoTable | RlooTable, Field(discriminator="type"), BeforeValidator(_k15_by_default)
]


def _known_segments(value: object) -> object:
    if value == "corrected":
        raise ValueError("write segments = 'all', and trainer.objective.correction = 'decoupled' or another one")
    return value


class TrainerTable(Table):
    """The objective, the optimiser and what of a batch they see."""

    num_iterations: NonNegativeInt  # 0: evaluate the model and end
    objective: ObjectiveTable = K15Table()
    steps_per_iteration: PositiveInt = 1  # optimiser steps, each on its share of the iteration's groups
    epochs_per_iteration: PositiveInt = 1
    # Which tokens enter the loss: `current`, those at most rollout.max_staleness versions old (k1.5 §2.6.2: only what
    # this iteration wrote); or `all`: no sample may then grow older than that, and its last iteration writes it to
    # the end.
    segments: Annotated[Literal["current", "all"], BeforeValidator(_known_segments)] = "current"
    # Groups whose rewards are all equal carry no preference; leave them out and count them as filtered.
    drop_uniform_groups: bool = False
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 1e-4
    # A ramp from 0 over the first iterations, then constant, or falling to final_learning_rate at the last one.
    learning_rate_warmup_iterations: NonNegativeInt = 0
    final_learning_rate: PositiveFloat | None = None
    betas: tuple[Share, Share] = (0.9, 0.95)
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    # The paper resets the optimiser when an iteration starts, for its reference has changed (docs/learning.md).
    reset_optimizer: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast over fp32 weights
    adapter: AdapterTable | None = None
    microbatch_tokens: PositiveInt = 2048  # tokens in one forward and backward pass: sequences packed into a row
    checkpoint_every: PositiveInt = 1  # iterations; what is lost since the last is repeated from the stored batches
    num_threads: PositiveInt | None = None  # torch threads; as many as cores, if not given


class WeightsTable(Table):
    """How versions go to the fleet."""

    anchor_every: PositiveInt = 50  # every so many versions the fleet is sent the whole state, not what changed
    # Matrices in one byte an element and a scale a row; workers compute in model.dtype, from the rounded values.
    quantize: Literal["int8", "fp8"] | None = None
    num_kept: PositiveInt = 3  # newest versions that the trainer keeps on disk to go back to, beside pinned ones


MAX_PROBLEMS = 500  # of an evaluation that does not say how many


class EvaluationTable(Table):
    """Held-out accuracy, measured before the first iteration, after the last, and in between."""

    every: PositiveInt | None = None  # iterations; not given: first and last only
    num_problems: PositiveInt | None = None  # held-out ones; not given: all there are, and at most 500
    modes: Annotated[list[Literal["greedy", "sampled"]], Field(min_length=1)] = ["greedy", "sampled"]

    def num_asked(self, num_heldout: int) -> int:
        """How many of so many held-out problems each evaluation asks."""
        return min(self.num_problems or MAX_PROBLEMS, num_heldout)


class Recipe(Table):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    model: ModelTable
    warmup: WarmupTable | None = None
    prompts: PromptsTable
    rollout: RolloutTable = RolloutTable()
    reward: RewardTable
    trainer: TrainerTable
    evaluation: EvaluationTable = EvaluationTable()
    weights: WeightsTable = WeightsTable()

    @model_validator(mode="after")
    def _can_be_carried_over(self) -> Recipe:
        if self.rollout.budget_tokens and self.trainer.segments != "current" and not self.rollout.max_staleness:
            raise ValueError(
                f"trainer.segments = {self.trainer.segments!r} trains on tokens of earlier iterations, and "
                "rollout.max_staleness = 0 forbids them; raise it, or train on the 'current' ones"
            )
        return self

    @model_validator(mode="after")
    def _is_trained_on_what_is_sampled(self) -> Recipe:
        for key, is_cut in (("top_p", self.rollout.top_p < 1), ("top_k", self.rollout.top_k > 0)):
            if is_cut and self.trainer.num_iterations:
                raise ValueError(
                    f"rollout.{key} cuts off what the policy may say, and the trainer computes with all of it: the "
                    f"gradient would be another one's; leave {key} out, and lower rollout.temperature to sample more "
                    "surely"
                )
        return self

    @model_validator(mode="after")
    def _has_labels(self) -> Recipe:
        sampler = self.prompts.sampler
        for key, label in sampler.labels().items():
            if not isinstance(self.prompts, RowPrompts):
                raise ValueError(
                    f"prompts.sampler.type = {sampler.type!r} needs labels, and {self.prompts.source} has none"
                )
            if label not in self.prompts.labels:
                raise ValueError(f"prompts.sampler.{key} = {label!r} is none of prompts.labels: add it there")
        return self

    def evaluates_at(self, iteration: int) -> bool:
        """Whether the policy that opens this iteration is measured; `num_iterations` stands for the final policy."""
        every = self.evaluation.every
        return iteration in (0, self.trainer.num_iterations) or (every is not None and iteration % every == 0)


def option_text(value: str | float | bool) -> str:
    """An option as it travels to its grader.

    >>> option_text(True), option_text(0.5), option_text("x")
    ('true', '0.5', 'x')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)


class Mistake(typing.NamedTuple):
    """What is wrong with a recipe, and at which key."""

    key: str
    text: str
    of_machine: bool = False  # another machine may have what is missing here

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"


def recipe_error(name: str, mistakes: typing.Sequence[Mistake]) -> RecipeError:
    """One error that names every mistake."""
    heading = f"{name} has {len(mistakes)} mistake{'s' * (len(mistakes) > 1)}:"
    return RecipeError("\n".join([heading, *(f"  {mistake}" for mistake in mistakes)]))


def load_recipe(path: str | Path, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Reads and checks a TOML recipe.

    Args:
        path: the file.
        overrides: changes that apply after the file, in order; `perilune.overrides` has their rules.

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

    Keys of an earlier version are read as they were meant (`perilune.recipe_history`); keys that this version does not
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


def _location(detail: ErrorDetails) -> list[int | str]:
    """Where in the file a mistake is."""
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
