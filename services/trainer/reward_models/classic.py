"""The classic reward model: a value head on a causal language model (k1.5 §2.3.5).

It reads question, reference and response, and gives the probability that the response is right: the sigmoid of a linear
function of the last token's hidden state.

The loss is pointwise, binary cross-entropy. A label here says whether an answer is right, not that one is better than
another, so that pairs (Bradley and Terry's loss) would throw away what is known: their values have no zero, and no
threshold that holds from one question to the next. The mean of the cross-entropy is a proper score: what minimises it
is the probability itself, which the value then is wherever the model can tell.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from perilune.errors import InvalidInputError, NotFoundError
from perilune.models.device import CPU, Device
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import PackedRow, pack_rows
from services.trainer.policy.sources import load_policy

CONFIG, HEAD = "reward_model.json", "value_head.safetensors"

# A question, a reference, a response.
Triple = tuple[str, str, str]


class RewardModel:
    """A language model with a value head.

    Args:
        policy: the language model; its own head stays unused.
        max_tokens: of a question, reference and response together. Where they are longer, the response loses its
            beginning, for answers stand at the end.
    """

    def __init__(self, policy: Policy, max_tokens: int) -> None:
        self.policy = policy
        self.max_tokens = min(max_tokens, policy.model.config.get_text_config().max_position_embeddings)
        # From zero: at first every value is one half and the loss log 2, whatever the language model.
        self.head = nn.Linear(policy.model.config.get_text_config().hidden_size, 1, device=policy.model.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters: all but an output embedding that is of no use here."""
        return [*self.policy.model.base_model.parameters(), *self.head.parameters()]

    def encode(self, triples: Sequence[Triple]) -> list[NDArray[np.int64]]:
        """Token ids of each triple, and a last one that is no input: the value stands where it would be predicted."""
        tokenizer: Any = self.policy.tokenizer
        openings = tokenizer(
            [opening_of(question, reference) for question, reference, _ in triples], add_special_tokens=False
        )["input_ids"]
        responses = tokenizer([response for _, _, response in triples], add_special_tokens=False)["input_ids"]
        begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        room = self.max_tokens - len(begin)
        encoded = []
        for opening, response in zip(openings, responses, strict=True):
            kept = opening[-(room // 2) :]
            last = response[-(room - len(kept)) :]
            encoded.append(np.array([*begin, *kept, *last, self.policy.eos_token_id], np.int64))
        return encoded

    def rows(self, encoded: Sequence[NDArray[np.int64]], max_tokens: int) -> list[PackedRow]:
        """The encoded triples packed, at most so many tokens a row."""
        return pack_rows(encoded, [np.arange(len(tokens)) == len(tokens) - 1 for tokens in encoded], max_tokens)

    def logits(self, row: PackedRow) -> Tensor:
        """log(p / (1 - p)) of each sequence of a row being right, shape (N,), where the model is."""
        row = row.to(self.policy.model.device)
        hidden = self.policy.model.base_model(
            input_ids=row.tokens_T[None], position_ids=row.positions_T[None], use_cache=False, layout=row.layout
        ).last_hidden_state[0]
        return self.head(hidden.index_select(0, row.scored_S)).squeeze(-1)

    @torch.inference_mode()
    def probabilities(self, triples: Sequence[Triple], max_tokens: int = 8192) -> list[float]:
        """The probability that each response is right."""
        found = [0.0] * len(triples)
        for row in self.rows(self.encode(triples), max_tokens):
            for index, value in zip(row.indices, torch.sigmoid(self.logits(row)).tolist(), strict=True):
                found[index] = value
        return found

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        """Writes a Hugging Face model folder with the head beside the model, and what is known about both."""
        self.policy.save(folder)
        safetensors.torch.save_file(self.head.state_dict(), folder / HEAD)
        config = {"max_tokens": self.max_tokens, **facts}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, device: Device = CPU) -> RewardModel:
        """Loads what `save` wrote. NotFoundError, InvalidInputError: there is no such thing in the folder."""
        config = read_config(folder)
        model = cls(load_policy(str(folder)).to(device), int(config["max_tokens"]))
        try:
            model.head.load_state_dict(safetensors.torch.load_file(folder / HEAD))
        except (OSError, safetensors.SafetensorError, RuntimeError) as error:
            raise InvalidInputError(f"{folder / HEAD} is no value head of this model: {error}") from error
        return model


def opening_of(question: str, reference: str) -> str:
    """The text that the model reads before the response."""
    asked = f"question {question}\n" if question.strip() else ""
    return f"{asked}reference {reference}\nresponse "


def read_config(folder: Path) -> dict[str, Any]:
    """The description saved beside a value head. NotFoundError if there is none."""
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise NotFoundError(
            f"{folder} holds no reward model ({CONFIG} and {HEAD}); `perilune reward train` makes one: {error}"
        ) from error


def loss(logits_N: Tensor, correct_N: Tensor) -> Tensor:
    """Binary cross-entropy, summed over the sequences, in nats: -log p for a right one, -log(1 - p) for a wrong one."""
    return F.binary_cross_entropy_with_logits(logits_N, correct_N, reduction="sum")
