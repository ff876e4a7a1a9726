"""Supervised fine-tuning: the likelihood of responses is raised, several examples packed in a row (k1.5 §2.5.2)."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from perilune.data.examples import Example
from perilune.errors import InvalidInputError
from perilune.models.masking import Tokens, tokenize
from services.trainer.policy.logprobs import token_logprobs
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import PackedRow, pack_rows
from services.trainer.rows import row_tokens
from services.trainer.stages.showing import images_of, with_images
from services.trainer.stages.stage import Stage


class Supervised(Stage):
    """A stage whose steps see a batch of examples each."""

    @abstractmethod
    def sequences(self, step: int) -> list[Tokens]:
        """The sequences of a step's examples; steps are asked for in order, from any one on."""

    def accumulate(self, step: int, reference: Any) -> dict[str, float]:
        """Adds a step's gradient and returns its metrics. InvalidInputError if an example is too long."""
        sequences, trainer = self.sequences(step), self.recipe.trainer
        return {
            "loss": accumulate_nll(self.policy, sequences, row_tokens(trainer, self.policy.model), trainer.precision),
            "num_tokens": float(sum(len(sequence.tokens) for sequence in sequences)),
        }


def accumulate_nll(
    policy: Policy, sequences: Sequence[Tokens], max_tokens: int, precision: Literal["fp32", "bf16"] = "fp32"
) -> float:
    """Adds the gradient of the mean negative log-likelihood over all learnt tokens; returns that mean, in nats.

    `max_tokens`: of one forward and backward pass.
    """
    num_learnt = sum(int(sequence.learnt.sum()) for sequence in sequences)
    total = 0.0
    for row in rows_of(sequences, max_tokens):
        loss = -row_logprobs(policy, row, precision).sum() / num_learnt
        loss.backward()
        total += loss.item()
    return total


@torch.no_grad()
def mean_nll(
    policy: Policy, sequences: Sequence[Tokens], max_tokens: int, precision: Literal["fp32", "bf16"] = "fp32"
) -> float:
    """The mean negative log-likelihood over all learnt tokens, in nats; no gradient."""
    num_learnt = sum(int(sequence.learnt.sum()) for sequence in sequences)
    rows = rows_of(sequences, max_tokens)
    return -sum(row_logprobs(policy, row, precision).sum().item() for row in rows) / num_learnt


def rows_of(sequences: Sequence[Tokens], max_tokens: int) -> list[PackedRow]:
    """Sequences packed in rows of at most `max_tokens` tokens."""
    tokens, learnt = [each.tokens for each in sequences], [each.learnt for each in sequences]
    return pack_rows(tokens, learnt, max_tokens, [each.images for each in sequences])


def row_logprobs(policy: Policy, row: PackedRow, precision: Literal["fp32", "bf16"] = "fp32") -> Tensor:
    """`token_logprobs` of a row, in a precision; shape (S,)."""
    autocast = torch.autocast(policy.model.device.type, torch.bfloat16)
    with autocast if precision == "bf16" else contextlib.nullcontext():
        return token_logprobs(policy.model, row)


def tokens_of(policy: Policy, examples: Sequence[Example]) -> list[list[Tokens]]:
    """Each example's sequences, as the policy reads them. InvalidInputError: it has images, and the policy cannot."""
    images = [images_of(example) for example in examples]
    if policy.vision is None and any(images):
        raise InvalidInputError("an example has images, and this model reads text only")
    found = tokenize(policy.tokenizer, policy.end_tokens, examples)
    return [
        [with_images(each, shown, policy.vision, is_whole=each is sequences[-1]) for each in sequences]
        for sequences, shown in zip(found, images, strict=True)
    ]


def longest(sequences: Sequence[Tokens]) -> int:
    """Tokens of an example's longest sequence."""
    return max(len(sequence.tokens) for sequence in sequences)


def context_of(policy: Policy) -> int | None:
    """The tokens that a policy can read at once; None if its configuration does not say."""
    return getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
