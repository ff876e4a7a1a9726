"""`[prompts]`: where prompts come from; their code is in services/master/prompts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from perilune.images.rendering import RenderTable
from perilune.recipe.environments import EnvironmentName
from perilune.recipe.samplers import SamplerTable, UniformSampler
from perilune.table import NumGenerated, Options, Paths, PositiveInt, Share, Table


def _with_question(template: str) -> str:
    if "{question}" not in template:
        raise ValueError("every prompt would be the same text: write {question} where the question goes")
    return template


QuestionTemplate = Annotated[str, AfterValidator(_with_question)]


class PromptsBase(Table):
    """Describes what every source of prompts has."""

    sampler: SamplerTable = UniformSampler(type="uniform")
    render: RenderTable | None = None  # draws questions that are text: the same answers, to be read off pictures


class TaskPrompts(PromptsBase):
    """Problems from one of Perilune's own generators: endless, so held-out ones are never seen in training."""

    source: Literal["task"]
    name: str
    num_train: NumGenerated = 20_000
    num_heldout: NumGenerated = 500
    options: Options = {}
    noise: Share = 0.0  # of each pixel of what the task draws; 1: nothing is left to see


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
    # Keys of images, each one or a list; if not given, `image` and `images` where a row has them; []: none.
    images: list[str] | None = None
    max_images: PositiveInt = 16  # of a prompt; one with more is left out
    convert_images: bool = False  # take transparent, animated, CMYK and 16-bit images too, as 8-bit RGB over white
    # The key of what the policy talks to at this prompt: a kind's name, its table as [rollout.environment] has it, or
    # "none"; null or empty: as the recipe says. Rows may name the kinds in `environments`.
    environment: str | None = None
    environments: list[EnvironmentName] = []
    template: QuestionTemplate = "{question}"  # around questions that are text
    system: str | None = None  # the first message, of conversations that have no system message of their own
    skip_invalid: bool = False  # leave rows out that cannot be used, count them and say why; else they are errors

    @model_validator(mode="after")
    def _names_environments(self) -> RowPrompts:
        if (self.environment is None) != (not self.environments):
            raise ValueError(
                "prompts.environment is the key of a row's environment, and prompts.environments has the kinds that "
                "rows may name: write both, or neither"
            )
        return self


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


def _with_labels(question: str) -> str:
    if "{labels}" not in question:
        raise ValueError("the answers would not be named: write {labels} where the names of the folders go")
    return question


class FolderPrompts(PromptsBase):
    """Pictures of one's own: a folder that has a folder of them for each label."""

    source: Literal["folder"]
    path: str
    num_heldout: PositiveInt = 100  # the last so many, in an order that mixes the labels
    question: Annotated[str, AfterValidator(_with_labels)] = (
        "Which of these does the picture show: {labels}? End with answer: and one of them."
    )
    convert_images: bool = False  # as in rows


PromptsTable = Annotated[
    TaskPrompts | ReasoningGymPrompts | JsonlPrompts | HuggingFacePrompts | FilePrompts | FolderPrompts,
    Field(discriminator="source"),
]
