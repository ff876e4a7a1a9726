"""`perilune curate` on a set with planted faults: how many of each kind are found, and how many good prompts are lost.

    python -m benchmarks.curation [--good 2000] [--planted 200] [--seed 0] [--json]
    python -m benchmarks.curation --rows 1000000 [--peer /path/to/python]

Good prompts are problems of reasoning-gym's generators and of sentences written here. Planted are copies (exact, in
other signs, in other words), questions of an evaluation set (as they are, reworded, inside a longer text), question
types, references that are none, references that are wrong, questions that are trivial, and questions that are guessed.
The last three need a model: a stand-in behind an endpoint gives the right answer with a given probability, always to
what is written to be trivial, and guesses what is written to be guessed. It shows what the rules do with answers, not
what a model knows.

With --rows the text stages are timed on N rows instead, and with --peer datatrove (in that Python's environment) does
exact and MinHash de-duplication and n-gram decontamination of the same rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import operator
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path
from typing import Any

from perilune.curation.pipeline import curate
from perilune.curation.plan import read_plan
from perilune.curation.question_types import OPEN, TYPES, type_of
from perilune.curation.text import cleaned
from perilune.local import own_reward
from tests.model_endpoint import served

GENERATORS = (
    "basic_arithmetic", "chain_sum", "gcd", "lcm", "leg_counting", "prime_factorization", "simple_equations",
    "gsm_symbolic", "fraction_simplification", "number_sequence", "time_intervals", "spell_backward", "letter_counting",
    "number_sorting", "calendar_arithmetic", "count_primes", "products", "decimal_arithmetic", "power_function",
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
    ("How many", "Find how many"), ("How many", "What is the number of"), ("Give it", "State it"),
    ("How much is", "What amount is"), ("At which minute does it arrive?", "When does it arrive? Give the minute."),
    ("How long is the way in metres?", "What is the length of the way in metres?"), ("finds", "discovers"),
    ("now?", "in total now?"), ("has", "owns"), ("holds", "contains"), ("walks", "strolls"), ("saves", "puts aside"),
    ("needs", "takes"), ("leaves", "departs"), ("to buy", "to purchase"), ("metres", "meters"), ("garden", "yard"),
)  # fmt: skip
WORDS = {"2": "two", "3": "three", "4": "four", "7": "seven", "9": "nine", "12": "twelve", "15": "fifteen"}
PLACEHOLDERS = (
    "see solution", "N/A", "left to the reader", "the figure", "See page 12.", "answer not provided", "TBD", "-", "???",
    "Refer to the solution manual", "Answers may vary", "none", "not available", "proof omitted", "null", "[image]",
)  # fmt: skip
LONGER = (
    "{}", "Solve this: {}", "12. {}", "Here is one from last year's exam, which I liked. {} Thanks in advance!",
    "I am preparing for a test and have been stuck for days. The question says: \"{}\" Could you help me with it, please?",
    "Context: pupils of class 4 solved these on Monday. {} They had ten minutes for it, and pens of three colours.",
)  # fmt: skip

Rows = list[dict[str, str]]


def sentence(r: random.Random) -> tuple[str, str]:
    """A question of one of the sentences, and its answer."""
    text, answer = r.choice(SENTENCES)
    a, b = r.randrange(2, 400), r.randrange(2, 400)
    return text.format(r.choice(NAMES), r.choice(THINGS), a=a, b=b), str(answer(a, b))


def good_rows(number: int, seed: int) -> Rows:
    """Good prompts: half from generators that people use, half from the sentences above."""
    import reasoning_gym

    r = random.Random(seed)
    each = number // 2 // len(GENERATORS) + 1
    rows = [
        {"question": str(item["question"]), "answer": str(item["answer"]), "kind": "good"}
        for name in GENERATORS
        for item in reasoning_gym.create_dataset(name, size=each, seed=seed)
        if type_of(str(item["question"]), str(item["answer"])) == OPEN
        or not re.search(r"(?i)yes or no", item["question"])
    ]
    seen = {row["question"] for row in rows}
    while len(rows) < number:
        question, answer = sentence(r)
        if question not in seen:
            seen.add(question)
            rows.append({"question": question, "answer": answer, "kind": "good"})
    unique = {row["question"]: row for row in rows if row["answer"]}
    return list(unique.values())[:number]


def other_signs(question: str, r: random.Random) -> str:
    """A question in other signs that mean the same."""
    changes: list[Callable[[str], str]] = [
        lambda q: "  ".join(q.split(" ")),
        lambda q: r.choice((q.upper(), q.lower())),
        lambda q: q.replace(" ", "\u00a0"),
        lambda q: q.replace("e", "e\u200b", 2),
        lambda q: q.translate(str.maketrans("0123456789", "０１２３４５６７８９")),
        lambda q: q.replace("*", "×").replace(" - ", " − "),
        lambda q: re.sub(r"(\d+) \+ (\d+)", r"$\1 + \2$", q),
        lambda q: q.replace("'", "’").rstrip(".?") + r.choice(("", "?", " ?", ".", "…")),
        lambda q: q.replace("a", "а", 1),  # a Cyrillic one
        lambda q: f"**{q}**",
        lambda q: re.sub(r"\b(\d)(\d{3})\b", r"\1,\2", q),
    ]
    return r.choice(changes)(question)


def with_number(question: str, r: random.Random) -> str:
    """A question with a list's number."""
    form = r.choice(
        ("Problem {}: ", "{}. ", "Q{}) ", "({}) ", "[{}] ", "Exercise {}. ", "#{} ", "**Question {}:** ", "- ", "{}) ",
         "Question {}\n", "No. {}: ", "Task {} - ", "1.{}. ")
    )  # fmt: skip
    return form.format(r.randrange(1, 99)) + question


