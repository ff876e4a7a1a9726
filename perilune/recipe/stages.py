"""`[warmup]`: supervised fine-tuning before reinforcement learning."""

from __future__ import annotations

from pydantic import PositiveFloat, model_validator

from perilune.table import Options, PositiveInt, Table


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
