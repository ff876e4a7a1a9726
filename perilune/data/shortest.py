"""From graded samples to shorter models (k1.5 §2.4): the shortest right answer of each question, and pairs for DPO."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from perilune.data.files import rows_of
from perilune.data.rows import kind_of, plain_text, value_at
from perilune.errors import AlreadyExistsError, InvalidInputError, StateError

LONGER = 1.5  # times the positive's length, from which on a right answer is a negative


class Sample(NamedTuple):
    """A graded answer."""

    response: str
    correct: bool
    length: int  # tokens, where the row says so; else characters


@dataclass(frozen=True)
class Choice:
    """Describes what the samples of a question give."""

    shortest: Sample | None = None  # right; None where no answer is
    worse: Sequence[Sample] = ()  # to be rejected for it


def choose(samples: Sequence[Sample], longer: float = LONGER) -> Choice:
    """The shortest right answer; against it longer wrong ones, and right ones at least `longer` times as long.

    A model may say nothing at all: there is nothing to learn from such a sample, and nothing to reject.
    """
    samples = [sample for sample in samples if sample.response.strip()]
    right = [sample for sample in samples if sample.correct]
    if not right:
        return Choice()
    best = min(right, key=lambda sample: sample.length)
    worse = [
        each for each in samples
        if (each.length >= longer * best.length if each.correct else each.length > best.length)
        and each.response != best.response
    ]  # fmt: skip
    return Choice(best, worse)


def select(path: Path, out: Path, longer: float = LONGER) -> dict[str, int]:
    """Writes `sft.jsonl` and `pairs.jsonl` of a file of graded samples; returns counts.

    Raises:
        NotFoundError, InvalidInputError: no such file, or a row that is no graded sample, by its line.
        AlreadyExistsError, StateError: the folder is there already, or cannot be written.
    """
    choices = {question: choose(samples, longer) for question, samples in read_samples(path).items()}
    answered = {question: choice for question, choice in choices.items() if choice.shortest}
    sft = [
        {"question": json.loads(key), "response": each.shortest.response}
        for key, each in answered.items()
        if each.shortest
    ]
    pairs = [
        {"question": json.loads(key), "chosen": each.shortest.response, "rejected": worse.response}
        for key, each in answered.items() if each.shortest for worse in each.worse
    ]  # fmt: skip
    _write(out, {"sft.jsonl": sft, "pairs.jsonl": pairs})
    return {
        "num_questions": len(choices),
        "num_without_right_answer": len(choices) - len(answered),
        "num_without_pair": sum(not choice.worse for choice in answered.values()),
        "num_pairs": len(pairs),
    }


def read_samples(path: Path) -> dict[str, list[Sample]]:
    """The samples of each question, which is the key as JSON. Errors as of `select`."""
    found: dict[str, list[Sample]] = {}
    for where, row in rows_of(str(path), None, "{}:{}"):
        if isinstance(row, InvalidInputError):
            raise row
        question = value_at(row, "question", where)
        found.setdefault(json.dumps(question, ensure_ascii=False), []).append(_sample(row, where))
    if not found:
        raise InvalidInputError(f"there are no samples in {path}")
    return found


def _sample(row: Mapping[str, Any], where: str) -> Sample:
    response = plain_text(value_at(row, "response", where), where, "response", may_be_blank=True)
    correct = value_at(row, "correct", where)
    if not isinstance(correct, bool):
        raise InvalidInputError(f"{where}: 'correct' must be true or false, and is {kind_of(correct)}")
    given = str(row.get("num_tokens", len(response)))
    if not given.isdecimal():
        raise InvalidInputError(f"{where}: 'num_tokens' must be a count, and is {kind_of(row['num_tokens'])}")
    return Sample(response, correct, int(given))


def _write(out: Path, files: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    try:
        out.mkdir(parents=True)
        for name, rows in files.items():
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (out / name).write_text("".join(lines), encoding="utf-8")
    except FileExistsError as error:
        raise AlreadyExistsError(f"{out} exists already; name a new folder") from error
    except OSError as error:
        raise StateError(f"cannot write {out}: {error}") from error
