"""The plan of warm-up data: one TOML file, or the defaults for a file of questions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from perilune.completions import ModelTable
from perilune.curation.reading import InputTable
from perilune.recipe import GraderTable, PositiveInt, Table
from perilune.warmup_data.behaviours import BEHAVIOURS

ENDING = "\n\nEnd with the final answer alone on the last line, as \\boxed{...}."
STYLES = {
    "planning": "{question}\n\nBefore you calculate, lay out a plan: name the steps that lead to the answer. Then "
    "carry them out one by one." + ENDING,
    "evaluation": "{question}\n\nSolve this step by step. After each step, check whether it is right: calculate it in "
    "another way, or put the result back into the question." + ENDING,
    "reflection": "{question}\n\nThink aloud. Where something looks wrong, say so, find the mistake, and correct it "
    "before you go on. Look at the whole solution once more at the end." + ENDING,
    "exploration": "{question}\n\nConsider at least two different ways to solve this. Try each of them, say which one "
    "works better, and compare what they give." + ENDING,
}


class BalanceTable(Table):
    """`[balance]`: which of the right paths are kept."""

    num_paths: PositiveInt | None = None  # at most; if not given, as many as the other keys allow
    max_per_question: PositiveInt = 4
    max_ratio: Annotated[float, Field(ge=1)] = 4.0  # of the paths that show a behaviour, to those of the rarest one
    min_behaviours: Annotated[int, Field(ge=0, le=len(BEHAVIOURS))] = 1  # that a path shows, to be kept
    max_words: PositiveInt | None = None  # of a path


class WarmupDataPlan(BaseModel):
    """Describes what is asked, of which model, and what is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: InputTable
    num_questions: PositiveInt | None = None  # the first so many; if not given, all
    writer: ModelTable = ModelTable()  # the model whose paths are sampled; `template` is put around every style
    graders: list[GraderTable] = []
    styles: dict[str, str] = STYLES  # prompts by their names, each with {question} in it
    num_samples: PositiveInt = 2  # of each style, to each question
    labeller: ModelTable = ModelTable(temperature=0.0, max_tokens=128)  # a model that names behaviours; else rules do
    balance: BalanceTable = BalanceTable()
    seed: int = 0
    parquet: bool = False  # write warmup.parquet beside warmup.jsonl

    @model_validator(mode="before")
    @classmethod
    def _with_settings_of_a_labeller(cls, document: Any) -> Any:
        """A labeller is asked at temperature 0 for a short answer, unless the plan says something else."""
        if isinstance(document, dict) and isinstance(document.get("labeller"), dict):
            return document | {"labeller": {"temperature": 0.0, "max_tokens": 128} | document["labeller"]}
        return document

    @model_validator(mode="after")
    def _asks_its_questions(self) -> WarmupDataPlan:
        for name, prompt in self.styles.items():
            if "{question}" not in prompt:
                raise ValueError(f"styles.{name} does not ask the question: write {{question}} where it goes")
        if not self.styles:
            raise ValueError("styles: there is no prompt to ask with")
        return self
