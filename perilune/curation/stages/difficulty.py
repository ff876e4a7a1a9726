"""Holds how hard a question is for a model, measured: the share of its answers that are right (k1.5 §2.1)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from perilune.completions import Answers, ModelTable
from perilune.curation.stages.stage import Stage, Tools
from perilune.curation.workspace import Decision, Row, Survivors
from perilune.recipe import GraderTable, PositiveInt, Share
from perilune.stats import wilson_interval

BATCH = 256  # questions whose answers are graded together


class Difficulty(Stage):
    """`[difficulty]`: labels each question with its pass rate and its interval; questions that are too easy leave."""

    title: ClassVar[str] = "Difficulty"
    model: ModelTable = ModelTable()
    graders: list[GraderTable] = []
    num_answers: PositiveInt = 10
    label: str = "pass_rate"  # one for each model that a set is measured with
    max_pass_rate: Share = 1.0  # questions with a higher one leave; at 1, those that are always answered
    min_pass_rate: Share = 0.0  # questions with a lower one leave
    # Where no answer agrees with the reference but several agree on another, so many more are asked for. If still none
    # agrees with it, and this share of all agrees on another, the reference is disputed and the question leaves.
    num_more_answers: Annotated[int, Field(ge=0)] = 20
    dispute_share: Share = 1 / 3

    def off(self) -> str:
        """Off without a model or graders."""
        return super().off() or _without(self.model, self.graders, "difficulty")

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """Removes trivial questions and disputed ones; one that got no answer stays, and is named as a failure."""
        doubted: dict[int, Decision] = {}
        for batch in tools.answered(self.model, rows, self.num_answers, BATCH):
            for row, answers, num_right, num_graded in judged(batch, self.graders, tools):
                if not num_graded:
                    tools.fail(row, answers.failure or "no answer could be graded")
                    continue
                decision = self._decision(row, num_right, num_graded)
                if num_right or not agreement(answers.texts):
                    yield decision
                else:
                    doubted[row.id] = decision
        yield from self._second_look(rows.only(doubted), doubted, tools)

    def _second_look(self, rows: Survivors, decided: Mapping[int, Decision], tools: Tools) -> Iterator[Decision]:
        """Asks more often what a model's first answers contradict; the pass rate stays that of the first ones."""
        num_answers = self.num_answers + self.num_more_answers
        for batch in tools.answered(self.model, rows, num_answers, BATCH) if decided else ():
            for row, answers, num_right, _ in judged(batch, self.graders, tools):
                if answers.failure:
                    tools.fail(row, f"no second look at its reference: {answers.failure}")
                disputed = None if num_right or answers.failure else self._disputed(row, answers.texts)
                yield disputed or decided[row.id]

    def _disputed(self, row: Row, texts: Sequence[str]) -> Decision | None:
        """The decision against a reference that a model's answers contradict with one voice; None without such."""
        most, number = agreement(texts) or ("", 0)
        if number < self.dispute_share * len(texts):
            return None
        seen = f"{number} of {len(texts)} answers of {self.model.name} are {most!r:.100}, not {row.answer!r:.100}"
        return Decision(row.id, "reference disputed", seen)

    def _decision(self, row: Row, num_right: int, num_graded: int) -> Decision:
        rate = num_right / num_graded
        low, high = wilson_interval(num_right, num_graded)
        seen = f"{num_right} of {num_graded} answers of {self.model.name} are right"
        if rate > self.max_pass_rate or rate == self.max_pass_rate == 1:
            return Decision(row.id, "too easy", seen)
        if rate < self.min_pass_rate:
            return Decision(row.id, "too hard", seen)
        labels = {self.label: f"{rate:.3g}", f"{self.label}_low": f"{low:.3g}", f"{self.label}_high": f"{high:.3g}"}
        return Decision(row.id, labels={**labels, "difficulty": f"{1 - rate:.3g}"})


class GuessingModelTable(ModelTable):
    """`[guesses.model]`: a model that is to guess."""

    max_tokens: PositiveInt = 32
    template: str = "{question}\n\nGive the final answer at once, without any reasoning: the answer alone."


class Guesses(Stage):
    """`[guesses]`: a question that a model answers without reasoning is easy to hack, and leaves (k1.5 §2.1)."""

    title: ClassVar[str] = "Easy to hack"
    model: GuessingModelTable = GuessingModelTable()
    graders: list[GraderTable] = []
    num_guesses: PositiveInt = 8
    max_hits: Annotated[int, Field(ge=0)] = 0  # right guesses that a question may have

    def off(self) -> str:
        """Off without a model or graders."""
        return super().off() or _without(self.model, self.graders, "guesses")

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """Removes questions with a right guess; one that got no guess stays, and is named as a failure."""
        for batch in tools.answered(self.model, rows, self.num_guesses, BATCH):
            for row, answers, num_right, num_graded in judged(batch, self.graders, tools):
                if not num_graded:
                    tools.fail(row, answers.failure or "no guess could be graded")
                elif num_right > self.max_hits:
                    seen = f"{num_right} of {num_graded} guesses are right: {answers.texts!r:.300}"
                    yield Decision(row.id, "guessed", seen)


def agreement(texts: Sequence[str]) -> tuple[str, int] | None:
    """The final answer that most of some texts give, and how many do; None if no two agree.

    >>> agreement(["It is 1,200.", "\\\\boxed{1200}", "7"]), agreement(["1", "2"])
    (('1200', 2), None)
    """
    found = Counter(filter(None, map(final_answer, texts))).most_common(1)
    return found[0] if found and found[0][1] > 1 else None


def final_answer(text: str) -> str:
    """The end of a response, to count how many agree: its last box, else its last number, else its last line.

    >>> final_answer("\\\\boxed{3} or \\\\boxed{4}"), final_answer("It is 12 or 15."), final_answer("It is\\nParis. ")
    ('4', '15', 'paris')
    """
    boxes = re.findall(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", text)
    found = boxes or re.findall(r"-?\d+(?:[.,]\d+)*(?:/\d+)?", text) or text.strip().splitlines() or [""]
    return re.sub(r"(?<=\d),(?=\d{3})", "", found[-1]).strip(" .$").casefold()


def judged(
    batch: Sequence[tuple[Row, Answers]], graders: Sequence[GraderTable], tools: Tools
) -> Iterator[tuple[Row, Answers, int, int]]:
    """Each question with how many of its answers are right, and how many could be graded."""
    pairs = [(row, text) for row, answers in batch for text in answers.texts]
    verdicts = iter(tools.right(graders, pairs))
    for row, answers in batch:
        found = [next(verdicts) for _ in answers.texts]
        yield row, answers, sum(each is True for each in found), sum(each is not None for each in found)


def _without(model: ModelTable, graders: Sequence[GraderTable], name: str) -> str:
    if not model.is_given:
        return f"no model is given: set {name}.model.url and {name}.model.model, or {name}.model.path"
    return "" if graders else f"no graders are given: name them under [[{name}.graders]]"
