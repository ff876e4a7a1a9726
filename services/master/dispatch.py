"""Says what is sent to the fleet: an iteration's groups, and the message that asks for one of them."""

from __future__ import annotations

from collections.abc import Sequence

from blake3 import blake3

from perilune.api.reward.v1.reward_pb2 import GraderChoice
from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1.trajectory_pb2 import (
    PURPOSE_EVALUATE,
    PURPOSE_TRAIN,
    PolicyVersion,
    RepetitionRule,
    SamplingParams,
    Trajectory,
)
from perilune.ids import GroupId
from perilune.recipe import Recipe, option_text
from services.master.prompts import PromptSet
from services.master.records import Group


def training_groups(
    run_id: str, draw_number: int, version: int, prompt_indices: Sequence[int], group_size: int
) -> list[Group]:
    """One draw of prompts as groups that are dispatched at a version."""
    return [
        Group(
            id=str(GroupId(run_id, draw_number, position)),
            run_id=run_id,
            iteration=version,
            purpose=PURPOSE_TRAIN,
            mode="",
            position=position,
            prompt_index=prompt_index,
            num_samples=group_size,
        )
        for position, prompt_index in enumerate(prompt_indices)
    ]


def evaluation_groups(run_id: str, iteration: int, modes: Sequence[str], num_problems: int) -> list[Group]:
    """Every held-out problem once in each mode; the same problems at every evaluation."""
    return [
        Group(
            id=str(GroupId(run_id, iteration, position, mode)),
            run_id=run_id,
            iteration=iteration,
            purpose=PURPOSE_EVALUATE,
            mode=mode,
            position=position,
            prompt_index=position,
            num_samples=1,
        )
        for mode in modes
        for position in range(num_problems)
    ]


def task_for(
    group: Group,
    sample_indices: Sequence[int],
    policy: PolicyVersion,
    recipe: Recipe,
    prompts: PromptSet,
    budget_tokens: int = 0,
    unfinished: Trajectory | None = None,
) -> RolloutTask:
    """The message for a group, for those of its samples that are still missing, or for the rest of one."""
    heldout = group.purpose == PURPOSE_EVALUATE
    return RolloutTask(
        run_id=group.run_id,
        group_id=group.id,
        purpose=group.purpose,  # type: ignore[arg-type]
        iteration=group.iteration,
        prompt=prompts.heldout(group.prompt_index) if heldout else prompts.train(group.prompt_index),
        sample_indices=sample_indices,
        sampling=_sampling(group, recipe),
        policy=policy,
        graders=[
            GraderChoice(name=g.name, weight=g.weight, options={k: option_text(v) for k, v in g.options.items()})
            for g in recipe.reward.graders
        ],
        budget_tokens=0 if heldout else budget_tokens,
        unfinished=unfinished,
    )


def _sampling(group: Group, recipe: Recipe) -> SamplingParams:
    """As the recipe says; held-out samples are greedy, or drawn from the policy as it is, at temperature 1."""
    rollout = recipe.rollout
    params = SamplingParams(
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        top_k=rollout.top_k,
        max_tokens=rollout.max_tokens,
        stop=rollout.stop,
        seed=int(blake3(f"{recipe.seed}/{group.id}".encode()).hexdigest(7), 16),
    )
    if rollout.repetition:
        params.repetition.CopyFrom(RepetitionRule(**rollout.repetition.model_dump()))
    if group.mode:
        params.temperature, params.top_p, params.top_k = (0.0 if group.mode == "greedy" else 1.0), 1.0, 0
    return params
