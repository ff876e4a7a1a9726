"""`perilune curate` on a set with planted faults: how many of each kind are found, and how many good prompts are lost.

    python -m benchmarks.curation [--good 2000] [--planted 200] [--rows 0] [--json]

Good prompts are problems of reasoning-gym's generators and of sentences written here. Planted are copies (exact, in
other case, blanks or list numbers), copies in other words, questions of an evaluation set, question types, and
placeholders where a reference should be. With --rows N the text stages are also timed on N rows. Guesses, and
references that are wrong numbers, need a model and are not measured here.
"""

from __future__ import annotations

import argparse
import json
import operator
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from perilune.curation.pipeline import curate
from perilune.curation.plan import read_plan
from perilune.local import own_reward

GENERATORS = (
    "basic_arithmetic", "chain_sum", "gcd", "lcm", "leg_counting", "prime_factorization", "simple_equations",
    "gsm_symbolic", "fraction_simplification", "number_sequence", "time_intervals",
)  # fmt: skip
NAMES = "Ada Ben Cleo Dan Eva Finn Gus Hana Ian Jo Kim Leo Mia Noah Ola Pia Quinn Rosa Sam Tess".split()
THINGS = "apples books coins stamps marbles tickets shells pencils cards buttons keys stones".split()
SENTENCES: tuple[tuple[str, Callable[[int, int], int]], ...] = (
    ("{0} has {a} {1} and finds {b} more. How many {1} does {0} have now?", operator.add),
    ("A box holds {a} rows of {b} {1}. How many {1} are in the box of {0}?", operator.mul),
    ("{0} walks {a} metres, rests, and walks {b} metres on. How long is the way in metres?", operator.add),
    ("{0}'s train leaves at minute {a} and needs {b} minutes. At which minute does it arrive?", operator.add),
    ("The area of {0}'s garden is {a} times {b} square metres. Give it in square metres.", operator.mul),
    ("{0} saves {a} euros a week for {b} weeks to buy {1}. How much is saved?", operator.mul),
)
REWORDED = (
    ("How many", "Find how many"),
    ("Give it", "State it"),
    ("How much is", "What amount is"),
    ("At which minute does it arrive?", "When does it arrive? Give the minute."),
    ("How long is the way in metres?", "What is the length of the way in metres?"),
    ("does", "will"),
    ("now?", "in total now?"),
)
PLACEHOLDERS = ("see solution", "N/A", "left to the reader", "the figure")


def sentence(r: random.Random) -> tuple[str, str]:
    """A question of one of the sentences, and its answer."""
    text, answer = r.choice(SENTENCES)
    a, b = r.randrange(2, 400), r.randrange(2, 400)
    return text.format(r.choice(NAMES), r.choice(THINGS), a=a, b=b), str(answer(a, b))


def good_rows(number: int, seed: int) -> list[dict[str, str]]:
    """Good prompts: half from generators that people use, half from the sentences above."""
    import reasoning_gym

    r = random.Random(seed)
    each = number // 2 // len(GENERATORS) + 1
    rows = [
        {"question": str(item["question"]), "answer": str(item["answer"]), "kind": "good"}
        for name in GENERATORS
        for item in reasoning_gym.create_dataset(name, size=each, seed=seed)
    ]
    seen = {row["question"] for row in rows}
    while len(rows) < number:
        question, answer = sentence(r)
        if question not in seen:
            seen.add(question)
            rows.append({"question": question, "answer": answer, "kind": "good"})
    unique = {row["question"]: row for row in rows if row["answer"]}
    return list(unique.values())[:number]


