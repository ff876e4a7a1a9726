"""A run's graded answers as the rows that `perilune shortest` reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, Component, Score
from perilune.api.trajectory.v1.trajectory_pb2 import ChatMessage, Prompt, ScoredTrajectory, Segment, Trajectory
from perilune.cli.inspect import sample_row
from perilune.codec import pack
from perilune.data.shortest import select


def scored(response: str, right: bool, num_tokens: int, *messages: tuple[str, str]) -> ScoredTrajectory:
    prompt = Prompt(messages=[ChatMessage(role=role, content=content) for role, content in messages])
    segments = [Segment(tokens=pack(np.zeros(num_tokens, np.int32)))]
    segments += [Segment(tokens=pack(np.zeros(50, np.int32)), environment=True)]  # which the policy did not write
    score = Score(status=SCORE_STATUS_OK, value=right, components=[Component(grader="exact", value=right)])
    return ScoredTrajectory(trajectory=Trajectory(prompt=prompt, response=response, segments=segments), score=score)


def test_rows_of_samples_are_chosen_among(tmp_path: Path) -> None:
    question, system = ("user", "2 + 2?"), ("system", "Be brief.")
    samples = [
        scored("4", True, 1, question),
        scored("It is 4", True, 3, question),
        scored("5", False, 1, system, question),
    ]
    rows = [sample_row(sample) for sample in samples]
    assert rows[0] == {"question": "2 + 2?", "response": "4", "correct": True, "num_tokens": 1}
    assert rows[2]["question"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2?"},
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert select(tmp_path / "samples.jsonl", tmp_path / "shorter") == {
        "num_questions": 2,
        "num_without_right_answer": 1,
        "num_without_pair": 0,
        "num_pairs": 1,
    }
