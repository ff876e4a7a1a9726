"""`[[stages]]`: what runs before and after reinforcement learning; their code is in services/trainer/stages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from perilune.table import Options, Paths, PositiveInt, Table


class StageBase(Table):
    """A stage: optimiser steps on data of its own; its kinds are in services/trainer/stages."""

    type: str
    when: Literal["before", "after"] = "before"  # reinforcement learning; stages run in the order of the list
    num_steps: PositiveInt = 500
    batch_size: PositiveInt = 64  # examples of a step
    # At its peak: a tenth of the steps, at most 50, lead up to it, and a half cosine down to 0.
    learning_rate: PositiveFloat = 1e-3
    checkpoint_every: PositiveInt = 200  # steps; a trainer that is killed goes on from the last of these

    @property
    def tasks(self) -> dict[str, str]:
        """The tasks of `perilune/tasks` that the stage learns from, by the key that names each."""
        return {}


class WarmupStage(StageBase):
    """Supervised fine-tuning on reasoning traces of one of Perilune's own tasks (k1.5 §2.2)."""

    type: Literal["warmup"]
    task: str  # a name in perilune/tasks that can write traces
    options: Options = {}  # of the task's problems and of their traces
    num_examples: PositiveInt = 20_000  # different ones; then they come round again

    @property
    def tasks(self) -> dict[str, str]:
        """The task whose traces are learnt."""
        return {"task": self.task}


class SftStage(StageBase):
    """Supervised fine-tuning on examples of one's own, in JSON lines: conversations, or questions with a response."""

    type: Literal["sft"]
    path: Paths  # a file, or a list of them, in this order
    # Keys of a row, `a.b` for one inside another. A row is a conversation, in which all that the assistant says is
    # learnt; or a question (text, or a list of {role, content}) with the response to learn.
    messages: str = "messages"
    question: str = "question"
    response: str = "response"
    num_examples: PositiveInt | None = None  # the first so many; if not given, all
    learning_rate: PositiveFloat = 1e-5


StageTable = Annotated[WarmupStage | SftStage, Field(discriminator="type")]
