"""A recipe: every table of one run, and what must hold between them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from perilune.recipe.evaluate import EvaluateTable
from perilune.recipe.model import ModelTable
from perilune.recipe.prompts import PromptsTable, RowPrompts
from perilune.recipe.reward import RewardTable
from perilune.recipe.rollout import RolloutTable
from perilune.recipe.stages import StageTable
from perilune.recipe.teacher import TeacherTable
from perilune.recipe.trainer import TrainerTable
from perilune.table import PositiveInt, Table


class WeightsTable(Table):
    """Describes how versions go to the fleet."""

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
        """Returns how many of so many held-out problems each evaluation asks."""
        return min(self.num_problems or MAX_PROBLEMS, num_heldout)


class Recipe(Table):
    """A whole run, as a TOML file describes it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    model: ModelTable
    stages: list[StageTable] = []
    prompts: PromptsTable
    rollout: RolloutTable = RolloutTable()
    reward: RewardTable
    teacher: TeacherTable | None = None
    trainer: TrainerTable
    evaluation: EvaluationTable = EvaluationTable()
    evaluate: list[EvaluateTable] = []
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
    def _can_refill(self) -> Recipe:
        if self.rollout.max_refills and not self.trainer.drop_uniform_groups:
            raise ValueError(
                "rollout.max_refills draws prompts in place of groups that are left out, and none are: set "
                "trainer.drop_uniform_groups, or leave max_refills out"
            )
        if self.rollout.max_refills and self.rollout.asynchronous:
            raise ValueError(
                "rollout.max_refills waits for an iteration's groups before it draws more, which is what "
                "rollout.asynchronous does not: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _has_teacher(self) -> Recipe:
        objective, teacher = self.trainer.objective, self.teacher
        if "teacher" not in objective.needs:
            if teacher is not None:
                raise ValueError(f"[teacher] has no use with trainer.objective.type = {objective.type!r}: leave it out")
            return self
        if teacher is None:
            raise ValueError(f"trainer.objective.type = {objective.type!r} needs a [teacher]: give teacher.model")
        if "teacher_kl" in objective.needs and not teacher.top_k:
            raise ValueError("trainer.objective.control_variate needs teacher.top_k above 0")
        if self.rollout.temperature != 1:
            raise ValueError(
                f"rollout.temperature = {self.rollout.temperature:g}, and the teacher's log-probabilities are those of "
                "temperature 1: leave it at 1"
            )
        return self

    @model_validator(mode="after")
    def _can_be_overlong(self) -> Recipe:
        table = self.reward.overlong
        if table is not None and table.max_tokens > self.rollout.max_tokens:
            raise ValueError(
                f"reward.overlong.max_tokens = {table.max_tokens} is more than a response may have: rollout.max_tokens "
                f"is {self.rollout.max_tokens}"
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

    def stages_at(self, when: Literal["before", "after"]) -> list[tuple[int, StageTable]]:
        """The stages before or after reinforcement learning, each with its place in the recipe's list."""
        return [(index, stage) for index, stage in enumerate(self.stages) if stage.when == when]

    def stage_from(self, version: int) -> tuple[int, StageTable] | None:
        """The stage after reinforcement learning that makes the next version of this one, with its place in the list.

        None where an iteration does, and for the last version.
        """
        place, after = version - self.trainer.num_iterations, self.stages_at("after")
        return after[place] if 0 <= place < len(after) else None

    @property
    def last_version(self) -> int:
        """The number of the run's last version: each iteration makes one, and so does each stage that comes after."""
        return self.trainer.num_iterations + len(self.stages_at("after"))

    def evaluates_at(self, version: int) -> bool:
        """Tests whether a version is measured: the first, the last of RL, that of each stage after it, and some
        between."""
        every = self.evaluation.every
        return version == 0 or version >= self.trainer.num_iterations or (every is not None and version % every == 0)
