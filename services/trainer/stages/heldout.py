"""Says what held-out examples say of a policy while it trains: their loss, and what it answers to their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from perilune.models.masking import Tokens
from perilune.models.probe import plain_attention
from services.trainer.policy.model import Policy
from services.trainer.stages.stage import Generated
from services.trainer.stages.supervised import mean_nll


def heldout_loss(
    policy: Policy, examples: Sequence[Sequence[Tokens]], max_tokens: int, precision: Literal["fp32", "bf16"]
) -> float:
    """The mean negative log-likelihood of all learnt tokens of examples, in nats."""
    return mean_nll(policy, [each for example in examples for each in example], max_tokens, precision)


def generate(policy: Policy, examples: Sequence[Sequence[Tokens]], max_new_tokens: int) -> list[Generated]:
    """The likeliest answers to the prompts of examples, of at most so many tokens; no random number is drawn."""
    if not examples:
        return []
    with plain_attention(policy.model):
        return [_answer(policy, example[-1], max_new_tokens) for example in examples]


def _answer(policy: Policy, sequence: Tokens, max_new_tokens: int) -> Generated:
    """An answer to what comes before the sequence's last response."""
    end = len(sequence.learnt) - int(sequence.learnt[::-1].argmax())
    start = int((~sequence.learnt[:end]).nonzero()[0][-1]) + 1
    prompt, reference = sequence.tokens[:start], sequence.tokens[start:end]
    ids = torch.from_numpy(prompt)[None].to(policy.model.device)
    model: Any = policy.model
    written = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=policy.end_tokens,
        pad_token_id=policy.eos_token_id,
    )
    texts = [prompt, written[0, start:].cpu().numpy(), reference]
    return Generated(*(str(policy.tokenizer.decode(text, skip_special_tokens=True)) for text in texts))