def reworded(question: str, r: random.Random) -> str:
    """A question in other words."""
    picked = r.sample(REWORDED, 9)
    for one, other in picked:
        question = re.sub(rf"\b{re.escape(one)}" + (r"\b" if one[-1].isalpha() else ""), other, question, count=1)
    if r.random() < 0.3:
        question = re.sub(r"\b\d+\b", lambda match: WORDS.get(match[0], match[0]), question)
    return r.choice(("{}", "Please answer: {}", "{} Give a number.")).format(question)


def planted_rows(good: Rows, evaluation: Sequence[str], number: int, seed: int) -> Rows:
    """So many faults of each kind, made of good rows."""
    r = random.Random(seed + 1)
    ours = [row for row in good if any(row["question"].startswith((f"{name} ", f"{name}'s")) for name in NAMES)]
    plain = [
        row for row in good if "\n" not in row["question"] and not re.search(r"['\"][A-Za-z]|\bword\b", row["question"])
    ]

    def copies(kind: str, change: Callable[[str], str], source: Rows) -> Rows:
        picked = r.sample(source, min(number, len(source)))
        return [{"question": change(row["question"]), "answer": row["answer"], "kind": kind} for row in picked]

    rows = copies("exact copy", lambda q: q, good)
    rows += copies("other signs", lambda q: other_signs(q, r), plain)
    rows += copies("list number", lambda q: with_number(q, r), good)
    rows += copies("other words", lambda q: reworded(q, r), ours)
    leaks = r.sample(list(evaluation), min(number, len(evaluation)))
    rows += [{"question": r.choice(LONGER).format(q), "answer": "1", "kind": "leak"} for q in leaks]
    named = [q for q in evaluation if q.startswith(tuple(NAMES))]
    rows += [{"question": reworded(q, r), "answer": "1", "kind": "leak in other words"} for q in named[:number]]
    for kind, make in PLANTED.items():
        for _ in range(number):
            question, answer = make(r.randrange(2, 900), r.randrange(2, 900), r)
            rows.append({"question": question, "answer": answer, "kind": kind})
    r.shuffle(rows)
    return rows


def _choice(a: int, b: int, r: random.Random) -> tuple[str, str]:
    options = r.sample([a + b, a + b + 1, a * b + 7, abs(a - b) + 2], 4)
    place = options.index(a + b)
    marks, end = r.choice(
        [(["(A)", "(B)", "(C)", "(D)"], " "), (["A.", "B.", "C.", "D."], "\n"), (["a)", "b)", "c)", "d)"], "\n"),
         (["[A]", "[B]", "[C]", "[D]"], " "), (["1)", "2)", "3)", "4)"], "\n"), (["A:", "B:", "C:", "D:"], "; ")]
    )  # fmt: skip
    stem = f"What is {a} + {b}?" if marks[0] != "1)" else f"Choose the correct value of {a} + {b}:"
    listed = end.join(f"{mark} {option}" for mark, option in zip(marks, options, strict=True))
    sign = marks[place].strip("()[].:")
    return f"{stem}{r.choice(' ' + chr(10))}{listed}", r.choice((sign, marks[place], str(a + b)))


