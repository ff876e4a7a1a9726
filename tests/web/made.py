"""A database with finished runs in it, made quickly: what the page is to show of a long run."""

from __future__ import annotations

import asyncio
import math
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from sqlalchemy import insert

from perilune.api.master.v1.master_pb2 import RUN_STATE_FINISHED
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, Component, Score
from perilune.api.trajectory.v1.trajectory_pb2 import (
    ENDING_STOP,
    PURPOSE_EVALUATE,
    PURPOSE_TRAIN,
    ChatMessage,
    ImageRef,
    PolicyVersion,
    Prompt,
    ScoredTrajectory,
    Segment,
    Trajectory,
)
from perilune.codec import pack
from perilune.images import digest_of_image
from perilune.recipe import check_recipe
from perilune.tasks import counting, images_of
from services.master.store import Store
from services.master.tables import EvaluationRow, GroupRow, RunRow, SampleRow, SampleState, VersionRow

FIRST_SECOND = 1_750_000_000
NUM_PROBLEMS = 200
PICTURE = images_of(counting, counting.problem(0, 0))[0]


def recipe_json(num_iterations: int, tau: float = 0.1) -> str:
    document = {
        "name": "made",
        "model": {"path": "unused"},
        "prompts": {"source": "task", "name": "search", "num_train": 100, "num_heldout": 5},
        "rollout": {"prompts_per_iteration": 3, "group_size": 2},
        "reward": {"graders": [{"name": "exact"}]},
        "trainer": {"num_iterations": num_iterations, "objective": {"tau": tau}},
        "evaluation": {"num_problems": 5, "modes": ["greedy"]},
    }
    return check_recipe(document).model_dump_json()


def sample(run_id: str, iteration: int, position: int, index: int, purpose: int = PURPOSE_TRAIN) -> ScoredTrajectory:
    """A sample in two segments of two versions (one in iteration 0); even indices are right."""
    mode = ".greedy" if purpose == PURPOSE_EVALUATE else ""
    group_id = f"{run_id}.{iteration}{mode}.{position}"
    texts = [f"13 + {position} = 23 low ", "13 + 8 = 21 <b>low</b> answer: 10 14"]
    segments = [
        Segment(
            policy=PolicyVersion(number=max(0, iteration - 1 + part), digest=f"digest-{iteration - 1 + part}"),
            tokens=pack(np.arange(len(text.split()), dtype=np.int32)),
            num_chars=len(text),
        )
        for part, text in enumerate(texts)
    ]
    right = 1.0 - index % 2
    component = Component(
        grader="exact", version="1", status=SCORE_STATUS_OK, value=right, weight=1, evidence={"answer": "10 14"}
    )
    return ScoredTrajectory(
        trajectory=Trajectory(
            id=f"{group_id}/{index}",
            run_id=run_id,
            group_id=group_id,
            sample_index=index,
            purpose=purpose,  # type: ignore[arg-type]
            iteration=iteration,
            prompt=Prompt(
                id=str(position),
                messages=[_message(f"which two of 13 {position} 8 make 24 ?", position)],
                reference="10 14",
            ),
            segments=segments,
            ending=ENDING_STOP,
            response="".join(texts),
        ),
        score=Score(status=SCORE_STATUS_OK, value=right, components=[component]),
    )


def _message(text: str, position: int) -> ChatMessage:
    """The second prompt of an iteration shows PICTURE, and an image that is gone."""
    message = ChatMessage(role="user", content=text)
    if position == 1:
        message.parts.add(image=ImageRef(digest=digest_of_image(PICTURE), media_type="image/png"))
        message.parts.add(text=text)
        message.parts.add(image=ImageRef(digest="0" * 64, media_type="image/png"))
    return message


def make_run(
    database: Path, run_id: str, num_iterations: int, num_groups: int = 5, group_size: int = 20, tau: float = 0.1
) -> None:
    """Writes a finished run of `num_iterations * num_groups * group_size` trained samples."""
    made = _make_run(f"sqlite+aiosqlite:///{database}", run_id, num_iterations, num_groups, group_size, tau)
    with ThreadPoolExecutor(1) as elsewhere:  # playwright runs a loop of its own on this thread
        elsewhere.submit(asyncio.run, made).result()


