"""Verified reasoning to train a judge on: `python -m services.reward.reasoning ROWS.jsonl --out FILE.jsonl`.

The judge that is set up (PERILUNE_JUDGE_URL, _MODEL) reasons about labelled answers, several times each. What led to
the label is kept, the rest is not (rejection sampling, as k1.5 §2.2 makes its reasoning paths). The rows that are
written hold what the judge was shown, the committed answer, for that is what it will be asked about.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from perilune.errors import InvalidInputError, PeriluneError
from perilune.grading.judge_prompts import is_hollow, judge_prompt, read_verdict
from perilune.grading.labelled_answers import LabelledAnswer, read_labelled_answers
from services.reward.answer_extraction import committed
from services.reward.graders.judge import VOTING_TEMPERATURE, Judge, configured_judge

AT_ONCE = 32  # answers under way


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Have a judge reason about labelled answers; keep what was right.")
    parser.add_argument("rows", type=Path, help="JSONL: question, reference, response, correct")
    parser.add_argument("--out", required=True, type=Path, help="the file to write; must not exist yet")
    parser.add_argument("--tries", type=int, default=4, help="for each answer, at most")
    parser.add_argument("--temperature", type=float, default=VOTING_TEMPERATURE)
    arguments = parser.parse_args()
    try:
        rows = read_labelled_answers(arguments.rows)
        if arguments.out.exists():
            raise InvalidInputError(f"{arguments.out} exists already; name a new file")
        num_kept = asyncio.run(write(arguments.out, rows, arguments.tries, arguments.temperature))
    except PeriluneError as error:
        sys.exit(f"error: {error}")
    print(f"kept reasoning for {num_kept} of {len(rows)} answers in {arguments.out}")


async def write(path: Path, rows: Sequence[LabelledAnswer], num_tries: int, temperature: float) -> int:
    """Writes the rows whose reasoning led to their label, as they come; how many. Raises what `Judge.replies` does."""
    num_kept = 0
    with path.open("x", encoding="utf-8") as file:
        async for row in verified(configured_judge(), rows, num_tries, temperature):
            file.write(row.model_dump_json() + "\n")
            num_kept += 1
    return num_kept


async def verified(
    judge: Judge, rows: Sequence[LabelledAnswer], num_tries: int, temperature: float
) -> AsyncIterator[LabelledAnswer]:
    """The rows with reasoning that led to their label."""
    for start in range(0, len(rows), AT_ONCE):
        part = [reason(judge, row, num_tries, temperature) for row in rows[start : start + AT_ONCE]]
        for row in await asyncio.gather(*part):
            if row:
                yield row


async def reason(judge: Judge, row: LabelledAnswer, num_tries: int, temperature: float) -> LabelledAnswer | None:
    """The row with the first reasoning that led to its label; None if none did, or there is nothing to judge."""
    answer = committed(row.response) or ""
    if is_hollow(answer):
        return None
    prompt = judge_prompt(row.question, row.reference, answer, judge.settings.prompt, secrets.randbelow)
    for reply in await judge.replies(prompt, num_tries, temperature):
        reasoning = reply[: max(0, reply.rfind("{"))].removesuffix("```json\n").strip()
        # The id is another one in training: reasoning that speaks of it would make no sense.
        if read_verdict(reply, prompt.id) is row.correct and reasoning and prompt.id not in reasoning:
            return row.model_copy(update={"response": answer, "reasoning": reasoning})
    return None


if __name__ == "__main__":
    main()