def _of_list(a: int, b: int, r: random.Random) -> tuple[str, str]:
    asked = r.choice(
        ("Which of the following is even", "Which one of these numbers is even", "Among the following, which is even")
    )
    return f"{asked}: {2 * a + 1}, {2 * b}, {2 * b + 5}?", str(2 * b)


def _true_false(a: int, b: int, r: random.Random) -> tuple[str, str]:
    claim, holds = f"{a} + {b} = {a + b + a % 2}", a % 2 == 0
    form = r.choice(
        ("True or false: {}", "{}. True/False?", "State whether the statement \"{}\" is correct.", "{}",
         "Judge: is the claim {} true?", "Decide if the following holds: {}")
    )  # fmt: skip
    return form.format(claim), r.choice((str(holds), str(holds).lower(), "T" if holds else "F"))


def _yes_no(a: int, b: int, r: random.Random) -> tuple[str, str]:
    form = r.choice(
        ("Is {} divisible by {}?", "Determine whether {} is a multiple of {}.", "Can {} be divided by {} without a remainder?",
         "Does {1} divide {0}?", "Tell me if {} is divisible by {}.", "{} is a multiple of {}, isn't it?")
    )  # fmt: skip
    right = a * b % (a + 1) == 0
    return form.format(a * b, a + 1), r.choice(
        ("yes", "Yes.", "Yes, it is") if right else ("no", "No.", "No, it isn't")
    )


def _proof(a: int, b: int, r: random.Random) -> tuple[str, str]:
    form = r.choice(
        ("Show that {} is even whenever n is even.", "Prove that {} is even for all even n.", "Let n be even. Verify that {} is even.",
         "Demonstrate that {} is even if n is.", "Explain why {} is even for even n.", "Let n be even; deduce that {} is even.",
         "Show {} is even for every even n.")
    )  # fmt: skip
    return form.format(f"{a}n + {2 * b}"), "it is even"


def _parts(a: int, b: int, r: random.Random) -> tuple[str, str]:
    form = r.choice(
        ("(a) Find f(1). (b) Find f(2).", "a) Compute f(1). b) Compute f(2).", "(i) What is f(1)? (ii) What is f(2)?",
         "Find f(1). Also find f(2).", "What is f(1)? What is f(2)?", "\n1. Find f(1).\n2. Find f(2).",
         "Part 1: find f(1). Part 2: find f(2).", "First determine f(1). Then determine f(2).")
    )  # fmt: skip
    return f"Let f(x) = {a}x + {b}. {form}", r.choice((f"{a + b}, {2 * a + b}", f"{a + b}"))


def _wrong(a: int, b: int, r: random.Random) -> tuple[str, str]:
    """A question that only a model can answer, or bare arithmetic, with a reference that is wrong."""
    question, answer = sentence(r)
    if r.random() < 0.25:
        sign, value = r.choice((("+", a + b), ("-", a - b), ("*", a * b), ("×", a * b)))
        form = r.choice(("What is {} {} {}?", "Calculate {} {} {}.", "{} {} {} =", "Find the value of {} {} {}."))
        question, answer = form.format(a, sign, b), str(value)
    return question.replace("metres", "yards"), str(int(answer) + r.choice((-10, -1, 1, 2, 7, 100)))


def _trivial(a: int, b: int, r: random.Random) -> tuple[str, str]:
    return f"{r.choice(NAMES)} writes down the number {a}. Which number does {r.choice(NAMES)} read there?", str(a)


def _guessed(a: int, b: int, r: random.Random) -> tuple[str, str]:
    asked = r.choice(
        (f"What is the product of {a}, {b} and 0?", f"How many legs has {r.choice(NAMES)}'s dog, of {a} months?",
         f"What is the last digit of {10 * a} times {b}?", f"What is {a} to the power of 0, times {b} over {b}?")
    )  # fmt: skip
    return asked, "0" if "product" in asked or "digit" in asked else "4" if "legs" in asked else "1"