async def _make_run(url: str, run_id: str, num_iterations: int, num_groups: int, group_size: int, tau: float) -> None:
    noise = random.Random(run_id)
    async with Store.open(url) as store, store.engine.begin() as db:
        run = {"id": run_id, "state": RUN_STATE_FINISHED, "recipe": recipe_json(num_iterations, tau)}
        await db.execute(
            insert(RunRow), [run | {"submitted_ns": FIRST_SECOND * 10**9, "active_seconds": 30.0 * num_iterations}]
        )
        versions, evaluations = [], []
        for number in range(num_iterations + 1):
            progress = 1 - math.exp(-4 * number / max(1, num_iterations))
            reward = 0.2 + 0.7 * progress + noise.uniform(-0.05, 0.05)
            metrics = {"num_parameters": 1e6, "start_seconds": 12.0}
            if number:
                metrics = {
                    "reward": reward,
                    "accuracy": reward,
                    "mean_tokens": 14 + 25 * progress + noise.uniform(-2, 2),
                    "entropy": 0.6 - 0.4 * progress + noise.uniform(-0.02, 0.02),
                    "kl": 0.003 + noise.uniform(0, 0.003),
                    "loss": 0.02 * (1 - progress) + noise.uniform(-0.002, 0.002),
                    "grad_norm": 1 + noise.random(),
                    "tokens_per_second": 1900 + noise.uniform(-200, 200),
                    "staleness": noise.choice([0, 0, 1]),
                    "rollout_seconds": 8 + noise.random(),
                    "train_seconds": 5 + noise.random(),
                    "mixed_groups": 0.5,
                    "learning_rate": 1e-4,
                }
            versions.append(
                {
                    "run_id": run_id,
                    "number": number,
                    "digest": f"digest-{number}",
                    "num_samples": num_groups * group_size if number else 0,
                    "num_tokens": 1000,
                    "metrics": metrics,
                    "committed_ns": (FIRST_SECOND + 30 * number) * 10**9,
                    "model_path": "",
                }
            )
            if number % 5 == 0:
                for mode, share in (("greedy", reward), ("sampled", 0.9 * reward)):
                    evaluations.append(
                        {
                            "run_id": run_id,
                            "version": number,
                            "mode": mode,
                            "digest": f"digest-{number}",
                            "num_problems": NUM_PROBLEMS,
                            "num_correct": min(NUM_PROBLEMS, max(0, round(NUM_PROBLEMS * share))),
                            "mean_tokens": 20.0,
                        }
                    )
        await db.execute(insert(VersionRow), versions)
        await db.execute(insert(EvaluationRow), evaluations)
        for iteration in range(num_iterations):
            groups = [_group(run_id, iteration, position, group_size) for position in range(num_groups)]
            rows = [
                _row(sample(run_id, iteration, position, index), SampleState.TRAINED)
                for position in range(num_groups)
                for index in range(group_size)
            ]
            if iteration == 0:
                groups.append(_group(run_id, 0, 0, 1, PURPOSE_EVALUATE, "greedy"))
                rows.append(_row(sample(run_id, 0, 0, 0, PURPOSE_EVALUATE), SampleState.EVALUATED))
            await db.execute(insert(GroupRow), groups)
            await db.execute(insert(SampleRow), rows)


def _group(
    run_id: str, iteration: int, position: int, num_samples: int, purpose: int = PURPOSE_TRAIN, mode: str = ""
) -> dict[str, object]:
    return {
        "id": f"{run_id}.{iteration}{'.' + mode if mode else ''}.{position}",
        "run_id": run_id,
        "iteration": iteration,
        "purpose": purpose,
        "mode": mode,
        "position": position,
        "prompt_index": position,
        "num_samples": num_samples,
        "num_dispatches": 1,
        "traceparent": "",
    }


def _row(scored: ScoredTrajectory, state: SampleState) -> dict[str, object]:
    one = scored.trajectory
    return {
        "group_id": one.group_id,
        "sample_index": one.sample_index,
        "run_id": one.run_id,
        "iteration": one.iteration,
        "purpose": one.purpose,
        "state": state,
        "reason": "",
        "value": scored.score.value,
        "correct": scored.score.value == 1,
        "num_tokens": 12,
        "payload": scored.SerializeToString(),
    }
