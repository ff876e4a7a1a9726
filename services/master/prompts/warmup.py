"""Whether the warm-up teaches what is held out: its file is the trainer's, and read here only to be compared."""

from __future__ import annotations

from collections.abc import Iterator

from perilune.data.jsonlines import lines_of, parse_object
from perilune.data.rows import messages_of, plain_text
from perilune.errors import InvalidInputError, NotFoundError
from perilune.recipe import WarmupTable
from services.master.prompts import PromptSet
from services.master.prompts.prompt import QuestionKey, conversation_key, question_key

MAX_COMPARED = 10_000  # held-out prompts


def warmup_notes(table: WarmupTable | None, prompts: PromptSet) -> list[str]:
    """What a reader should know of a warm-up file: how many of its examples answer questions that are held out.

    A file that cannot be read here may lie where the trainer runs, which says what is wrong with it.
    """
    if table is None or table.path is None:
        return []
    try:
        asked = list(_questions(table.path))
    except (NotFoundError, InvalidInputError):
        return []
    heldout = {question_key(prompts.heldout(index)) for index in range(min(MAX_COMPARED, prompts.num_heldout))}
    shared = [number for number, key in asked if key in heldout]
    if not shared:
        return []
    return [
        f"{table.path}: {len(shared)} of {len(asked)} warm-up examples answer questions that are held out, the first "
        f"on line {shared[0]}: accuracy on held-out problems is not that of new ones"
    ]


def _questions(path: str) -> Iterator[tuple[int, QuestionKey]]:
    for number, line in lines_of(path):
        where = f"{path}:{number}"
        question = parse_object(line, where).get("question")
        if isinstance(question, list):
            messages = messages_of(question, where, "question")
            yield number, conversation_key((turn["role"], turn["content"]) for turn in messages)
        else:
            yield number, conversation_key([("user", plain_text(question, where, "question"))])
