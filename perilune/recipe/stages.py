"""`[[stages]]`: what runs before and after reinforcement learning; their code is in services/trainer/stages."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from perilune.images.rendering import RenderTable
from perilune.table import NonNegativeInt, Options, Paths, PositiveInt, Share, Table

NUM_STEPS = 500
FileFormat = Literal["jsonl", "json", "parquet", "csv", "tsv", "arrow"]
Role = Literal["system", "developer", "user", "assistant", "tool"]


class StageBase(Table):
    """A stage: optimiser steps on data of its own; its kinds are in services/trainer/stages."""

    type: str
    when: Literal["before", "after"] = "before"  # reinforcement learning; stages run in the order of the list
    num_steps: PositiveInt = NUM_STEPS
    batch_size: PositiveInt = 64  # examples of a step
    learning_rate: PositiveFloat = 1e-3  # at its peak
    # A ramp up over the first steps (a tenth of them, at most 50, if not given), times the schedule down from the peak.
    warmup_steps: NonNegativeInt | None = None
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # cosine: half a wave of it
    final_learning_rate: NonNegativeFloat = 0.0  # where cosine and linear end
    betas: tuple[Share, Share] = (0.9, 0.95)  # of AdamW
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
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
    render: RenderTable | None = None  # draws the questions, as [prompts.render] does

    @property
    def tasks(self) -> dict[str, str]:
        """The task whose traces are learnt."""
        return {"task": self.task}


class RowsStage(StageBase):
    """A stage on rows of files: what of them is read, and what happens to those that cannot be."""

    path: Paths  # files, patterns, or folders that `datasets` saved, in this order
    format: FileFormat | None = None  # if not given, by each file's suffix; arrow: a folder that `datasets` saved
    # Keys of a row, `a.b` for one inside another. A question is text of the user, or a list of {role, content}; a
    # prompt that is text is rendered by no chat template.
    question: str = "question"
    prompt: str = "prompt"
    tools: str = "tools"  # that a conversation may call
    num_examples: PositiveInt | None = None  # the first so many; if not given, all
    max_length: PositiveInt | None = None  # tokens of a sequence; at most, and if not given, the model's context
    too_long: Literal["refuse", "drop", "truncate"] = "refuse"  # examples beyond it; truncate: their last tokens
    broken: Literal["refuse", "drop"] = "refuse"  # rows that are no example; dropped ones are reported
    epochs: PositiveFloat | None = None  # passes over the examples, in place of num_steps

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, document: Any) -> Any:
        if isinstance(document, dict) and document.get("epochs") and document.get("num_steps", NUM_STEPS) != NUM_STEPS:
            raise ValueError("give epochs or num_steps, and not both")
        return document

    def num_steps_of(self, num_examples: int) -> int:
        """The optimiser steps on so many examples: `num_steps`, or as many as `epochs` take."""
        if self.epochs is None:
            return self.num_steps
        return max(1, math.ceil(self.epochs * num_examples / self.batch_size))

    def num_of_step(self, step: int, num_examples: int) -> int:
        """The examples of a step, from 0: of the last one, those that are left of `epochs`."""
        if self.epochs is None:
            return self.batch_size
        return min(self.batch_size, max(1, round(self.epochs * num_examples) - step * self.batch_size))


class SftStage(RowsStage):
    """Supervised fine-tuning on examples of one's own: conversations, prompts with their responses, or plain texts."""

    type: Literal["sft"]
    # More keys of a row. It is a conversation; or a question with the response to learn; or a prompt with its
    # completion; or a text, all of which is learnt.
    messages: str = "messages"
    response: str = "response"
    completion: str = "completion"
    text: str = "text"
    learn: Annotated[list[Role], Field(min_length=1)] = ["assistant"]  # whose messages of a conversation
    learning_rate: PositiveFloat = 1e-5
    heldout_path: Paths | None = None  # examples to measure on, in files like `path`
    num_heldout: NonNegativeInt = 0  # or so many of the examples, which the seed chooses; they are not learnt
    evaluate_every: PositiveInt | None = None  # steps between held-out losses; if not given, at the end alone
    num_generated: NonNegativeInt = 0  # held-out prompts that are answered, each time, greedily
    max_generated_tokens: PositiveInt = 128

    @model_validator(mode="after")
    def _one_heldout(self) -> SftStage:
        if self.heldout_path and self.num_heldout:
            raise ValueError("give heldout_path or num_heldout, and not both")
        return self


class DpoStage(RowsStage):
    """Direct preference optimisation (DPO, arXiv:2305.18290): the better one of two answers becomes likelier."""

    type: Literal["dpo"]
    # More keys of a row: the answers, as text or messages. Without a question or a prompt both are whole conversations.
    chosen: str = "chosen"
    rejected: str = "rejected"
    beta: PositiveFloat = 0.1  # how far the policy may go from what it was at the stage's start: less is farther
    batch_size: PositiveInt = 32  # pairs
    learning_rate: PositiveFloat = 1e-6


StageTable = Annotated[WarmupStage | SftStage | DpoStage, Field(discriminator="type")]
