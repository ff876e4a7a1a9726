"""Labelled answers: known to be right or wrong, for training reward models and for measuring graders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from perilune.data.jsonlines import lines_of, parse_object
from perilune.errors import InvalidInputError
from perilune.stats import wilson_interval

NUM_BINS = 10  # of the calibration error


class LabelledAnswer(BaseModel):
    """One line of a JSONL file. Further keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    question: str = ""
    reference: str
    response: str
    correct: bool
    reasoning: str = ""  # that leads to the verdict; for training a judge


def read_labelled_answers(path: Path) -> list[LabelledAnswer]:
    """Reads a JSONL file. NotFoundError: no such file. InvalidInputError: no rows, or a wrong one, and where."""
    rows = [_read_row(line, f"{path}:{number}") for number, line in lines_of(path, "the labelled answers")]
    if not rows:
        raise InvalidInputError(f"{path} holds no labelled answers")
    return rows


def _read_row(line: bytes, place: str) -> LabelledAnswer:
    try:
        row = LabelledAnswer.model_validate_json(line)
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"])) or "the line"
        raise InvalidInputError(
            f"{place}: {where}: {wrong['msg'].lower()}; expected "
            '{"question": …, "reference": …, "response": …, "correct": true or false}'
        ) from error
    parse_object(line, place)  # refuses repeated keys, of which the last was taken
    return row


@dataclass(frozen=True)
class Agreement:
    """The agreement of a grader's values with labels. A row without a value counts as wrong, and apart."""

    num_rows: int
    num_right: int
    num_false_positives: int
    num_false_negatives: int
    num_without: int
    brier: float  # mean of (value - label)², over the rows with a value; NaN if there is none
    calibration_error: float  # mean of |mean value - share of right answers| over bins of values, weighted by rows

    @property
    def accuracy(self) -> float:
        """The share of rows on the right side of 0.5; those without a value are wrong."""
        return self.num_right / self.num_rows

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy."""
        return wilson_interval(self.num_right, self.num_rows)


def agreement(values: Sequence[float | None], labels: Sequence[bool]) -> Agreement:
    """Measures a grader on labelled answers.

    Args:
        values: one for each answer, above 0.5 where the grader calls it right; None where it has no score.
        labels: whether each is right; at least one.
    """
    scored = [(value, label) for value, label in zip(values, labels, strict=True) if value is not None]
    false_positives = sum(value > 0.5 and not label for value, label in scored)
    false_negatives = sum(value <= 0.5 and label for value, label in scored)
    return Agreement(
        num_rows=len(labels),
        num_right=len(scored) - false_positives - false_negatives,
        num_false_positives=false_positives,
        num_false_negatives=false_negatives,
        num_without=len(labels) - len(scored),
        brier=sum((value - label) ** 2 for value, label in scored) / len(scored) if scored else float("nan"),
        calibration_error=_calibration_error(scored),
    )


def _calibration_error(scored: Sequence[tuple[float, bool]]) -> float:
    """Expected calibration error over NUM_BINS bins of equal width (Guo et al. 2017, eq. 3); NaN without any row."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for value, label in scored:
        bins.setdefault(min(NUM_BINS - 1, max(0, int(value * NUM_BINS))), []).append((value, label))
    gaps = [abs(sum(value - label for value, label in rows)) for rows in bins.values()]
    return sum(gaps) / len(scored) if scored else float("nan")
