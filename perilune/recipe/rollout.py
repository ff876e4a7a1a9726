"""`[rollout]`: how responses are sampled, and how far sampling may run ahead of training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, model_validator

from perilune.recipe.engines import EngineTable, TorchEngineTable
from perilune.recipe.environments import EnvironmentTable
from perilune.table import NonNegativeInt, PositiveInt, Table

MAX_GROUP_SIZE = 4096  # of which a rollout worker takes one task
MAX_RUNNING = 1 << 20  # for which an engine makes places
MAX_UNDER_WAY = 10_000_000  # samples


class RepetitionTable(Table):
    """Describes when a response that repeats itself is ended (k1.5 §2.6.2); services/rollout/repetition.py has the
    rule."""

    min_tokens: PositiveInt = 384  # that were copied, less what did not fit
    min_repeats: PositiveInt = 6  # copies
    similarity: Annotated[float, Field(gt=0.5, le=1)] = 0.9  # of each copy to the one before; 1: exact


class RolloutTable(Table):
    """Describes how responses are sampled, and how far sampling may run ahead of training (k1.5 §2.6)."""

    engine: EngineTable = TorchEngineTable()
    prompts_per_iteration: PositiveInt = 64
    group_size: Annotated[int, Field(ge=2, le=MAX_GROUP_SIZE)] = 8  # k: responses to one prompt
    temperature: PositiveFloat = 1.0  # what is trained is the policy at this temperature
    # These two are for runs that only evaluate: what is trained on is drawn from all of the vocabulary.
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: NonNegativeInt = 0  # 0: no truncation
    max_tokens: PositiveInt = 256  # of a response
    stop: list[Annotated[str, Field(min_length=1)]] = []
    # Whether graders, environments and the page see the model's special tokens in a response, such as `<think>` or
    # `<|tool_call|>` where they are ones; the token that ends a response is never shown.
    keep_special_tokens: bool = False
    max_running: Annotated[int, Field(gt=0, le=MAX_RUNNING)] = (
        256  # samples that one worker has in hand, and its engine decodes at once
    )
    # Partial rollouts: response tokens a trajectory may get in one iteration; the rest is written in later ones.
    budget_tokens: PositiveInt | None = None
    # How many versions old a token in the loss may be when it is trained on.
    max_staleness: NonNegativeInt = 0
    # Whether max_staleness is also how many iterations sampling may be ahead of training; if not, it waits.
    asynchronous: bool = False
    # With trainer.drop_uniform_groups: how many more draws of prompts_per_iteration an iteration may make, one at a
    # time, until that many groups are left to train on (DAPO's dynamic sampling, arXiv:2503.14476 §3.2).
    max_refills: NonNegativeInt = 0
    repetition: RepetitionTable | None = None
    # The policy's counterpart, of prompts that name none of their own.
    environment: EnvironmentTable | None = None

    @model_validator(mode="after")
    def _master_can_hold_it(self) -> RolloutTable:
        ahead = self.max_staleness if self.asynchronous else 0
        count = self.prompts_per_iteration * self.group_size * (1 + ahead) * (1 + self.max_refills)
        if count > MAX_UNDER_WAY:
            raise ValueError(
                f"prompts_per_iteration x group_size x what may be ahead or drawn once more makes {count:,} samples "
                f"under way at once, which the master lists in memory; at most {MAX_UNDER_WAY:,} may be"
            )
        return self

    @model_validator(mode="after")
    def _may_be_ahead(self) -> RolloutTable:
        if self.asynchronous and not self.max_staleness:
            raise ValueError("rollout.asynchronous needs rollout.max_staleness of at least 1")
        return self
