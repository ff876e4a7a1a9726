"""Supervised fine-tuning: the likelihood of responses is raised, several examples packed in a row (k1.5 §2.5.2)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from perilune.data.examples import Example, Tokens, refuse_long, tokenize
from services.trainer.policy.logprobs import token_logprobs
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import pack_rows
from services.trainer.stages.stage import Stage


class Supervised(Stage):
    """A stage whose steps see a batch of examples each."""

    @abstractmethod
    def example(self, number: int) -> Example:
        """The example of a running number, from 0; numbers are asked for in order, from any one on."""

    def batch(self, step: int) -> list[Example]:
        """The examples of a step."""
        first = step * self.table.batch_size
        return [self.example(first + number) for number in range(self.table.batch_size)]

    def accumulate(self, step: int, reference: Any) -> dict[str, float]:
        """Adds a step's gradient and returns its metrics. InvalidInputError if an example is too long."""
        sequences = tokens_of(self.policy, self.batch(step))
        refuse_long([longest(each) for each in sequences], context_of(self.policy), f"step {step + 1}")
        flat = [sequence for example in sequences for sequence in example]
        return {
            "loss": accumulate_nll(self.policy, flat, self.recipe.trainer.microbatch_tokens),
            "num_tokens": float(sum(len(sequence.tokens) for sequence in flat)),
        }


def accumulate_nll(policy: Policy, sequences: Sequence[Tokens], max_tokens: int) -> float:
    """Adds the gradient of the mean negative log-likelihood over all learnt tokens; returns that mean, in nats.

    `max_tokens`: of one forward and backward pass.
    """
    num_learnt = sum(int(sequence.learnt.sum()) for sequence in sequences)
    total = 0.0
    for row in pack_rows([each.tokens for each in sequences], [each.learnt for each in sequences], max_tokens):
        loss = -token_logprobs(policy.model, row).sum() / num_learnt
        loss.backward()
        total += loss.item()
    return total


def tokens_of(policy: Policy, examples: Sequence[Example]) -> list[list[Tokens]]:
    """Each example's sequences, as the policy reads them."""
    return tokenize(policy.tokenizer, policy.eos_token_id, examples)


def longest(sequences: Sequence[Tokens]) -> int:
    """Tokens of an example's longest sequence."""
    return max(len(sequence.tokens) for sequence in sequences)


def context_of(policy: Policy) -> int | None:
    """The tokens that a policy can read at once; None if its configuration does not say."""
    return getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
