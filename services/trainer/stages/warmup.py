"""Supervised fine-tuning on reasoning traces before reinforcement learning (k1.5 §2.2).

Only the response and the end of sequence after it are learnt; several examples are packed in a row (§2.5.2).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.optim import AdamW

from perilune.data.jsonlines import lines_of, parse_object
from perilune.data.rows import kind_of, messages_of, plain_text
from perilune.errors import InvalidInputError, RecipeError
from perilune.models.chat import prompt_ids
from perilune.recipe import Recipe, WarmupTable
from perilune.tasks import find_task
from services.trainer import optimization
from services.trainer.learner import InterruptedTraining, never
from services.trainer.policy.logprobs import token_logprobs
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import pack_rows

logger = logging.getLogger(__name__)

BETAS, WEIGHT_DECAY, MAX_GRAD_NORM = (0.9, 0.95), 0.01, 1.0
NUM_OF_TASK = 20_000  # different examples, where the recipe does not say how many
CHECKED_AT_ONCE = 1_000

Example = tuple[list[dict[str, str]], str]  # the messages of a prompt, and the response to learn


def warm_up(
    policy: Policy,
    recipe: Recipe,
    should_stop: Callable[[], bool] = never,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> float:
    """Trains the policy in place on the recipe's traces; does nothing without a [warmup] table.

    Args:
        should_stop: asked before every step.
        on_step: told each step's number, from 1, and its loss in nats a response token.

    Returns:
        The last step's loss; NaN where there was no step.

    Raises:
        InterruptedTraining: should_stop said so.
        RecipeError, NotFoundError, InvalidInputError: the traces cannot be made or read, or are too long.
        DivergedError: a gradient is not finite.
    """
    table, loss = recipe.warmup, float("nan")
    if table is None:
        return loss
    if table.path is not None:
        _check_file(policy, table, should_stop)
    optimizer = AdamW(
        policy.model.parameters(), lr=table.learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    for step, examples in enumerate(batches(table, recipe.seed)):
        if should_stop():
            raise InterruptedTraining
        loss = _accumulate(policy, examples, recipe.trainer.microbatch_tokens)
        rate = optimization.warmup_learning_rate(table.learning_rate, step, table.num_steps)
        optimization.step(optimizer, rate, MAX_GRAD_NORM)
        on_step(step + 1, loss)
    return loss


def batches(table: WarmupTable, seed: int) -> Iterator[list[Example]]:
    """One batch a step. Examples come round again when all of them were seen; the seed decides them and their order."""
    example = _task_examples(table, seed) if table.task is not None else _file_examples(table, seed)
    for step in range(table.num_steps):
        yield [example(step * table.batch_size + number) for number in range(table.batch_size)]


def _task_examples(table: WarmupTable, seed: int) -> Callable[[int], Example]:
    assert table.task is not None
    task = find_task(table.task)
    # Options shape the problems or the traces, whichever of the two has a parameter of that name.
    for_problem = {key: value for key, value in table.options.items() if key in signature(task.problem).parameters}
    for_trace = {key: value for key, value in table.options.items() if key not in for_problem}

    def example(number: int) -> Example:
        index = number % (table.num_examples or NUM_OF_TASK)
        try:
            problem = task.problem(seed, index, **for_problem)  # type: ignore[arg-type]  # checked by calling it
            trace = task.trace(problem, Random(f"trace/{seed}/{index}"), **for_trace)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"warmup.options do not fit task {table.task!r}: {error}") from error
        return [{"role": "user", "content": task.question(problem)}], trace

    return example


def _file_examples(table: WarmupTable, seed: int) -> Callable[[int], Example]:
    assert table.path is not None
    examples = read_examples(Path(table.path))[: table.num_examples]

    def example(number: int) -> Example:
        epoch, place = divmod(number, len(examples))
        if place == 0:  # a new order every epoch
            Random(f"epoch/{seed}/{epoch}").shuffle(examples)
        return examples[place]

    return example


def _check_file(policy: Policy, table: WarmupTable, should_stop: Callable[[], bool]) -> None:
    """Says how much of a file is seen, and refuses examples that are too long before the first step."""
    assert table.path is not None
    examples = read_examples(Path(table.path))
    num_used, num_seen = len(examples[: table.num_examples]), table.num_steps * table.batch_size
    logger.info(
        "%s holds %d examples; %d are used, %d are learnt from in all", table.path, len(examples), num_used, num_seen
    )
    lengths: list[int] = []
    for start in range(0, num_used, CHECKED_AT_ONCE):
        if should_stop():
            raise InterruptedTraining
        tokens, _ = tokenize(policy, examples[start : min(start + CHECKED_AT_ONCE, num_used)])
        lengths += map(len, tokens)
    _refuse_long(policy, lengths, f"examples of warmup.path {table.path}")


def _refuse_long(policy: Policy, lengths: Sequence[int], what: str) -> None:
    """InvalidInputError if some have more tokens than the model can read; `what` says of what they are the lengths."""
    context = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
    long = [number for number, length in enumerate(lengths, start=1) if context is not None and length > context]
    if long:
        raise InvalidInputError(
            f"{len(long)} of {len(lengths)} {what} have more tokens than the model's context of {context}, the longest "
            f"{max(lengths)}; the first is number {long[0]}: shorten or remove them, or take a model with more context"
        )


def read_examples(path: Path) -> list[Example]:
    """A JSONL file with `question` (text, or a list of {role, content}) and `response` on every line.

    NotFoundError: no such file. InvalidInputError: no examples, or a line that is none, by its number.
    """
    examples = [_read_example(line, f"{path}:{number}") for number, line in lines_of(path, "warmup.path")]
    if not examples:
        raise InvalidInputError(f"warmup.path {path} holds no examples")
    return examples


def _read_example(line: bytes, place: str) -> Example:
    row = parse_object(line, place)
    missing = [key for key in ("question", "response") if key not in row]
    if missing:
        raise InvalidInputError(f"{place}: expected a JSON object with `question` and `response`, not {kind_of(row)}")
    question, response = row["question"], plain_text(row["response"], place, "response")
    if isinstance(question, list):
        return messages_of(question, place, "question"), response
    return [{"role": "user", "content": plain_text(question, place, "question")}], response


def tokenize(policy: Policy, examples: list[Example]) -> tuple[list[NDArray[np.int64]], list[NDArray[np.bool_]]]:
    """Token ids of prompt, response and end of sequence, and for each token whether it is learnt."""
    questions, answers = zip(*examples, strict=True)
    tokenizer: Any = policy.tokenizer
    prompts = [prompt_ids(tokenizer, question) for question in questions]
    responses = tokenizer(list(answers), add_special_tokens=False)["input_ids"]
    tokens, learnt = [], []
    for prompt, response in zip(prompts, responses, strict=True):
        tokens.append(np.array([*prompt, *response, policy.eos_token_id], np.int64))
        learnt.append(np.arange(len(tokens[-1])) >= len(prompt))
    return tokens, learnt


def _accumulate(policy: Policy, examples: list[Example], max_tokens: int) -> float:
    """Adds the gradient of the mean negative log-likelihood over all the batch's learnt tokens; returns that mean."""
    tokens, learnt = tokenize(policy, examples)
    _refuse_long(policy, [len(each) for each in tokens], "examples of a warm-up's step")
    num_learnt = sum(int(mask.sum()) for mask in learnt)
    total = 0.0
    for row in pack_rows(tokens, learnt, max_tokens):
        loss = -token_logprobs(policy.model, row).sum() / num_learnt
        loss.backward()
        total += loss.item()
    return total
