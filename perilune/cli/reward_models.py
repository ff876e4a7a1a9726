"""`perilune reward evaluate`: how well a grader, whichever it is, does on answers of which it is known."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, GraderChoice, Score, ScoreStatus
from perilune.client import RewardClient, score_request
from perilune.grading.labelled_answers import Agreement, LabelledAnswer, agreement
from perilune.stats import finite


def evaluate(
    address: str, rows: Sequence[LabelledAnswer], graders: list[GraderChoice], deadline_s: float, as_json: bool
) -> int:
    """Scores labelled answers and prints how the scores agree with the labels. Exit status 1 if some have no score."""
    requests = [score_request(row.response, row.reference, question=row.question) for row in rows]
    with RewardClient(address) as rewards:
        scores = [score for _, score in sorted(rewards.score_batch(requests, graders, deadline_s), key=_index)]
    values = [score.value if score.status == SCORE_STATUS_OK else None for score in scores]
    found = agreement(values, [row.correct for row in rows])
    without = Counter(_status(score) for score in scores if score.status != SCORE_STATUS_OK)
    print(json.dumps(finite(asdict(found) | {"accuracy": found.accuracy})) if as_json else _as_text(found))
    if without:
        statuses = ", ".join(f"{count} {status}" for status, count in without.items())
        print(f"without a score: {statuses}", file=sys.stderr)
    return 1 if without else 0


def _index(pair: tuple[int, Score]) -> int:
    return pair[0]


def _as_text(found: Agreement) -> str:
    low, high = found.interval
    return (
        f"{found.accuracy:.1%} of {found.num_rows} right [{low:.1%}, {high:.1%}]\n"
        f"  false positives {found.num_false_positives}, false negatives {found.num_false_negatives}, "
        f"without a score {found.num_without}\n"
        f"  Brier score {found.brier:.3f}, calibration error {found.calibration_error:.3f}"
    )


def _status(score: Score) -> str:
    return ScoreStatus.Name(score.status).removeprefix("SCORE_STATUS_")
