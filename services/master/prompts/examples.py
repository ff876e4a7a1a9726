"""Decides whether a stage teaches what is held out: its files are the trainer's, and read here only to be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perilune.data.examples import Example, read_examples
from perilune.errors import InvalidInputError, MissingDependencyError, NotFoundError
from perilune.recipe import RowsStage, StageBase
from services.master.prompts import PromptSet
from services.master.prompts.prompt import QuestionKey, conversation_key, question_key

MAX_COMPARED = 10_000  # held-out prompts


def notes_on_examples(stages: Sequence[StageBase], prompts: PromptSet) -> list[str]:
    """Returns what a reader should know of stages' files: how many of their examples answer questions that are held
    out.

    A file that cannot be read here may lie where the trainer runs, which says what is wrong with it.
    """
    files = [(table, _read(table)) for table in stages if isinstance(table, RowsStage)]
    if not any(examples for _, examples in files):
        return []
    heldout = {question_key(prompts.heldout(index)) for index in range(min(MAX_COMPARED, prompts.num_heldout))}
    return [note for table, examples in files for note in _notes(table, examples, heldout)]


def _read(table: RowsStage) -> list[Example]:
    try:
        return read_examples(table)
    except (NotFoundError, InvalidInputError, MissingDependencyError):
        return []


def _notes(table: RowsStage, examples: Sequence[Example], heldout: set[QuestionKey]) -> Iterator[str]:
    shared = [number for number, example in enumerate(examples, 1) if not heldout.isdisjoint(_questions(example))]
    if shared:
        yield (
            f"{', '.join(table.path)}: {len(shared)} of {len(examples)} examples answer questions that are held out, "
            f"the first is number {shared[0]}: accuracy on held-out problems is not that of new ones"
        )


def _questions(example: Example) -> Iterator[QuestionKey]:
    for turn in example:
        prompt = [{"role": "user", "content": turn.prompt}] if isinstance(turn.prompt, str) else turn.prompt
        yield conversation_key((message["role"], message["content"]) for message in prompt)