def planted_rows(
    good: Sequence[dict[str, str]], evaluation: Sequence[str], number: int, seed: int
) -> list[dict[str, str]]:
    """So many faults of each kind, made of good rows."""
    r = random.Random(seed + 1)
    ours = [row for row in good if any(row["question"].startswith(f"{name} ") for name in NAMES)]

    def copies(kind: str, change: Callable[[str], str], source: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        picked = r.sample(list(source), min(number, len(source)))
        return [{"question": change(row["question"]), "answer": row["answer"], "kind": kind} for row in picked]

    forms: list[tuple[str, Callable[[str], str]]] = [
        ("exact copy", lambda q: q),
        ("case and blanks", lambda q: "  ".join(r.choice((q, q.upper(), q.lower())).split(" "))),
        (
            "list number",
            lambda q: f"{r.choice(('Problem {}: ', '{}. ', 'Q{}) ', '({}) '))}".format(r.randrange(1, 99)) + q,
        ),
    ]
    rows = [row for kind, change in forms for row in copies(kind, change, good)]
    rows += copies("other words", _reworded, ours)
    leaks = r.sample(list(evaluation), min(number, len(evaluation)))
    rows += [
        {"question": r.choice(("{}", "Solve this: {}", "12. {}")).format(q), "answer": "1", "kind": "leak"}
        for q in leaks
    ]
    types: list[tuple[str, Callable[[int, int], tuple[str, str]]]] = [
        (
            "multiple choice",
            lambda a, b: (f"What is {a} + {b}? (A) {a + b} (B) {a + b + 1} (C) {a * b} (D) {a - b}", "A"),
        ),
        ("true or false", lambda a, b: (f"True or false: {a} + {b} = {a + b + a % 2}", str(a % 2 == 0))),
        ("yes or no", lambda a, b: (f"Is {a * b} divisible by {a + 1}?", "no" if a * b % (a + 1) else "yes")),
        ("proof", lambda a, b: (f"Show that {a}n + {2 * b} is even whenever n is even.", "it is even")),
        (
            "several parts",
            lambda a, b: (f"Let f(x) = {a}x + {b}. (a) Find f(1). (b) Find f(2).", f"{a + b}, {2 * a + b}"),
        ),
        (
            "no reference",
            lambda a, b: (f"{r.choice(NAMES)} adds {a} and {b} and doubles that; name it.", r.choice(PLACEHOLDERS)),
        ),
    ]
    for kind, make in types:
        for _ in range(number):
            question, answer = make(r.randrange(2, 900), r.randrange(2, 900))
            rows.append({"question": question, "answer": answer, "kind": kind})
    return rows


def _reworded(question: str) -> str:
    for one, other in REWORDED:
        question = question.replace(one, other)
    return question


async def measure(num_good: int, num_planted: int, seed: int) -> dict[str, Any]:
    """The share found of each kind, and the share of good prompts lost."""
    import asyncio

    good = good_rows(num_good, seed)
    evaluation = [row["question"] for row in good_rows(400, seed + 77)]
    own = {row["question"] for row in good}
    evaluation = [question for question in evaluation if question not in own and len(question.split()) > 3]
    rows = [*good, *planted_rows(good, evaluation, num_planted, seed)]
    with tempfile.TemporaryDirectory(prefix="perilune-") as folder:
        raw, exam = Path(folder) / "raw.jsonl", Path(folder) / "exam.jsonl"
        raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
        exam.write_text("".join(json.dumps({"question": question}) + "\n" for question in evaluation))
        plan = read_plan(
            raw, [f"overlap.sets.exam.path={exam}", "verifiable.graders=[{name='math'}]", "input.labels=['kind']"]
        )
        async with own_reward() as address:
            out = Path(folder) / "out"
            await asyncio.to_thread(curate, plan, out, lambda _: None, address)
        kept = Counter(json.loads(line)["kind"] for line in (out / "prompts.jsonl").read_text().splitlines())
    given = Counter(row["kind"] for row in rows)
    return {kind: {"given": given[kind], "removed": 1 - kept[kind] / given[kind]} for kind in given}


def timed(num_rows: int) -> dict[str, float]:
    """Seconds of each text stage on rows of one template's kind: the worst case of near duplicates."""
    r = random.Random(5)
    with tempfile.TemporaryDirectory(prefix="perilune-") as folder:
        raw = Path(folder) / "raw.jsonl"
        with raw.open("w") as out:
            for _ in range(num_rows):
                question, answer = sentence(r)
                more = " ".join(r.choices(THINGS, k=12))
                out.write(json.dumps({"question": f"{question} There are also {more}.", "answer": answer}) + "\n")
        started = time.monotonic()
        report = curate(read_plan(raw, []), Path(folder) / "out", lambda _: None)
        seconds = {stage["name"]: stage["seconds"] for stage in report["stages"] if "seconds" in stage}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return seconds | {"all": round(time.monotonic() - started, 1), "peak_mib": round(peak)}


def main() -> None:
    """Prints the figures."""
    import asyncio

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--good", type=int, default=2000)
    parser.add_argument("--planted", type=int, default=200)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = asyncio.run(measure(given.good, given.planted, given.seed))
    times = timed(given.rows) if given.rows else {}
    if given.json:
        print(json.dumps({"found": found, "seconds": times}))
        return
    for kind, figures in found.items():
        print(f"{kind:<18}{figures['given']:>7,} given{100 * figures['removed']:>8.1f} % removed")
    for stage, seconds in times.items():
        print(f"{stage:<18}{seconds:>10}")


if __name__ == "__main__":
    main()
