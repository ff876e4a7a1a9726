"""A Hugging Face folder as an embedding model: a text's vector is the mean of the last layer over its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from perilune.errors import InvalidInputError


class MeanPooled:
    """An embedding model in memory. InvalidInputError: the folder holds none that transformers can read."""

    def __init__(self, folder: str, max_tokens: int) -> None:
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            self._model = AutoModel.from_pretrained(folder).eval()
        except (OSError, ValueError, KeyError) as error:  # what transformers raises for files that it cannot read
            raise InvalidInputError(f"{folder} holds no embedding model: {error}") from error
        self._tokenizer.pad_token = self._tokenizer.pad_token or self._tokenizer.eos_token
        self._max_tokens = max_tokens

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A vector for each text, shape (B, D), of any length; texts are cut at `max_tokens`."""
        options = {"padding": True, "truncation": True, "max_length": self._max_tokens, "return_tensors": "pt"}
        tokens = self._tokenizer(list(texts), **options)
        if self._model.config.model_type == "llama":
            tokens.pop("token_type_ids", None)
        hidden_BSD = self._model(**tokens).last_hidden_state
        is_text_BS1 = tokens["attention_mask"][:, :, None]
        mean_BD = (hidden_BSD * is_text_BS1).sum(1) / is_text_BS1.sum(1)
        return mean_BD.float().numpy()
