"""References that the graders themselves find right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK
from perilune.client.scores import ScoreStatus
from perilune.curation.stages.stage import Stage, Tools, is_right
from perilune.curation.workspace import Decision, Row, Survivors
from perilune.recipe import GraderTable


class Verifiable(Stage):
    """`[verifiable]`: a question stays if the graders that will judge it accept its own reference as an answer."""

    title: ClassVar[str] = "Verifiable"
    graders: list[GraderTable] = []
    # The reference as a model would write it; the first form that is found right is enough.
    forms: list[str] = ["{answer}", "\\boxed{{answer}}", "Answer: {answer}"]

    def off(self) -> str:
        """Off without graders."""
        return super().off() or ("" if self.graders else "no graders are given: name them under [[verifiable.graders]]")

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """Removes rows whose reference no form of is right; a grader that failed says nothing against a row."""
        rest: Sequence[Row] = list(rows)
        said: dict[int, str] = {}
        for form in self.forms:
            answers = [(row, form.replace("{answer}", row.answer)) for row in rest]
            scores = tools.graded(self.graders, answers)
            rest = []
            for (row, _), score in zip(answers, scores, strict=True):
                if is_right(score):
                    continue
                rest.append(row)
                what = f"value {score.value:g}" if score.status == SCORE_STATUS_OK else str(ScoreStatus(score.status))
                reason = "; ".join(f"{part.grader}: {dict(part.evidence)}" for part in score.components)
                said[row.id] = f"reference {row.answer!r:.200}: {what}; {reason:.400}"
        yield from (Decision(row.id, "reference not accepted", said[row.id]) for row in rest)
