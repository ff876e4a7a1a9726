"""Training examples of a judge: the prompt it will be asked with, and a verified reasoning that ends in a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from perilune.data.examples import Example, Turn
from perilune.errors import InvalidInputError
from perilune.grading.judge_prompts import judge_prompt, write_verdict
from perilune.grading.labelled_answers import LabelledAnswer


def judge_examples(rows: Sequence[LabelledAnswer], form: str, seed: int) -> list[Example]:
    """One example of each labelled answer. The verdict is the label: reasoning must be of those that led to it.

    Args:
        form: a name of `perilune.grading.judge_prompts.PROMPT_FORMS`; the judge has to be asked with the same.
        seed: decides the prompts' ids.

    Raises:
        InvalidInputError: a row has no reasoning.
    """
    rng = Random(f"judge/{seed}")
    examples: list[Example] = []
    for number, row in enumerate(rows, 1):
        if not row.reasoning.strip():
            raise InvalidInputError(
                f"labelled answer {number} has no `reasoning`, which a judge learns from; "
                "`perilune reward reason` has a judge write it, and keeps what led to the label"
            )
        prompt = judge_prompt(row.question, row.reference, row.response, form, rng.randrange)
        examples.append((Turn(prompt.messages, f"{row.reasoning.strip()}\n{write_verdict(prompt.id, row.correct)}"),))
    return examples
