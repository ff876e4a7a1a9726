"""The policy at version 0: a Hugging Face model from a folder, the hub or a package, or one made on the spot."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from perilune.errors import InvalidInputError
from perilune.models.chat import check_tokenizer, closing_token
from perilune.models.device import Device
from perilune.models.vision import VisionReader, read_processor
from services.trainer.policy.attention import use_packed_attention
from services.trainer.probe import check_images, check_packing


@dataclass(frozen=True)
class Policy:
    """A causal language model in float32, its tokenizer, and the settings of its image processor if it sees.

    The model stays in evaluation mode, in training too: its log-probabilities must be those of the engines, and
    dropout would make the reference and the policy differ by chance.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    processor: Mapping[str, bytes] = field(default_factory=dict)  # its files by name

    def __post_init__(self) -> None:
        """InvalidInputError for a model whose log-probabilities the trainer would compute wrongly."""
        config = self.model.config.get_text_config()
        check_tokenizer(self.tokenizer, config.vocab_size, type(self.model).__name__)
        self.model.eval()
        use_packed_attention(self.model)
        if self.model.device.type != "meta":  # without weights there is nothing to look at
            check_packing(self.model)
            if self.vision:
                check_images(self.model, self.vision)

    def to(self, device: Device) -> Policy:
        """Moves the model, in place; gives the policy itself."""
        self.model.to(str(device))  # type: ignore[arg-type]  # transformers' annotation leaves out what torch takes
        return self

    def save(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Writes a Hugging Face model folder; of these weights, if they are given.

        It is loadable by AutoModelForCausalLM, and by AutoModelForImageTextToText if the model sees.
        """
        self.model.save_pretrained(folder, state_dict=dict(state) if state else None)
        for name, content in self.model_files.items():
            (folder / name).write_bytes(content)

    @cached_property
    def model_files(self) -> dict[str, bytes]:
        """The files of the model's folder beside the weights: configuration and tokenizer. They never change."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.model.config.save_pretrained(folder)
            if self.model.generation_config is not None:
                self.model.generation_config.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            return {file.name: file.read_bytes() for file in sorted(folder.iterdir())} | dict(self.processor)

    @cached_property
    def vision(self) -> VisionReader | None:
        """The reader of its images; None of a model that reads text alone."""
        return read_processor(self.model_files, self.model.config, self.tokenizer)

    @cached_property
    def eos_token_id(self) -> int:
        """Returns what a response ends with: of the model's and the tokenizer's end tokens, the one with which the
        chat template ends what the assistant says, else the first."""
        closing = closing_token(self.tokenizer, self._known_ends)
        return self._known_ends[0] if closing is None else closing

    @property
    def end_tokens(self) -> list[int]:
        """All that may end a response, `eos_token_id` first."""
        return list(dict.fromkeys([self.eos_token_id, *self._known_ends]))

    @cached_property
    def _known_ends(self) -> list[int]:
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        ends = configured if isinstance(configured, list) else [configured]
        known = [token for token in (*ends, self.tokenizer.eos_token_id) if token is not None]
        if not known:
            raise InvalidInputError("the model has no end-of-sequence token; set eos_token_id in its config")
        return known


Prepare = Callable[[PreTrainedTokenizerBase], None]


def unprepared(tokenizer: PreTrainedTokenizerBase) -> None:
    """Changes nothing."""
