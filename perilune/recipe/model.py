"""`[model]` and `[trainer.adapter]`: the policy at version 0, and what of it is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from perilune.table import ArgumentName, PositiveInt, Table


class CreateVision(Table):
    """An image encoder before the Llama, whose patches it reads through a projector: together a LLaVA."""

    image_size: PositiveInt = 32  # pixels a side that every image is scaled to
    patch_size: PositiveInt = 8  # pixels a side; each patch is one token of the prompt
    hidden_size: PositiveInt = 64
    intermediate_size: PositiveInt = 128
    num_layers: PositiveInt = 2
    num_heads: PositiveInt = 2

    @model_validator(mode="after")
    def _sizes_divide(self) -> CreateVision:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of num_heads {self.num_heads}")
        return self


MAX_WEIGHTS = 10_000_000_000  # of a model that is made on the spot


class CreateModel(Table):
    """A Llama-shaped model made on the spot, with a tokenizer over a task's own words."""

    task: str  # whose vocabulary the tokenizer has: a name in perilune/tasks
    hidden_size: PositiveInt = 128
    intermediate_size: PositiveInt = 384
    num_layers: PositiveInt = 4
    num_heads: PositiveInt = 4
    num_kv_heads: PositiveInt | None = None  # as many as heads, if not given
    max_positions: PositiveInt = 512
    vision: CreateVision | None = None  # gives it an image encoder

    @model_validator(mode="after")
    def _can_be_made(self) -> CreateModel:
        num_weights = self.num_layers * self.hidden_size * (4 * self.hidden_size + 3 * self.intermediate_size)
        if num_weights > MAX_WEIGHTS:
            raise ValueError(
                f"a model of {num_weights:,} weights is no model to make on the spot: at most {MAX_WEIGHTS:,}"
            )
        return self

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