PLANTED: Mapping[str, Callable[[int, int, random.Random], tuple[str, str]]] = {
    "multiple choice": _choice,
    "which of these": _of_list,
    "true or false": _true_false,
    "yes or no": _yes_no,
    "either or": lambda a, b, r: (f"Is {a} odd or even, if {b} is added to it?", "even" if (a + b) % 2 == 0 else "odd"),
    "proof": _proof,
    "several parts": _parts,
    "no reference": lambda a, b, r: (
        f"{r.choice(NAMES)} adds {a} and {b} and doubles that; name it.",
        r.choice(PLACEHOLDERS),
    ),
    "guessable": _guessed,
    "trivial": _trivial,
    "wrong reference": _wrong,
}


# --- A stand-in for a model -------------------------------------------------------------------------------------------


def solver(rows: Rows, skill: float) -> AbstractContextManager[str]:
    """An endpoint that answers rightly with this probability, always what is trivial, and guesses what is guessable.

    Its nth answer to a prompt is the same in each run. Gives its URL.
    """
    right = {cleaned(row["question"]): _truth(row) for row in rows}
    kinds = {cleaned(row["question"]): row["kind"] for row in rows}
    asked: Counter[str] = Counter()
    lock = threading.Lock()

    def reply(body: dict[str, Any]) -> tuple[int, str]:
        prompt = body["messages"][-1]["content"]
        with lock:
            asked[prompt] += 1
            r = random.Random(f"{prompt}/{asked[prompt]}")
        question, _, at_once = prompt.partition("\n\nGive the final answer at once")
        kind = kinds.get(question)
        guesses = kind == "guessable" and r.random() < 0.5
        knows = guesses if at_once else kind == "trivial" or r.random() < skill
        return 200, f"\\boxed{{{right.get(question, '0') if knows else r.randrange(10**6, 10**7)}}}"

    return served(reply)


def _truth(row: Mapping[str, str]) -> str:
    """The right answer, also where the reference is wrong."""
    if row["kind"] != "wrong reference":
        return row["answer"]
    for text, answer in SENTENCES:
        pattern = re.escape(text.replace("metres", "yards")).replace(r"\{0\}", r"\w+").replace(r"\{1\}", r"\w+")
        match = re.fullmatch(pattern.replace(r"\{a\}", r"(\d+)").replace(r"\{b\}", r"(\d+)"), row["question"])
        if match:
            return str(answer(int(match[1]), int(match[2])))
    return row["answer"]


# --- What is found ----------------------------------------------------------------------------------------------------


async def measure(num_good: int, num_planted: int, seed: int, skill: float) -> dict[str, Any]:
    """The share found of each kind, and the share of good prompts lost."""
    good = good_rows(num_good, seed)
    own = {row["question"] for row in good}
    others = [row["question"] for row in good_rows(800, seed + 77)]
    evaluation = [question for question in others if question not in own and len(question.split()) > 3]
    rows = [*good, *planted_rows(good, evaluation, num_planted, seed)]
    with tempfile.TemporaryDirectory(prefix="perilune-") as folder, solver(rows, skill) as url:
        raw, exam = Path(folder) / "raw.jsonl", Path(folder) / "exam.jsonl"
        raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
        exam.write_text("".join(json.dumps({"question": question}) + "\n" for question in evaluation))
        model = [
            f"{stage}.model.{key}={value}"
            for stage in ("difficulty", "guesses")
            for key, value in (("url", url), ("model", "stand-in"))
        ]
        graders = [f"{stage}.graders=[{{name='math'}}]" for stage in ("verifiable", "difficulty", "guesses")]
        asked = model if skill else []
        plan = read_plan(raw, [f"overlap.sets.exam.path={exam}", "input.labels=['kind']", *graders, *asked])
        async with own_reward() as address:
            out = Path(folder) / "out"
            await asyncio.to_thread(curate, plan, out, lambda line: print(line, file=sys.stderr), address)
        kept = Counter(json.loads(line)["kind"] for line in (out / "prompts.jsonl").read_text().splitlines())
    given = Counter(row["kind"] for row in rows)
    return {kind: {"given": given[kind], "removed": 1 - kept[kind] / given[kind]} for kind in given}


def labelled_types() -> dict[str, dict[str, float]]:
    """Precision and recall of the rules for types, on the labelled questions that Perilune ships."""
    lines = (
        resources.files("perilune.curation").joinpath("labelled_types.jsonl").read_text(encoding="utf-8").splitlines()
    )
    rows = [json.loads(line) for line in lines]
    said = [(row["type"], type_of(row["question"], row["answer"])) for row in rows]
    found = {}
    for kind in (*TYPES, OPEN):
        both = sum(label == kind == rule for label, rule in said)
        found[kind] = {
            "number": sum(label == kind for label, _ in said),
            "precision": both / max(1, sum(rule == kind for _, rule in said)),
            "recall": both / max(1, sum(label == kind for label, _ in said)),
        }
    return found


