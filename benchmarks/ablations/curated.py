"""Prompt files for the claim that curation pays: a raw set with planted faults, and what `perilune curate` leaves.

The model that measures difficulty and guesses is the run's own version 0, behind an endpoint, as a user would have it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from random import Random

from perilune.curation.pipeline import curate
from perilune.curation.plan import read_plan
from perilune.local import own_reward
from perilune.recipe import Recipe
from perilune.tasks import search

NUM_GOOD, NUM_WRONG, NUM_COPIES, NUM_TRIVIAL = 128, 96, 64, 32
NUM_HELD_OUT = 200
CURATED = "curated"

GRADERS = "[{name='exact', options={marker='answer:', unordered=true}}]"


def raw_rows(seed: int, num_numbers: int) -> list[dict[str, str]]:
    """Search problems: good ones, ones with another pair as reference, copies, and ones with a single pair to try."""
    problems = [search.problem(seed, index, num_numbers=num_numbers) for index in range(NUM_GOOD + NUM_WRONG)]
    good = [_row(each, each.answer) for each in problems[:NUM_GOOD]]
    wrong = [_row(each, _other_pair(each)) for each in problems[NUM_GOOD:]]
    trivial = [_row(each, each.answer) for each in (search.problem(seed, n, num_numbers=2) for n in range(NUM_TRIVIAL))]
    rows = [*good, *wrong, *good[:NUM_COPIES], *trivial]
    Random(seed).shuffle(rows)
    return rows


def prompt_files(folder: Path, seed: int, num_numbers: int, kind: str) -> dict[str, str]:
    """Paths of the raw or the curated set and of held-out problems; the curated one is made by `make_curated`."""
    folder.mkdir(parents=True, exist_ok=True)
    raw, held_out = folder / f"raw-{num_numbers}-{seed}.jsonl", folder / f"clean-{num_numbers}-{seed}.jsonl"
    if not raw.exists():
        _write(raw, raw_rows(seed, num_numbers))
    if not held_out.exists():
        problems = (search.problem(seed, n, num_numbers=num_numbers, held_out=True) for n in range(NUM_HELD_OUT))
        _write(held_out, [_row(each, each.answer) for each in problems])
    path = raw if kind == "raw" else folder / f"{CURATED}-{num_numbers}-{seed}.jsonl"
    return {"path": str(path), "heldout_path": str(held_out)}


def make_curated(recipe: Recipe, versions: Path) -> None:
    """Makes a recipe's curated prompt file from the raw one beside it, if it is missing."""
    path = Path(getattr(recipe.prompts, "path", None) or "none")
    if not path.name.startswith(f"{CURATED}-") or path.exists():
        return
    from benchmarks.ablations.loop import version_0

    with tempfile.TemporaryDirectory(prefix="perilune-") as folder:
        model, out = Path(folder) / "model", Path(folder) / "out"
        version_0(recipe, versions).save(model)
        asyncio.run(_curate(path.with_name(path.name.replace(CURATED, "raw", 1)), model, out))
        _write(path, [json.loads(line) for line in (out / "prompts.jsonl").read_text().splitlines()])


async def _curate(raw: Path, model: Path, out: Path) -> None:
    stages = ("difficulty", "guesses")
    plan = read_plan(
        raw,
        [
            "types.enabled=false",  # "which two of" is open here: the pair is searched for
            "verifiable.forms=['answer: {answer}']",
            *(f"{stage}.graders={GRADERS}" for stage in ("verifiable", *stages)),
            *(f"{stage}.model={{path='{model}', max_tokens=48}}" for stage in stages),
            "guesses.model.template='{question} answer:'",
        ],
    )
    async with own_reward() as address:
        await asyncio.to_thread(curate, plan, out, lambda line: print(line, file=sys.stderr), address)


def _other_pair(problem: search.Problem) -> str:
    first, second = sorted(set(problem.numbers) - set(problem.solution))[:2]
    return f"{first} {second}"


def _row(problem: search.Problem, answer: str) -> dict[str, str]:
    return {"question": search.question(problem), "answer": answer}


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
    partial.rename(path)
