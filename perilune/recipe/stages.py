"""`[[stages]]`: what runs before and after reinforcement learning; their code is in services/trainer/stages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

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

    @property
    def tasks(self) -> dict[str, str]:
        """The task whose traces are learnt."""
        return {"task": self.task}


class SftStage(StageBase):
    """Supervised fine-tuning on examples of one's own: conversations, prompts with their responses, or plain texts."""

    type: Literal["sft"]
    path: Paths  # files, patterns, or folders that `datasets` saved, in this order
    format: FileFormat | None = None  # if not given, by each file's suffix; arrow: a folder that `datasets` saved
    # Keys of a row, `a.b` for one inside another. A row is a conversation (with the tools that it may call); or a
    # question (text, or a list of {role, content}) with the response to learn; or a prompt with its completion, which
    # no chat template renders where they are text; or a text, all of which is learnt.
    messages: str = "messages"
    tools: str = "tools"
    question: str = "question"
    response: str = "response"
    prompt: str = "prompt"
    completion: str = "completion"
    text: str = "text"
    num_examples: PositiveInt | None = None  # the first so many; if not given, all
    learn: Annotated[list[Role], Field(min_length=1)] = ["assistant"]  # whose messages of a conversation
    max_length: PositiveInt | None = None  # tokens of a sequence; at most, and if not given, the model's context
    too_long: Literal["refuse", "drop", "truncate"] = "refuse"  # examples beyond it; truncate: their last tokens
    broken: Literal["refuse", "drop"] = "refuse"  # rows that are no example; dropped ones are reported
    epochs: PositiveFloat | None = None  # passes over the examples, in place of num_steps
    learning_rate: PositiveFloat = 1e-5
    heldout_path: Paths | None = None  # examples to measure on, in files like `path`
    num_heldout: NonNegativeInt = 0  # or so many of the examples, which the seed chooses; they are not learnt
    evaluate_every: PositiveInt | None = None  # steps between held-out losses; if not given, at the end alone
    num_generated: NonNegativeInt = 0  # held-out prompts that are answered, each time, greedily
    max_generated_tokens: PositiveInt = 128

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, document: Any) -> Any:
        if isinstance(document, dict) and document.get("epochs") and document.get("num_steps", NUM_STEPS) != NUM_STEPS:
            raise ValueError("give epochs or num_steps, and not both")
        return document

    @model_validator(mode="after")
    def _one_heldout(self) -> SftStage:
        if self.heldout_path and self.num_heldout:
            raise ValueError("give heldout_path or num_heldout, and not both")
        return self


StageTable = Annotated[WarmupStage | SftStage, Field(discriminator="type")]