# --- How long it takes ------------------------------------------------------------------------------------------------

LEXICON_SIZE = 20_000


def timed_rows(path: Path, num_rows: int) -> None:
    """Writes rows of prose, of which one in ten is a copy, and one in twenty a question of a template."""
    r = random.Random(5)
    lexicon = ["".join(r.choices("abcdefghijklmnoprstuvwy", k=r.randrange(3, 10))) for _ in range(LEXICON_SIZE)]
    weights = [1 / (rank + 10) for rank in range(LEXICON_SIZE)]
    recent: list[str] = []
    with path.open("w") as out:
        for number in range(num_rows):
            if recent and r.random() < 0.1:
                question = with_number(r.choice(recent), r)
            elif r.random() < 0.05:
                question = sentence(r)[0]
            else:
                said = r.choices(lexicon, weights, k=r.randrange(15, 60))
                question = f"{' '.join(said)} {r.randrange(10**4)} and {r.randrange(10**4)}. How many are there?"
            recent = [*recent[-200:], question]
            out.write(
                json.dumps({"question": question, "answer": str(r.randrange(999)), "text": question, "id": number})
                + "\n"
            )


def timed(num_rows: int, peer: str) -> dict[str, float]:
    """Seconds and memory of the text stages, and of the peer, on the same rows."""
    with tempfile.TemporaryDirectory(prefix="perilune-") as folder:
        raw, exam = Path(folder) / "raw.jsonl", Path(folder) / "exam.jsonl"
        timed_rows(raw, num_rows)
        exam.write_text("".join(json.dumps({"question": row["question"]}) + "\n" for row in good_rows(1000, 3)))
        started, cpu_s = time.monotonic(), _cpu_s()
        plan = read_plan(raw, [f"overlap.sets.exam.path={exam}"])
        report = curate(plan, Path(folder) / "out", lambda line: print(line, file=sys.stderr))
        figures = {"read": report["input"]["seconds"]}
        figures |= {stage["name"]: stage["seconds"] for stage in report["stages"] if "seconds" in stage}
        figures |= {
            "all": round(time.monotonic() - started, 1),
            "processor seconds": round(_cpu_s() - cpu_s, 1),
            "peak MiB of this process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "peak MiB of a worker": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
            "kept": report["num_kept"],
        }
        if peer:
            script = Path(__file__).parent / "peers" / "datatrove_curation.py"
            done = subprocess.run(
                [peer, str(script), str(raw), str(exam), f"{folder}/peer"], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise SystemExit(f"the peer failed:\n{done.stderr[-2000:]}")
            figures |= {f"datatrove: {name}": value for name, value in json.loads(done.stdout.splitlines()[-1]).items()}
        return figures


def _cpu_s() -> float:
    usage = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in usage)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--good", type=int, default=2000)
    parser.add_argument("--planted", type=int, default=200)
    parser.add_argument("--skill", type=float, default=0.6, help="of the stand-in for a model; 0: without one")
    parser.add_argument("--rows", type=int, default=0, help="times so many rows instead")
    parser.add_argument("--peer", default="", metavar="PYTHON", help="an environment that has datatrove[processing]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.rows:
        figures = timed(given.rows, given.peer)
        print(
            json.dumps(figures)
            if given.json
            else "\n".join(f"{name:<40}{value:>12,}" for name, value in figures.items())
        )
        return
    types = labelled_types()
    found = asyncio.run(measure(given.good, given.planted, given.seed, given.skill))
    if given.json:
        print(json.dumps({"types": types, "found": found}))
        return
    for kind, each in types.items():
        print(
            f"{kind:<22}{each['number']:>5} labelled{100 * each['precision']:>8.1f} % precision{100 * each['recall']:>8.1f} % recall"
        )
    for kind, each in sorted(found.items(), key=lambda item: (item[0] != "good", item[0])):
        print(f"{kind:<22}{each['given']:>7,} given{100 * each['removed']:>8.1f} % removed")


if __name__ == "__main__":
    main()
