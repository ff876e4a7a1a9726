"""One iteration of reinforcement learning on a language model, in one process and from top to bottom.

The services do the same with a bus between the steps (docs/architecture.md, "The life of a sample"). Here a tiny Llama
answers "which two of 9 15 4 make 19 ?", is graded, and takes one step of the k1.5 objective (arXiv:2501.12599, §2.3):

    draw prompts → sample k responses to each → grade → advantages → loss → step → the next version

    python examples/one_iteration.py            # under a minute on one core
    python examples/one_iteration.py --help     # sizes
"""

from __future__ import annotations

import argparse
import queue
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion, Prompt
from perilune.objectives import k15
from perilune.recipe import Recipe, check_recipe
from services.master.prompts import PromptSet, open_prompts
from services.master.samplers.uniform import epochs
from services.reward.graders import find_grader
from services.reward.graders.grader import GradingSample
from services.rollout.engines import make_engine
from services.rollout.engines.base import EngineSpec, Generated, SampleRequest, Sampling
from services.rollout.tokenizer import read_prompt
from services.trainer import optimization
from services.trainer.policy.logprobs import sequence_logprobs, token_logprobs
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import pack_rows
from services.trainer.policy.sources import make_policy
from services.trainer.rows import row_tokens
from services.trainer.stages.runner import run_stages
from services.trainer.versions.snapshot import snapshot

MAX_TOKENS = 32  # of a response
TAU = 0.1  # how strongly later steps are pulled back to the policy that sampled
KV_CACHE_BYTES = 256 << 20


@dataclass(frozen=True)
class Scored:
    """One response with what the loss needs of it."""

    prompt: Prompt
    text: str
    tokens: np.ndarray  # the prompt's, then the response's
    num_prompt_tokens: int
    reward: float


def recipe_of(warmup_steps: int, seed: int) -> Recipe:
    """A recipe as a TOML file would say it; all that is not said has its default."""
    three = {"num_numbers": 3}
    return check_recipe(
        {
            "name": "one-iteration",
            "seed": seed,
            "model": {"create": {"task": "search", "hidden_size": 64, "num_layers": 2, "max_positions": 64}},
            "stages": [
                {
                    "type": "warmup",
                    "task": "search",
                    "options": three,
                    "num_steps": warmup_steps,
                    "learning_rate": 3e-3,
                }
            ],
            "prompts": {"source": "task", "name": "search", "options": three},
            "rollout": {"max_tokens": MAX_TOKENS},
            "reward": {"graders": [{"name": "exact", "options": {"marker": "answer:", "unordered": True}}]},
            "trainer": {"num_iterations": 1, "objective": {"tau": TAU}, "learning_rate": 1e-3},
        }
    )


def sample(policy: Policy, version: int, prompts: Sequence[Prompt], group_size: int, seed: int) -> list[Generated]:
    """k responses to each prompt, drawn by the embedded engine from this version of the policy."""
    published = snapshot(policy, version, torch.float32)
    delivered: queue.SimpleQueue[Sequence[Generated]] = queue.SimpleQueue()
    stamp = PolicyVersion(number=version, digest=published.policy.digest)
    engine = make_engine(
        EngineSpec(
            model_files=policy.model_files,
            policy=stamp,
            tensors=published.state.tensors,
            deliver=delivered.put,
            max_running=len(prompts) * group_size,
            kv_cache_bytes=KV_CACHE_BYTES,
        )
    )
    for number, prompt in enumerate(prompts):
        tokens = read_prompt(prompt, policy.tokenizer, engine.max_context).tokens
        engine.submit(
            [
                SampleRequest(f"{number}/{index}", tokens, MAX_TOKENS, Sampling(temperature=1.0), seed + number, index)
                for index in range(group_size)
            ]
        )
    done: list[Generated] = []
    while len(done) < len(prompts) * group_size:
        done += delivered.get()
    engine.close()
    return sorted(done, key=lambda generated: tuple(map(int, generated.sample.id.split("/"))))


