"""What the master keeps of an evaluation: the message, its samples, and the id that names the measurement."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perilune.api.master.v1.master_pb2 import TaskEvaluation, TaskSample, TaskScore
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.evaluation.benchmarks import Task
from perilune.evaluation.metrics import Figure
from perilune.evaluation.own import MAX_SHOWN_CHARS, Judged, Measured, Sampling
from perilune.evaluation.targets import Target

OWN_HARNESS = "perilune"
MAX_EVIDENCE_CHARS = 4000


@dataclass(frozen=True)
class Measurement:
    """Describes one measurement before it is made: what its id is the digest of."""

    target: Target
    task: str
    harness: str
    harness_version: str
    settings: Mapping[str, Any]

    @property
    def id(self) -> str:
        """A digest of model, task, harness and settings: the same measurement has the same."""
        all_of_it = [self.target.identity, self.task, self.harness, self.harness_version, self.settings]
        return hashlib.sha256(json.dumps(all_of_it, sort_keys=True).encode()).hexdigest()[:24]

    def evaluation(self, figures: Sequence[Figure], **fields: Any) -> TaskEvaluation:
        """The message of what was found.

        Args:
            figures: the task's own score first.
            fields: further ones of the message.
        """
        policy = PolicyVersion()
        policy.CopyFrom(self.target.policy)
        policy.digest = policy.digest or fields.pop("digest", "")
        fields.pop("digest", None)
        return TaskEvaluation(
            id=self.id,
            run_id=self.target.run_id,
            model=self.target.shown,
            policy=policy,
            task=self.task,
            harness=self.harness,
            harness_version=self.harness_version,
            scores=map(_score, figures),
            settings_json=json.dumps(self.settings, ensure_ascii=False),
            time_unix_ns=time.time_ns(),
            **fields,
        )


def own_settings(task: Task, sampling: Sampling) -> dict[str, Any]:
    """All that decides what is asked and how, but for the model."""
    asked = [[each.id, [*each.messages], each.reference, [*each.graders]] for each in task.problems]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=dict).encode()).hexdigest()[:16]
    return sampling.as_json() | {"data": task.data, "num_problems": len(task.problems), "problems_digest": digest}


def evaluation_of(measurement: Measurement, task: Task, measured: Measured) -> TaskEvaluation:
    """The message of what Perilune's own driver measured."""
    part = len(task.problems) < task.num_available
    note = f"{len(task.problems)} of {task.num_available} problems, spread evenly over the data" if part else ""
    return measurement.evaluation(
        measured.figures,
        num_problems=len(task.problems),
        num_samples=len(measured.samples),
        num_failed=measured.num_failed,
        seconds=measured.seconds,
        note=note,
        digest=measured.version.partition("-")[2],
    )


def samples_of(task: Task, samples: Sequence[Judged]) -> Iterator[TaskSample]:
    """The samples as they are kept: long texts without their middle."""
    for each in samples:
        problem = task.problems[each.drawn.problem]
        ended = {"ended by": each.drawn.finish} if each.drawn.finish else {}
        yield TaskSample(
            problem=each.drawn.problem,
            number=each.drawn.number,
            problem_id=problem.id,
            prompt=shortened(problem.question),
            reference=shortened(problem.reference),
            response=shortened(each.drawn.text),
            value=each.value,
            num_tokens=each.drawn.num_tokens,
            evidence={key: shortened(value, MAX_EVIDENCE_CHARS) for key, value in {**each.evidence, **ended}.items()},
        )


def kept_sample(sample: TaskSample) -> TaskSample:
    """A sample of a harness with its long texts shortened."""
    kept = TaskSample()
    kept.CopyFrom(sample)
    for name in ("prompt", "reference", "response"):
        setattr(kept, name, shortened(getattr(sample, name)))
    for key, value in sample.evidence.items():
        kept.evidence[key] = shortened(value, MAX_EVIDENCE_CHARS)
    return kept


def shortened(text: str, most: int = MAX_SHOWN_CHARS) -> str:
    """A text that is too long without its middle, which a mark stands for.

    >>> shortened("abcdefghij", 4)
    'ab[… 6 characters …]ij'
    """
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}[… {len(text) - 2 * half:,} characters …]{text[-half:]}"


def _score(figure: Figure) -> TaskScore:
    return TaskScore(name=figure.name, value=figure.value, low=figure.low, high=figure.high)
