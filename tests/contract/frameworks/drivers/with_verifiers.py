"""verifiers 0.1 to 0.3: a rubric scores a group, and a rollout that gets no score."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import math
import sys

import verifiers as vf

from perilune.integrations.verifiers import reward_function


def rollout(answer: str) -> vf.State:
    return vf.State(
        prompt=[{"role": "user", "content": "1 + 1?"}],
        completion=[{"role": "assistant", "content": "<think>easy</think> \\boxed{2}"}],
        answer=answer,
        task="sums",
        info={},
        timing={"scoring_ms": 0.0, "total_ms": 0.0},
        trajectory=[],
    )


async def main(address: str) -> None:
    rubric = vf.Rubric(funcs=[reward_function("math", address, name="correct")])
    needs_semaphore = "score_sem" in inspect.signature(rubric.score_group).parameters
    semaphore = {"score_sem": contextlib.nullcontext()} if needs_semaphore else {}
    right, wrong, unscored = rollout("2"), rollout("3"), rollout("")
    await rubric.score_group([right, wrong], **semaphore)
    assert right["metrics"] == {"correct": 1.0}
    await rubric.score_rollout(unscored, **semaphore)
    assert math.isnan(unscored["reward"])
    print(json.dumps({"right": right["reward"], "wrong": wrong["reward"], "unscored": repr(unscored["error"])}))


asyncio.run(main(json.loads(sys.argv[1])["address"]))