def grade(policy: Policy, recipe: Recipe, prompts: Sequence[Prompt], generated: Sequence[Generated]) -> list[Scored]:
    """The reward of each response: 1 if its last answer is the reference, else 0."""
    table = recipe.reward.graders[0]
    grader = find_grader(table.name)
    options = grader.read_options({key: str(value).lower() for key, value in table.options.items()})
    scored = []
    for each in generated:
        prompt = prompts[int(each.sample.id.split("/")[0])]
        written = np.concatenate([span.tokens for span in each.spans])
        text = str(policy.tokenizer.decode(written.tolist(), skip_special_tokens=True))
        verdict = grader.grade(GradingSample(prompt.messages[-1].content, prompt.reference, text), options)
        assert verdict is not None  # this grader always decides
        assert verdict.value is not None
        tokens = np.concatenate([each.sample.tokens, written]).astype(np.int64)
        scored.append(Scored(prompt, text, tokens, len(each.sample.tokens), verdict.value))
    return scored


def advantages_of(scored: Sequence[Scored], group_size: int) -> list[float]:
    """Each response's reward, less the mean of its group."""
    groups = [scored[start : start + group_size] for start in range(0, len(scored), group_size)]
    return [value for group in groups for value in k15.advantages([each.reward for each in group], "mean", TAU)]


def take_step(policy: Policy, scored: Sequence[Scored], advantages: Sequence[float], recipe: Recipe) -> float:
    """One optimiser step on all responses; returns the gradient's norm.

    At the iteration's first step the reference π_i is the policy itself: the log ratio is 0 and its gradient is not.
    """
    is_response = [np.arange(len(each.tokens)) >= each.num_prompt_tokens for each in scored]
    optimizer = optimization.make_optimizer(policy.model.parameters(), recipe.trainer)
    advantages_N = torch.tensor(advantages)
    max_tokens = row_tokens(recipe.trainer, policy.model)
    for row in pack_rows([each.tokens for each in scored], is_response, max_tokens):
        logprobs_S = token_logprobs(policy.model, row)
        log_ratio_n = sequence_logprobs(logprobs_S - logprobs_S.detach(), row)
        losses_n = k15.policy_loss(advantages_N[row.indices], log_ratio_n, TAU)
        (losses_n.sum() / len(scored)).backward()
    return optimization.step(optimizer, recipe.trainer.learning_rate, recipe.trainer.max_grad_norm).item()


def accuracy(policy: Policy, recipe: Recipe, prompts: PromptSet, version: int, num_problems: int) -> float:
    """Share of right answers to held-out problems, one sample each."""
    heldout = [prompts.heldout(index) for index in range(num_problems)]
    scored = grade(policy, recipe, heldout, sample(policy, version, heldout, 1, seed=10**6))
    return sum(each.reward for each in scored) / len(scored)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one iteration and prints what each step did."""
    parser = argparse.ArgumentParser(description="One iteration of RL, in one process.")
    parser.add_argument("--warmup-steps", type=int, default=300)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--heldout", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)

    torch.set_num_threads(1)
    recipe = recipe_of(given.warmup_steps, given.seed)
    policy = make_policy(recipe)
    print(f"policy      {policy.model.num_parameters():,} parameters, {len(policy.tokenizer)} words")
    loss = run_stages(recipe.stages_at("before"), policy, recipe)["warmup_loss"]
    print(f"warm-up     {given.warmup_steps} steps on reasoning traces, loss {loss:.3f} nats a token")

    prompts = open_prompts(recipe.prompts, recipe.seed)
    drawn = [prompts.train(index) for index in epochs(range(prompts.num_train), 0, given.prompts, recipe.seed)]
    print(f"prompts     {len(drawn)} of {prompts.num_train:,}; the first: {drawn[0].messages[-1].content}")

    scored = grade(policy, recipe, drawn, sample(policy, 0, drawn, given.group_size, recipe.seed))
    print(f"responses   {len(scored)}; the first: {scored[0].text}")
    print(f"rewards     mean {sum(each.reward for each in scored) / len(scored):.3f}")

    advantages = advantages_of(scored, given.group_size)
    print(f"advantages  {sum(value != 0 for value in advantages)} of {len(advantages)} are not zero")

    before = accuracy(policy, recipe, prompts, 0, given.heldout)
    norm = take_step(policy, scored, advantages, recipe)
    after = accuracy(policy, recipe, prompts, 1, given.heldout)
    print(f"step        gradient norm {norm:.3f}; version 0 → 1")
    print(f"held out    {before:.1%} → {after:.1%} right of {given.heldout}")


if __name__ == "__main__":
    main()
