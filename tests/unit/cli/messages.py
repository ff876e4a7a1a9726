"""A run made by hand, as a master would describe it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, RenderableType

from perilune.api.master.v1.master_pb2 import Evaluation, Ledger, Run, RunState, Version
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, Score
from perilune.api.trajectory.v1.trajectory_pb2 import (
    ChatMessage,
    PolicyVersion,
    Prompt,
    ScoredTrajectory,
    Trajectory,
)
from perilune.stats import wilson_interval


def policy(number: int) -> PolicyVersion:
    return PolicyVersion(number=number, digest="3f2a9c1b77e00000")


def evaluation(number: int, mode: str, num_correct: int, mean_tokens: float) -> Evaluation:
    low, high = wilson_interval(num_correct, 500)
    return Evaluation(
        policy=policy(number),
        mode=mode,
        num_problems=500,
        num_correct=num_correct,
        accuracy=num_correct / 500,
        low=low,
        high=high,
        mean_tokens=mean_tokens,
    )


def run(number: int = 4, state: RunState.ValueType = RunState.RUN_STATE_FINISHED, **changes: object) -> Run:
    """A run of four iterations that is evaluated at every second one."""
    evaluations = [
        found
        for at, (greedy, sampled) in {0: (75, 150), 2: (200, 250), 4: (460, 430)}.items()
        for found in (evaluation(at, "sampled", sampled, 14 + at), evaluation(at, "greedy", greedy, 10 + at))
        if at <= number
    ]
    described = Run(
        id="search-1",
        state=state,
        recipe_json='{"description": "Numbers that make a target"}',
        iteration=number,
        num_iterations=4,
        policy=policy(number),
        evaluations=evaluations,
        ledger=Ledger(dispatched=512 * number, trained=512 * number, balanced=True),
        seconds=125.0,
        model_path="runs/search-1/model",
        submitted_unix_ns=1_700_000_000_000_000_000,
    )
    described.MergeFrom(Run(**changes))  # type: ignore[arg-type]
    return described


def versions(number: int) -> Iterator[Version]:
    """One every two seconds; rewards 0.2, 0.4, ..., lengths 12, 14, ..."""
    for n in range(number + 1):
        metrics = {"reward": 0.2 * n, "mean_tokens": 10.0 + 2 * n, "tokens_per_second": 12_000.0, "loss": 0.5}
        yield Version(
            policy=policy(n),
            num_samples=512 if n else 0,
            num_tokens=6000 if n else 0,
            metrics=metrics if n else {},
            time_unix_ns=n * 2_000_000_000,
        )


def sample(prompt_id: str, response: str, value: float | None) -> ScoredTrajectory:
    question = ChatMessage(role="user", content=f"question {prompt_id}?")
    trajectory = Trajectory(prompt=Prompt(id=prompt_id, messages=[question]), response=response)
    return ScoredTrajectory(trajectory=trajectory, score=Score(status=SCORE_STATUS_OK, value=value))


def drawn(renderable: RenderableType, width: int = 100) -> str:
    """What a terminal of that width shows, without its colours."""
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()
