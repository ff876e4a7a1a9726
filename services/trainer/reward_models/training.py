"""Training of either kind: so many passes over the examples, in an order that the seed decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Parameter
from torch.optim import AdamW

from perilune.data.examples import Example
from perilune.grading.labelled_answers import LabelledAnswer
from services.trainer import optimization
from services.trainer.policy.model import Policy
from services.trainer.reward_models import classic
from services.trainer.reward_models.classic import RewardModel, Triple
from services.trainer.reward_models.plan import Plan
from services.trainer.stages.stage import BETAS, MAX_GRAD_NORM, WEIGHT_DECAY
from services.trainer.stages.supervised import accumulate_nll, tokens_of

OnStep = Callable[[int, float], None]


def train_classic(model: RewardModel, rows: Sequence[LabelledAnswer], plan: Plan, on_step: OnStep) -> None:
    """Trains language model and head on labelled answers. DivergedError: a gradient is not finite.

    on_step: called with each step's number, from 1, and its loss in nats an answer.
    """
    encoded = model.encode([triple_of(row) for row in rows])
    correct = torch.tensor([float(row.correct) for row in rows], device=model.policy.model.device)

    def accumulate(batch: Sequence[int]) -> float:
        total = 0.0
        for row in model.rows([encoded[index] for index in batch], plan.microbatch_tokens):
            labels = correct[[batch[index] for index in row.indices]]
            part = classic.loss(model.logits(row), labels) / len(batch)
            part.backward()
            total += part.item()
        return total

    _train(model.parameters(), len(rows), plan, accumulate, on_step)


def train_judge(policy: Policy, examples: Sequence[Example], plan: Plan, on_step: OnStep) -> None:
    """Supervised fine-tuning on replies: reasoning and verdict. DivergedError: a gradient is not finite.

    on_step: called with each step's number, from 1, and its loss in nats a token of the replies.
    """
    sequences = tokens_of(policy, examples)

    def accumulate(batch: Sequence[int]) -> float:
        return accumulate_nll(policy, [each for index in batch for each in sequences[index]], plan.microbatch_tokens)

    _train(policy.model.parameters(), len(examples), plan, accumulate, on_step)


def triple_of(row: LabelledAnswer) -> Triple:
    """Question, reference and response of a row."""
    return row.question, row.reference, row.response


def _train(
    parameters: Iterable[Parameter],
    num_examples: int,
    plan: Plan,
    accumulate: Callable[[Sequence[int]], float],
    on_step: OnStep,
) -> None:
    """AdamW steps; `accumulate` adds the gradient of a batch's mean loss, and returns that mean."""
    optimizer = AdamW(parameters, lr=plan.learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    num_steps = plan.num_steps(num_examples)
    order = _order(num_examples, math.ceil(num_steps * plan.batch_size / num_examples), plan.seed)
    for step in range(num_steps):
        mean = accumulate(order[step * plan.batch_size : (step + 1) * plan.batch_size].tolist())
        rate = optimization.stage_learning_rate(plan.learning_rate, step, num_steps)
        optimization.step(optimizer, rate, MAX_GRAD_NORM)
        on_step(step + 1, mean)


def _order(num_examples: int, num_passes: int, seed: int) -> NDArray[np.int64]:
    """Every example once a pass, in another order each time."""
    passes = []
    for number in range(num_passes):
        indices = list(range(num_examples))
        Random(f"pass/{seed}/{number}").shuffle(indices)
        passes.append(indices)
    return np.concatenate(passes)
