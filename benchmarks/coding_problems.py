"""Coding problems written for `benchmarks.testgen`: statements, right programs, wrong ones, malformed inputs.

A problem's input has a shape, in a small language that a reader of programs, a generator and a validator are made of:

    n:1..60 / a[n]:-99..99      a line with n, then a line with n integers
    n:2..20 m:1..9 / m* u:1..n v:1..n     m lines with two integers each; bounds may be names that came before
    s:ab{1..30}                 a word of these letters, so long
    r:1..8 c:1..8 / r* g:.#{c..c}     r lines with a word of c letters each

A right or wrong program is an expression over these names, or lines that set `answer`. Each is written out in several
ways (read by tokens or by lines, in a function or not), as submissions of one method differ. The last of a problem's right
methods has no part in making its tests, and measures them.
"""

# ruff: noqa: E501 - programs are written one a line

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any


@dataclass(frozen=True)
class CodingProblem:
    """A problem: with `arguments` it is a function `solve` of these names, else a program."""

    id: str
    shape: str
    statement: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    checker: str = ""
    generator: str = ""


# --- Shapes: this source is part of every generator and validator -----------------------------------------------------

SHAPES = r'''
import json, random, re, sys

def fields_of(shape):
    """Lines as (repeat, fields); a field is (kind, name, count, alphabet, low, high)."""
    for line in shape.split(" / "):
        repeat, star, rest = line.partition("* ")
        words = (rest if star else line).split(" ")
        yield (repeat if star else ""), [field_of(word) for word in words]

def field_of(word):
    name, _, rest = word.partition(":")
    if "{" in rest:
        alphabet, _, length = rest[:-1].rpartition("{")
        low, high = length.split("..")
        return "word", name, "", alphabet, low, high
    low, high = rest.split("..")
    if "[" in name:
        name, _, count = name[:-1].partition("[")
        return "list", name, count, "", low, high
    return "int", name, "", "", low, high

def bound(text, known):
    return known[text] if text in known else int(text)
'''
GENERATOR = (
    SHAPES
    + r"""
kind, index = sys.argv[2], int(sys.argv[3])

def size(low, high):
    if kind == "small": return min(high, low + index // 3)
    if kind == "extreme": return high if index % 3 else low
    return random.randint(low, high)

def numbers(count, low, high):
    if kind == "extreme":
        few = random.choice(([low], [high], [low, high], list({min(max(x, low), high) for x in (-1, 0, 1)})))
        return [random.choice(few) for _ in range(count)]
    if kind == "small": return [random.randint(max(low, min(0, high - 2)), min(high, max(low, 0) + 2)) for _ in range(count)]
    found = [random.randint(low, high) for _ in range(count)]
    if kind == "adversarial":
        near = random.randint(low, high)
        found = random.choice((
            sorted(found), sorted(found, reverse=True), found[:1] * count, [random.choice(found[:2]) for _ in found],
            [min(high, max(low, near + random.choice((-1, 0, 1)))) for _ in found],
            [min(high, low + at) for at in range(count)], [(low, high)[at % 2] for at in range(count)],
        ))
    return found

def word(alphabet, count):
    found = [random.choice(alphabet) for _ in range(count)]
    if kind in ("adversarial", "extreme", "small"):
        half = found[: (count + 1) // 2]
        found = random.choice((
            found, found[:1] * count, half + half[: count // 2][::-1], (alphabet * count)[:count], sorted(found),
            (half + half)[:count], [alphabet[0]] * (count - 1) + [alphabet[-1]],
        ))
    return "".join(found)

known, lines = {}, []
for repeat, fields in fields_of(SHAPE):
    for _ in range(known[repeat] if repeat else 1):
        said = []
        for form, name, count, alphabet, low, high in fields:
            low, high = bound(low, known), bound(high, known)
            if form == "word": value = word(alphabet, size(low, high)); said.append(value)
            elif form == "list": value = numbers(known[count], low, high); said += value
            else:
                counts = re.search(rf"\[{name}\]|/ {name}\*|[{{.]{name}\b", SHAPE)
                value = size(low, high) if counts else numbers(1, low, high)[0]
                said.append(value)
            known[name] = known.get(name, []) + [value] if repeat else value
        lines.append(" ".join(map(str, said)))
print(json.dumps([known[name] for name in ARGUMENTS]) if ARGUMENTS else "\n".join(lines))
"""
)
VALIDATOR = (
    SHAPES
    + r"""
INTEGER = re.compile(r"0|-?[1-9][0-9]*")

def check(truth):
    if not truth: sys.exit(1)

def integer(text, low, high, known):
    check(INTEGER.fullmatch(text))
    check(bound(low, known) <= int(text) <= bound(high, known))
    return int(text)

def letters(text, alphabet, low, high, known):
    check(bound(low, known) <= len(text) <= bound(high, known) and set(text) <= set(alphabet))

text = sys.stdin.read()
if ARGUMENTS:
    try: values = json.loads(text)
    except ValueError: sys.exit(1)
    check(isinstance(values, list) and len(values) == len(ARGUMENTS))
    fields = {field[1]: field for _, line in fields_of(SHAPE) for field in line}
    known = {fields[name][2]: len(value) for name, value in zip(ARGUMENTS, values) if isinstance(value, list)}
    for name, value in zip(ARGUMENTS, values):
        form, _, count, alphabet, low, high = fields[name]
        if form == "word":
            check(isinstance(value, str)); letters(value, alphabet, low, high, known)
        elif form == "list":
            check(isinstance(value, list)); integer(str(len(value)), *fields[count][4:], {})
            for item in value: check(type(item) is int); integer(str(item), low, high, known)
        else: check(type(value) is int); integer(str(value), low, high, known)
    sys.exit(0)
lines, known = text.split("\n"), {}
if lines and lines[-1] == "": lines.pop()
for repeat, fields in fields_of(SHAPE):
    for _ in range(known[repeat] if repeat else 1):
        check(lines)
        words = lines.pop(0).split(" ")
        for form, name, count, alphabet, low, high in fields:
            for _ in range(known[count] if form == "list" else 1):
                check(words)
                if form == "word": letters(words.pop(0), alphabet, low, high, known)
                else:
                    value = integer(words.pop(0), low, high, known)
                    if form == "int": known.setdefault(name, value)
        check(not words)
check(not lines)
"""
)


def generator_of(problem: CodingProblem) -> str:
    """The source of the problem's generator."""
    return problem.generator or _with_shape(problem, GENERATOR)


def validator_of(problem: CodingProblem) -> str:
    """The source of the problem's validator."""
    return _with_shape(problem, VALIDATOR)


def _with_shape(problem: CodingProblem, source: str) -> str:
    return f"SHAPE, ARGUMENTS = {problem.shape!r}, {problem.arguments!r}\n{source}"


# --- Submissions ------------------------------------------------------------------------------------------------------


def submissions(problem: CodingProblem, method: str) -> list[str]:
    """One method written out in several ways."""
    if problem.arguments:
        return _functions(problem, method)
    body = _body(method)
    imports = "import sys, math, heapq, bisect, itertools\nfrom collections import Counter, defaultdict, deque\n"
    said = "print(*answer) if isinstance(answer, list) else print(answer)\n"
    tokens, lines = "".join(_by_tokens(problem.shape)), "".join(_by_lines(problem.shape))
    return [
        f"{imports}{tokens}{body}{said}",
        f"{imports}{lines}{body}{said}",
        f"{imports}def main():\n{_indented(tokens + body + said)}main()\n",
        f"{imports}def read():\n    return sys.stdin.readline()\n{lines.replace('input()', 'read()')}{body}{said}",
        f"{imports}def solve():\n{_indented(lines + body + said)}if __name__ == '__main__':\n    solve()\n",
    ]


def _functions(problem: CodingProblem, method: str) -> list[str]:
    names = ", ".join(problem.arguments)
    imports = "import math, heapq, bisect, itertools\nfrom collections import Counter, defaultdict, deque\n"
    body = _indented(_body(method) + "return answer\n")
    return [
        f"{imports}def solve({names}):\n{body}",
        f"{imports}class Solution:\n    def run(self, {names}):\n{_indented(body)}\ndef solve(*values):\n    return Solution().run(*values)\n",
        f"{imports}def helper({names}):\n{body}\nsolve = helper\n",
        f"{imports}def inner({names}):\n{body}\ndef solve({names}):\n    result = inner({names})\n    return result\n",
        f"{imports}def make():\n    def found({names}):\n{_indented(body)}    return found\nsolve = make()\n",
    ]


def _body(method: str) -> str:
    return method.strip("\n") + "\n" if re.search(r"^\s*answer\b.*=|\n", method) else f"answer = {method}\n"


def _indented(source: str) -> str:
    return "".join(f"    {line}\n" for line in source.splitlines())


def _fields(shape: str) -> Iterator[tuple[str, list[Any]]]:
    known: dict[str, Any] = {}
    exec(SHAPES, known)  # our own source, above
    yield from known["fields_of"](shape)


def _by_tokens(shape: str) -> Iterator[str]:
    yield "it = iter(sys.stdin.read().split())\n"
    for repeat, fields in _fields(shape):
        if repeat:
            yield "".join(f"{name} = []\n" for _, name, *_ in fields) + f"for _ in range({repeat}):\n"
        for form, name, count, *_ in fields:
            value = {"word": "next(it)", "int": "int(next(it))"}.get(form, f"[int(next(it)) for _ in range({count})]")
            yield f"    {name}.append({value})\n" if repeat else f"{name} = {value}\n"


def _by_lines(shape: str) -> Iterator[str]:
    for repeat, fields in _fields(shape):
        if repeat:
            yield "".join(f"{name} = []\n" for _, name, *_ in fields) + f"for _ in range({repeat}):\n"
        yield f"{'    ' if repeat else ''}words = input().split()\n"
        for at, (form, name, _, *_) in enumerate(fields):
            value = {"word": f"words[{at}]", "int": f"int(words[{at}])"}.get(form, f"list(map(int, words[{at}:]))")
            yield f"    {name}.append({value})\n" if repeat else f"{name} = {value}\n"


# --- Malformed inputs -------------------------------------------------------------------------------------------------


def malformed(problem: CodingProblem, valid: str, rng: Random) -> list[str]:
    """Inputs that the shape does not allow, each made of a valid one by one change."""
    if problem.arguments:
        values = json.loads(valid)
        return [
            "",
            valid[:-1],
            json.dumps([*values, 0]),
            json.dumps(values[:-1]),
            json.dumps({"values": values}),
            json.dumps([None, *values[1:]]),
            json.dumps([10**12 if isinstance(values[0], int) else [10**12] * 3, *values[1:]]),
        ]
    words = re.split(r"(\s+)", valid.strip("\n"))
    at = 2 * rng.randrange((len(words) + 1) // 2)

    def changed(word: str) -> str:
        return "".join([*words[:at], word, *words[at + 1 :]])

    return [
        "",
        f"{valid}\n7",
        f"{valid} 7",
        changed(f"{words[at]} x"),
        changed("x1y"),
        changed("1e3"),
        changed("-99999999999999"),
        changed("99999999999999"),
        changed("3.5"),
        valid.strip("\n").rpartition(" ")[0] if " " in valid else f"{valid} {valid}",
    ]


def rows(seed: int = 0) -> list[dict[str, Any]]:
    """The problems as `perilune testgen` reads them. The first right methods come first, ten submissions in all."""
    return [_row(problem, Random(f"{seed}/{problem.id}")) for problem in PROBLEMS]


def _row(problem: CodingProblem, rng: Random) -> dict[str, Any]:
    *used, heldout = [submissions(problem, method) for method in problem.right]
    makers = [source for ways in zip(*used, strict=True) for source in ways]
    assert len(makers) == 10, problem.id
    row = {
        "id": problem.id,
        "statement": problem.statement,
        "solutions": [*makers, *heldout],
        "wrong_solutions": [submissions(problem, method)[rng.randrange(5)] for method in problem.wrong],
        "generators": [generator_of(problem)],
        "validator": validator_of(problem),
        "malformed": [text for example in _examples(problem) for text in malformed(problem, example, rng)],
        "time_limit_s": 2,
    }
    if problem.arguments:
        row["entry_point"] = "solve"
    if problem.checker:
        row["checker"] = problem.checker
    return row


def _examples(problem: CodingProblem) -> list[str]:
    """Two valid inputs, by the problem's own generator, which is our own program."""
    import subprocess
    import sys

    seeded = f"import random, sys\nrandom.seed(sys.argv[1])\n{generator_of(problem)}"
    return [
        subprocess.run(
            [sys.executable, "-c", seeded, "malformed", "random", str(at), "2"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip("\n")
        for at in range(2)
    ]


LIST = "n:1..60 / a[n]:-99..99"
TWO = "n:1..40 k:1..40 / a[n]:-99..99"
WORD = "s:abc{1..40}"
GRAPH = "n:1..12 m:0..20 / m* u:1..n v:1..n"
GRID = "r:1..8 c:1..8 / r* g:.#{c..c}"

PROBLEMS: tuple[CodingProblem, ...] = (
    CodingProblem("sum-even", LIST, "Print the sum of the even numbers of a.",
        ("sum(x for x in a if x % 2 == 0)", "sum(a) - sum(x for x in a if x & 1)",
         "answer = 0\nfor x in a:\n    if not x % 2:\n        answer += x"),
        ("sum(x for x in a if x % 2)", "sum(x for x in a[1:] if x % 2 == 0)", "sum(abs(x) for x in a if x % 2 == 0)")),
    CodingProblem("second-largest", LIST, "Print the second largest of the different values of a, or none if all are equal.",
        ("sorted(set(a))[-2] if len(set(a)) > 1 else 'none'",
         "rest = [x for x in a if x != max(a)]\nanswer = max(rest) if rest else 'none'",
         "best = heapq.nlargest(2, set(a))\nanswer = best[1] if len(best) == 2 else 'none'"),
        ("sorted(a)[-2] if len(a) > 1 else 'none'", "sorted(set(a))[-2] if len(a) > 1 and len(set(a)) > 1 else max(a)",
         "rest = [x for x in a if x < max(a) and x >= 0]\nanswer = max(rest) if rest else 'none'")),
    CodingProblem("max-subarray", LIST, "Print the largest sum of a non-empty run of neighbours in a.",
        ("best = run = a[0]\nfor x in a[1:]:\n    run = max(x, run + x)\n    best = max(best, run)\nanswer = best",
         "max(sum(a[i:j]) for i in range(n) for j in range(i + 1, n + 1))",
         "low, total, answer = 0, 0, -10**9\nfor x in a:\n    total += x\n    answer = max(answer, total - low)\n    low = min(low, total)"),
        ("best = run = 0\nfor x in a:\n    run = max(0, run + x)\n    best = max(best, run)\nanswer = best",
         "max(sum(a[i:]) for i in range(n))", "sum(x for x in a if x > 0) or max(a)")),
    CodingProblem("inversions", LIST, "Print the number of pairs i < j with a_i > a_j.",
        ("sum(a[i] > a[j] for i in range(n) for j in range(i + 1, n))",
         "seen, answer = [], 0\nfor x in a:\n    answer += len(seen) - bisect.bisect_right(seen, x)\n    bisect.insort(seen, x)",
         "sum(sum(y < x for y in a[i + 1:]) for i, x in enumerate(a))"),
        ("sum(a[i] >= a[j] for i in range(n) for j in range(i + 1, n))", "sum(a[i] > a[i + 1] for i in range(n - 1))",
         "sum(a[i] > a[j] for i in range(n) for j in range(n)) // 2 + (n > 30)")),
    CodingProblem("kth-smallest", "n:1..40 k:1..n / a[n]:-99..99", "Print the k-th smallest of a, repeated values counted.",
        ("sorted(a)[k - 1]", "heapq.nsmallest(k, a)[-1]", "min(x for x in a if sum(y <= x for y in a) >= k)"),
        ("sorted(set(a))[min(k, len(set(a))) - 1]", "sorted(a)[k % n]", "sorted(a, key=abs)[k - 1]")),
    CodingProblem("rotate-left", "n:1..40 k:0..99 / a[n]:-99..99", "Rotate a by k places to the left and print it.",
        ("a[k % n:] + a[:k % n]", "[a[(i + k) % n] for i in range(n)]",
         "d = deque(a)\nd.rotate(-k)\nanswer = list(d)"),
        ("a[k:] + a[:k]", "a[-k % n:] + a[:-k % n]", "a[k % (n + 1):] + a[:k % (n + 1)]")),
    CodingProblem("majority", LIST, "Print the value that occurs in more than half of the places of a, or none.",
        ("next((x for x in set(a) if a.count(x) * 2 > n), 'none')",
         "x, c = Counter(a).most_common(1)[0]\nanswer = x if 2 * c > n else 'none'",
         "x = sorted(a)[n // 2]\nanswer = x if a.count(x) > n // 2 else 'none'"),
        ("next((x for x in set(a) if a.count(x) * 2 >= n), 'none')", "Counter(a).most_common(1)[0][0]",
         "next((x for x in set(a) if a.count(x) > n // 2 + 1), 'none')")),
    CodingProblem("longest-run", LIST, "Print the length of the longest run of equal neighbours in a.",
        ("max(len(list(g)) for _, g in itertools.groupby(a))",
         "best = run = 1\nfor x, y in zip(a, a[1:]):\n    run = run + 1 if x == y else 1\n    best = max(best, run)\nanswer = best",
         "max(j - i for i in range(n) for j in range(i + 1, n + 1) if len(set(a[i:j])) == 1)"),
        ("max(Counter(a).values())", "best = run = 1\nfor x, y in zip(a, a[1:]):\n    if x == y:\n        run += 1\n        best = max(best, run)\nanswer = best",
         "max(len(list(g)) for _, g in itertools.groupby(a[:-1])) if n > 1 else 1")),
    CodingProblem("lis", "n:1..30 / a[n]:-99..99", "Print the length of the longest strictly increasing subsequence of a.",
        ("tails = []\nfor x in a:\n    at = bisect.bisect_left(tails, x)\n    tails[at:at + 1] = [x]\nanswer = len(tails)",
         "best = []\nfor i, x in enumerate(a):\n    best.append(1 + max((best[j] for j in range(i) if a[j] < x), default=0))\nanswer = max(best)",
         "best = {}\nfor x in a:\n    best[x] = max(best.get(x, 0), 1 + max((c for y, c in best.items() if y < x), default=0))\nanswer = max(best.values())"),
        ("tails = []\nfor x in a:\n    at = bisect.bisect_right(tails, x)\n    tails[at:at + 1] = [x]\nanswer = len(tails)",
         "best, last = 0, -100\nfor x in a:\n    if x > last:\n        best, last = best + 1, x\nanswer = best",
         "best = run = 1\nfor x, y in zip(a, a[1:]):\n    run = run + 1 if x < y else 1\n    best = max(best, run)\nanswer = best")),
    CodingProblem("two-sum-count", "n:1..40 t:-60..60 / a[n]:-30..30", "Print the number of pairs i < j with a_i + a_j = t.",
        ("sum(a[i] + a[j] == t for i in range(n) for j in range(i + 1, n))",
         "seen, answer = Counter(), 0\nfor x in a:\n    answer += seen[t - x]\n    seen[x] += 1",
         "c = Counter(a)\nanswer = sum(c[x] * c.get(t - x, 0) for x in c)\nanswer = (answer - sum(2 * x == t for x in a)) // 2"),
        ("len({(min(x, t - x), max(x, t - x)) for x in a if t - x in a})", "sum(a[i] + a[j] == t for i in range(n) for j in range(n)) // 2",
         "c = Counter(a)\nanswer = sum(c[x] * c.get(t - x, 0) for x in c) // 2")),
    CodingProblem("median-twice", LIST, "Print twice the median of a; of an even number of values it is the mean of the middle two.",
        ("b = sorted(a)\nanswer = b[(n - 1) // 2] + b[n // 2]", "b = sorted(a)\nanswer = 2 * b[n // 2] if n % 2 else b[n // 2] + b[n // 2 - 1]",
         "import statistics\nanswer = int(2 * statistics.median(a))"),
        ("2 * sorted(a)[n // 2]", "b = sorted(a)\nanswer = b[n // 2] + b[(n + 1) // 2 - 1] if n > 2 else b[0] * 2", "a[(n - 1) // 2] + a[n // 2]")),
    CodingProblem("gcd-all", "n:1..40 / a[n]:1..1000", "Print the greatest common divisor of a.",
        ("math.gcd(*a)", "answer = a[0]\nfor x in a:\n    while x:\n        answer, x = x, answer % x", "max(d for d in range(1, min(a) + 1) if all(x % d == 0 for x in a))"),
        ("min(a) if all(x % min(a) == 0 for x in a) else 1", "math.gcd(a[0], a[-1])", "max(d for d in range(1, 32) if all(x % d == 0 for x in a))")),
    CodingProblem("coins", "n:1..6 t:0..60 / a[n]:1..20", "Print the least number of coins of the values a that sum to t, each used any number of times, or -1.",
        ("best = [0] + [999] * t\nfor i in range(1, t + 1):\n    best[i] = min((best[i - x] + 1 for x in a if x <= i), default=999)\nanswer = best[t] if best[t] < 999 else -1",
         "seen, now, answer, steps = {0}, {0}, -1, 0\nwhile now:\n    if t in now:\n        answer = steps\n        break\n    now = {s + x for s in now for x in a if s + x <= t} - seen\n    seen |= now\n    steps += 1",
         "best = [0] + [10**6] * t\nfor x in a:\n    for i in range(x, t + 1):\n        best[i] = min(best[i], best[i - x] + 1)\nanswer = -1 if best[t] >= 10**6 else best[t]"),
        ("left, answer = t, 0\nfor x in sorted(a, reverse=True):\n    answer += left // x\n    left %= x\nanswer = answer if not left else -1",
         "best = [0] + [999] * t\nfor x in a:\n    for i in range(t, x - 1, -1):\n        best[i] = min(best[i], best[i - x] + 1)\nanswer = best[t] if best[t] < 999 else -1",
         "best = [1] + [0] * t\nfor x in a:\n    for i in range(x, t + 1):\n        best[i] += best[i - x]\nanswer = best[t] or -1")),
    CodingProblem("knapsack", "n:1..10 t:1..40 / w[n]:1..20 / p[n]:1..50", "Items have weights w and values p. Print the largest value of items that weigh at most t, each taken once.",
        ("best = [0] * (t + 1)\nfor x, y in zip(w, p):\n    for i in range(t, x - 1, -1):\n        best[i] = max(best[i], best[i - x] + y)\nanswer = best[t]",
         "max(sum(p[i] for i in range(n) if m >> i & 1) for m in range(1 << n) if sum(w[i] for i in range(n) if m >> i & 1) <= t)",
         "states = {0: 0}\nfor x, y in zip(w, p):\n    for s, q in list(states.items()):\n        if s + x <= t:\n            states[s + x] = max(states.get(s + x, 0), q + y)\nstates2 = {0: 0}\nfor x, y in zip(w, p):\n    new = dict(states2)\n    for s, q in states2.items():\n        if s + x <= t:\n            new[s + x] = max(new.get(s + x, 0), q + y)\n    states2 = new\nanswer = max(states2.values())"),
        ("best = [0] * (t + 1)\nfor x, y in zip(w, p):\n    for i in range(x, t + 1):\n        best[i] = max(best[i], best[i - x] + y)\nanswer = best[t]",
         "left, answer = t, 0\nfor x, y in sorted(zip(w, p), key=lambda z: -z[1] / z[0]):\n    if x <= left:\n        left -= x\n        answer += y",
         "best = [0] * (t + 1)\nfor x, y in zip(w, p):\n    for i in range(t - 1, x - 1, -1):\n        best[i] = max(best[i], best[i - x] + y)\nanswer = best[t - 1]")),
    CodingProblem("palindrome", WORD, "Print yes if the word is a palindrome, else no.",
        ("'yes' if s == s[::-1] else 'no'", "'yes' if all(s[i] == s[-1 - i] for i in range(len(s) // 2)) else 'no'",
         "d, answer = deque(s), 'yes'\nwhile len(d) > 1:\n    if d.popleft() != d.pop():\n        answer = 'no'"),
        ("'yes' if s[0] == s[-1] else 'no'", "'yes' if max((c % 2 for c in Counter(s).values())) <= 1 and sum(c % 2 for c in Counter(s).values()) <= 1 else 'no'",
         "'yes' if s[:len(s) // 2] == s[len(s) // 2:][::-1] else 'no'")),
    CodingProblem("longest-palindrome", "s:ab{1..30}", "Print the length of the longest part of neighbouring letters that is a palindrome.",
        ("max(j - i for i in range(len(s)) for j in range(i + 1, len(s) + 1) if s[i:j] == s[i:j][::-1])",
         "answer = 1\nfor c in range(2 * len(s) - 1):\n    i, j = c // 2, (c + 1) // 2\n    while i >= 0 and j < len(s) and s[i] == s[j]:\n        answer = max(answer, j - i + 1)\n        i, j = i - 1, j + 1",
         "next(k for k in range(len(s), 0, -1) if any(s[i:i + k] == s[i:i + k][::-1] for i in range(len(s) - k + 1)))"),
        ("answer = 1\nfor c in range(len(s)):\n    i = j = c\n    while i >= 0 and j < len(s) and s[i] == s[j]:\n        answer = max(answer, j - i + 1)\n        i, j = i - 1, j + 1",
         "sum(c // 2 * 2 for c in Counter(s).values()) + any(c % 2 for c in Counter(s).values())",
         "max(j for j in range(1, len(s) + 1) if s[:j] == s[:j][::-1])")),
    CodingProblem("compress", WORD, "Replace each run of equal letters by the letter and the run's length.",
        ("''.join(c + str(len(list(g))) for c, g in itertools.groupby(s))",
         "answer, i = '', 0\nwhile i < len(s):\n    j = i\n    while j < len(s) and s[j] == s[i]:\n        j += 1\n    answer += s[i] + str(j - i)\n    i = j",
         "import re\nanswer = re.sub(r'(.)\\1*', lambda m: m[1] + str(len(m[0])), s)"),
        ("''.join(c + (str(k) if (k := len(list(g))) > 1 else '') for c, g in itertools.groupby(s))", "''.join(c + str(k) for c, k in sorted(Counter(s).items()))",
         "''.join(c + str(len(list(g)) % 10) for c, g in itertools.groupby(s))")),
    CodingProblem("brackets", "s:(){1..30}", "Print the least number of brackets to insert so that the word is balanced.",
        ("depth = answer = 0\nfor c in s:\n    depth += 1 if c == '(' else -1\n    if depth < 0:\n        answer, depth = answer + 1, 0\nanswer += depth",
         "while '()' in s:\n    s = s.replace('()', '')\nanswer = len(s)",
         "stack = []\nfor c in s:\n    if c == ')' and stack and stack[-1] == '(':\n        stack.pop()\n    else:\n        stack.append(c)\nanswer = len(stack)"),
        ("abs(s.count('(') - s.count(')'))", "len(s.replace('()', ''))", "depth = answer = 0\nfor c in s:\n    depth += 1 if c == '(' else -1\n    answer = max(answer, -depth)\nanswer += max(depth, 0)")),
    CodingProblem("anagrams", "s:abc{1..12} / z:abc{1..12}", "Print yes if the two words are anagrams of each other, else no.",
        ("'yes' if sorted(s) == sorted(z) else 'no'", "'yes' if Counter(s) == Counter(z) else 'no'", "'yes' if all(s.count(c) == z.count(c) for c in 'abc') else 'no'"),
        ("'yes' if set(s) == set(z) else 'no'", "'yes' if len(s) == len(z) else 'no'", "'yes' if s == z[::-1] or s == z else 'no'"),
        generator="import random, sys\nkind = sys.argv[2]\nn = 1 if kind == 'small' else 12 if kind == 'extreme' else random.randint(1, 12)\n"
        "s = [random.choice('abc') for _ in range(n)]\nz = random.sample(s, n)\nif random.random() < 0.5:\n    z[random.randrange(n)] = random.choice('abc')\n"
        "if random.random() < 0.2 and n < 12:\n    z.append(random.choice(s))\nprint(''.join(s))\nprint(''.join(z))\n"),
    CodingProblem("edit-distance", "s:ab{1..9} / z:ab{1..9}", "Print the least number of letters to insert, delete or replace to turn the first word into the second.",
        ("row = list(range(len(z) + 1))\nfor i, c in enumerate(s):\n    new = [i + 1]\n    for j, d in enumerate(z):\n        new.append(min(row[j] + (c != d), row[j + 1] + 1, new[j] + 1))\n    row = new\nanswer = row[-1]",
         "import functools\n@functools.cache\ndef f(i, j):\n    if i == len(s) or j == len(z):\n        return len(s) - i + len(z) - j\n    if s[i] == z[j]:\n        return f(i + 1, j + 1)\n    return 1 + min(f(i + 1, j), f(i, j + 1), f(i + 1, j + 1))\nanswer = f(0, 0)",
         "best = {(0, 0): 0}\nfor i in range(len(s) + 1):\n    for j in range(len(z) + 1):\n        ways = [best[i - 1, j] + 1] if i else []\n        ways += [best[i, j - 1] + 1] if j else []\n        ways += [best[i - 1, j - 1] + (s[i - 1] != z[j - 1])] if i and j else []\n        best[i, j] = min(ways, default=0)\nanswer = best[len(s), len(z)]"),
        ("sum(c != d for c, d in zip(s, z)) + abs(len(s) - len(z))", "max(len(s), len(z)) - sum((Counter(s) & Counter(z)).values())",
         "row = list(range(len(z) + 1))\nfor i, c in enumerate(s):\n    new = [i + 1]\n    for j, d in enumerate(z):\n        new.append(min(row[j] + 2 * (c != d), row[j + 1] + 1, new[j] + 1))\n    row = new\nanswer = row[-1]")),
    CodingProblem("common-subsequence", "s:abc{1..12} / z:abc{1..12}", "Print the length of the longest common subsequence of the two words.",
        ("row = [0] * (len(z) + 1)\nfor c in s:\n    new = [0]\n    for j, d in enumerate(z):\n        new.append(row[j] + 1 if c == d else max(row[j + 1], new[j]))\n    row = new\nanswer = row[-1]",
         "import functools\n@functools.cache\ndef f(i, j):\n    if i == len(s) or j == len(z):\n        return 0\n    return 1 + f(i + 1, j + 1) if s[i] == z[j] else max(f(i + 1, j), f(i, j + 1))\nanswer = f(0, 0)",
         "answer = 0\nlevel = {-1: 0}\nbest = [-1]\nfor c in s:\n    for k in range(len(best) - 1, -1, -1):\n        at = z.find(c, best[k] + 1)\n        if at >= 0:\n            if k + 1 == len(best):\n                best.append(at)\n            else:\n                best[k + 1] = min(best[k + 1], at)\nanswer = len(best) - 1"),
        ("sum((Counter(s) & Counter(z)).values())", "max((k for i in range(len(s)) for k in range(len(s) - i + 1) if s[i:i + k] in z))",
         "at = answer = 0\nfor c in s:\n    if z.find(c, at) >= 0:\n        at = z.find(c, at) + 1\n        answer += 1")),
    CodingProblem("components", GRAPH, "A graph has n vertices and the m edges u, v. Print the number of its connected components.",
        ("root = list(range(n + 1))\ndef find(x):\n    while root[x] != x:\n        x = root[x]\n    return x\nfor x, y in zip(u, v):\n    root[find(x)] = find(y)\nanswer = sum(root[x] == x for x in range(1, n + 1))",
         "near = defaultdict(set)\nfor x, y in zip(u, v):\n    near[x].add(y)\n    near[y].add(x)\nleft, answer = set(range(1, n + 1)), 0\nwhile left:\n    answer += 1\n    stack = [left.pop()]\n    while stack:\n        new = near[stack.pop()] & left\n        left -= new\n        stack += new",
         "label = list(range(n + 1))\nfor x, y in zip(u, v):\n    old, new = label[x], label[y]\n    label = [new if c == old else c for c in label]\nanswer = len(set(label[1:]))"),
        ("n - m if n > m else 1", "root = list(range(n + 1))\nfor x, y in zip(u, v):\n    root[x] = root[y]\nanswer = sum(root[x] == x for x in range(1, n + 1))",
         "n - len({tuple(sorted(e)) for e in zip(u, v) if e[0] != e[1]}) if n > len({tuple(sorted(e)) for e in zip(u, v) if e[0] != e[1]}) else 1")),
    CodingProblem("shortest-path", "n:2..9 m:0..20 / m* u:1..n v:1..n w:1..20", "Streets u, v of length w go both ways. Print the length of the shortest way from 1 to n, or -1.",
        ("far = [10**9] * (n + 1)\nfar[1] = 0\nfor _ in range(n):\n    for x, y, z in zip(u, v, w):\n        far[y] = min(far[y], far[x] + z)\n        far[x] = min(far[x], far[y] + z)\nanswer = far[n] if far[n] < 10**9 else -1",
         "near = defaultdict(list)\nfor x, y, z in zip(u, v, w):\n    near[x].append((y, z))\n    near[y].append((x, z))\nqueue, seen, answer = [(0, 1)], set(), -1\nwhile queue:\n    d, x = heapq.heappop(queue)\n    if x == n:\n        answer = d\n        break\n    if x in seen:\n        continue\n    seen.add(x)\n    for y, z in near[x]:\n        heapq.heappush(queue, (d + z, y))",
         "d = [[0 if i == j else 10**9 for j in range(n + 1)] for i in range(n + 1)]\nfor x, y, z in zip(u, v, w):\n    d[x][y] = d[y][x] = min(z, d[x][y])\nfor k in range(1, n + 1):\n    for i in range(1, n + 1):\n        for j in range(1, n + 1):\n            d[i][j] = min(d[i][j], d[i][k] + d[k][j])\nanswer = d[1][n] if d[1][n] < 10**9 else -1"),
        ("far = [10**9] * (n + 1)\nfar[1] = 0\nfor _ in range(n):\n    for x, y, z in zip(u, v, w):\n        far[y] = min(far[y], far[x] + z)\nanswer = far[n] if far[n] < 10**9 else -1",
         "far = [10**9] * (n + 1)\nfar[1] = 0\nfor x, y, z in zip(u, v, w):\n    far[y] = min(far[y], far[x] + z)\n    far[x] = min(far[x], far[y] + z)\nanswer = far[n] if far[n] < 10**9 else -1",
         "d = {}\nfor x, y, z in zip(u, v, w):\n    d[x, y] = d[y, x] = z\nfar = [10**9] * (n + 1)\nfar[1] = 0\nfor _ in range(n):\n    for (x, y), z in d.items():\n        far[y] = min(far[y], far[x] + z)\nanswer = far[n] if far[n] < 10**9 else -1")),
    CodingProblem("tree-diameter", "n:1..30 / p[n]:0..29", "Vertex i (from 1) of a tree has the parent p_i; p_1 = 0 is the root, and p_i < i. Print the edges of the longest path.",
        ("best, answer = [0] * (n + 1), 0\nfor i in range(n, 1, -1):\n    x = p[i - 1]\n    answer = max(answer, best[x] + best[i] + 1)\n    best[x] = max(best[x], best[i] + 1)",
         "near = defaultdict(list)\nfor i in range(2, n + 1):\n    near[i].append(p[i - 1])\n    near[p[i - 1]].append(i)\ndef far(x):\n    seen, now = {x: 0}, [x]\n    for y in now:\n        for z in near[y]:\n            if z not in seen:\n                seen[z] = seen[y] + 1\n                now.append(z)\n    return seen\na = far(1)\nb = far(max(a, key=a.get))\nanswer = max(b.values())",
         "d = [[0 if i == j else 999 for j in range(n + 1)] for i in range(n + 1)]\nfor i in range(2, n + 1):\n    d[i][p[i - 1]] = d[p[i - 1]][i] = 1\nfor k in range(1, n + 1):\n    for i in range(1, n + 1):\n        for j in range(1, n + 1):\n            d[i][j] = min(d[i][j], d[i][k] + d[k][j])\nanswer = max(d[i][j] for i in range(1, n + 1) for j in range(1, n + 1))"),
        ("depth = [0] * (n + 1)\nfor i in range(2, n + 1):\n    depth[i] = depth[p[i - 1]] + 1\nanswer = max(depth)",
         "depth = [0] * (n + 1)\nfor i in range(2, n + 1):\n    depth[i] = depth[p[i - 1]] + 1\nb = sorted(depth)[-2:]\nanswer = sum(b) if n > 1 else 0",
         "n - 1"),
        generator="import random, sys\nfrom cyaron import *\nkind, index = sys.argv[2], int(sys.argv[3])\nn = 1 + index // 3 if kind == 'small' else 30 if kind == 'extreme' else random.randint(1, 30)\n"
        "tree = Graph.chain(n) if kind == 'extreme' and index % 3 == 0 else Graph.flower(n) if kind == 'extreme' and index % 3 == 1 else Graph.tree(n, 0.3, 0.3)\n"
        "parent = [0] * (n + 1)\nfor edge in tree.iterate_edges():\n    a, b = sorted((edge.start, edge.end))\n    parent[b] = a\nprint(n)\nprint(*parent[1:])\n"),
    CodingProblem("islands", GRID, "Print the number of islands: regions of # that touch by sides.",
        ("left = {(i, j) for i in range(r) for j in range(c) if g[i][j] == '#'}\nanswer = 0\nwhile left:\n    answer += 1\n    stack = [left.pop()]\n    while stack:\n        i, j = stack.pop()\n        for q in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):\n            if q in left:\n                left.remove(q)\n                stack.append(q)",
         "root = {(i, j): (i, j) for i in range(r) for j in range(c) if g[i][j] == '#'}\ndef find(x):\n    while root[x] != x:\n        x = root[x]\n    return x\nfor i, j in list(root):\n    for q in ((i + 1, j), (i, j + 1)):\n        if q in root:\n            root[find(q)] = find((i, j))\nanswer = sum(root[x] == x for x in root)",
         "m = [list(row) for row in g]\ndef sink(i, j):\n    if 0 <= i < r and 0 <= j < c and m[i][j] == '#':\n        m[i][j] = '.'\n        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):\n            sink(i + x, j + y)\n        return 1\n    return 0\nanswer = sum(sink(i, j) for i in range(r) for j in range(c))"),
        ("m = [list(row) for row in g]\ndef sink(i, j):\n    if 0 <= i < r and 0 <= j < c and m[i][j] == '#':\n        m[i][j] = '.'\n        for x in (-1, 0, 1):\n            for y in (-1, 0, 1):\n                sink(i + x, j + y)\n        return 1\n    return 0\nanswer = sum(sink(i, j) for i in range(r) for j in range(c))",
         "sum(g[i][j] == '#' and (i == 0 or g[i - 1][j] == '.') and (j == 0 or g[i][j - 1] == '.') for i in range(r) for j in range(c))",
         "sum(row.count('#') for row in g)")),
    CodingProblem("grid-paths", GRID, "Print the number of ways from the upper left to the lower right corner, by steps to the right and down, over cells without #.",
        ("w = [0] * c\nw[0] = 1\nfor i in range(r):\n    for j in range(c):\n        w[j] = 0 if g[i][j] == '#' else w[j] + (w[j - 1] if j else 0)\nanswer = w[-1]",
         "import functools\n@functools.cache\ndef f(i, j):\n    if i == r or j == c or g[i][j] == '#':\n        return 0\n    return 1 if (i, j) == (r - 1, c - 1) else f(i + 1, j) + f(i, j + 1)\nanswer = f(0, 0)",
         "w = [[0] * (c + 1) for _ in range(r + 1)]\nfor i in range(r):\n    for j in range(c):\n        if g[i][j] == '.':\n            w[i][j] = 1 if i == j == 0 else (w[i - 1][j] if i else 0) + (w[i][j - 1] if j else 0)\nanswer = w[r - 1][c - 1]"),
        ("math.comb(r + c - 2, r - 1)", "w = [0] * c\nw[0] = 1\nfor i in range(r):\n    for j in range(1, c):\n        w[j] = 0 if g[i][j] == '#' else w[j] + w[j - 1]\nanswer = w[-1]",
         "w = [0] * c\nw[0] = 1\nfor i in range(r):\n    for j in range(c):\n        w[j] = 0 if g[i][j] == '#' else w[j] + (w[j - 1] if j else 0)\nanswer = min(w[-1], 20)"),
        generator="import random, sys\nkind, index = sys.argv[2], int(sys.argv[3])\nr, c = (1 + index // 3, 1 + index % 3) if kind == 'small' else (8, 8) if kind == 'extreme' else (random.randint(1, 8), random.randint(1, 8))\n"
        "share = random.choice((0, 0.1, 0.25))\nprint(r, c)\nfor _ in range(r):\n    print(''.join(random.choices('.#', (1 - share, share), k=c)))\n"),
    CodingProblem("intervals", "n:1..20 / n* u:0..60 d:1..20", "Talks begin at u and last d. Print the largest number of talks that do not overlap; one may begin as another ends.",
        ("end, answer = 0, 0\nfor e, b in sorted((x + y, x) for x, y in zip(u, d)):\n    if b >= end:\n        end, answer = e, answer + 1",
         "best = [0] * 90\nfor t in range(1, 90):\n    best[t] = max([best[t - 1]] + [best[x] + 1 for x, y in zip(u, d) if x + y == t])\nanswer = best[-1]",
         "items = sorted(zip(u, d))\nimport functools\n@functools.cache\ndef f(i, free):\n    if i == n:\n        return 0\n    x, y = items[i]\n    return max(f(i + 1, free), 1 + f(i + 1, x + y) if x >= free else 0)\nanswer = f(0, 0)"),
        ("end, answer = 0, 0\nfor b, e in sorted((x, x + y) for x, y in zip(u, d)):\n    if b >= end:\n        end, answer = e, answer + 1",
         "end, answer = -1, 0\nfor e, b in sorted((x + y, x) for x, y in zip(u, d)):\n    if b > end:\n        end, answer = e, answer + 1",
         "end, answer = 0, 0\nfor y, x in sorted(zip(d, u)):\n    if x >= end:\n        end, answer = x + y, answer + 1")),
    CodingProblem("primes", "n:1..3000", "Print the number of primes up to n.",
        ("sum(all(p % d for d in range(2, math.isqrt(p) + 1)) for p in range(2, n + 1))",
         "sieve = bytearray([1]) * (n + 1)\nfor p in range(2, n + 1):\n    if sieve[p]:\n        sieve[2 * p::p] = bytes(len(sieve[2 * p::p]))\nanswer = sum(sieve[2:])",
         "found = []\nfor x in range(2, n + 1):\n    for p in found:\n        if p * p > x:\n            found.append(x)\n            break\n        if x % p == 0:\n            break\n    else:\n        found.append(x)\nanswer = len(found)"),
        ("sum(all(p % d for d in range(2, math.isqrt(p))) for p in range(2, n + 1))", "sum(all(p % d for d in range(2, math.isqrt(p) + 1)) for p in range(1, n + 1))",
         "sum(all(p % d for d in (2, 3, 5, 7, 11, 13) if d < p) for p in range(2, n + 1))")),
    CodingProblem("digit-sum", "n:0..1000000000000", "Print the sum of the digits of n.",
        ("sum(map(int, str(n)))", "answer = 0\nwhile n:\n    n, x = divmod(n, 10)\n    answer += x", "sum(int(c) * str(n).count(c) for c in set(str(n)))"),
        ("n % 9 or 9", "sum(map(int, str(n)[1:]))", "sum(map(int, str(n & 0xFFFFFFFF)))")),
    CodingProblem("collatz", "n:1..100000", "n becomes n / 2 if it is even, else 3n + 1. Print the number of steps to 1.",
        ("answer = 0\nwhile n != 1:\n    n = n // 2 if n % 2 == 0 else 3 * n + 1\n    answer += 1",
         "def f(x):\n    c = 0\n    while x > 1:\n        x, c = (x >> 1, c + 1) if not x & 1 else ((3 * x + 1) >> 1, c + 2)\n    return c\nanswer = f(n)",
         "seen = [n]\nwhile seen[-1] != 1:\n    seen.append([seen[-1] // 2, seen[-1] * 3 + 1][seen[-1] % 2])\nanswer = len(seen) - 1"),
        ("answer = 1\nwhile n != 1:\n    n = n // 2 if n % 2 == 0 else 3 * n + 1\n    answer += 1",
         "answer = 0\nwhile n > 1:\n    n = n // 2 if n % 2 == 0 else (3 * n + 1) // 2\n    answer += 1",
         "answer = 0\nwhile n != 1 and answer < 100:\n    n = n // 2 if n % 2 == 0 else 3 * n + 1\n    answer += 1")),
    CodingProblem("power-mod", "b:0..1000000 e:0..1000000 m:1..1000000", "Print b to the power of e, modulo m.",
        ("pow(b, e, m)", "answer, x = 1 % m, b % m\nwhile e:\n    if e & 1:\n        answer = answer * x % m\n    x, e = x * x % m, e >> 1",
         "def f(x, k):\n    if k == 0:\n        return 1 % m\n    h = f(x, k // 2)\n    return h * h * (x if k % 2 else 1) % m\nanswer = f(b, e)"),
        ("pow(b, e % (m - 1), m) if m > 1 else 0", "answer, x = 1, b % m\nwhile e:\n    if e & 1:\n        answer = answer * x % m\n    x, e = x * x % m, e >> 1",
         "b * e % m")),
    CodingProblem("triangle", "x:1..100 y:1..100 z:1..100", "Print equilateral, isosceles, scalene, or none if no triangle with an area has these sides.",
        ("q = sorted((x, y, z))\nanswer = 'none' if q[0] + q[1] <= q[2] else ['', 'equilateral', 'isosceles', 'scalene'][len(set(q))]",
         "if x + y <= z or x + z <= y or y + z <= x:\n    answer = 'none'\nelif x == y == z:\n    answer = 'equilateral'\nelif x == y or y == z or x == z:\n    answer = 'isosceles'\nelse:\n    answer = 'scalene'",
         "answer = 'none' if 2 * max(x, y, z) >= x + y + z else {1: 'equilateral', 2: 'isosceles', 3: 'scalene'}[len({x, y, z})]"),
        ("q = sorted((x, y, z))\nanswer = 'none' if q[0] + q[1] < q[2] else ['', 'equilateral', 'isosceles', 'scalene'][len(set(q))]",
         "answer = 'none' if x + y <= z else {1: 'equilateral', 2: 'isosceles', 3: 'scalene'}[len({x, y, z})]",
         "answer = 'none' if 2 * max(x, y, z) >= x + y + z else 'equilateral' if x == y == z else 'isosceles' if x == y or y == z else 'scalene'"),
        generator="import random, sys\nkind = sys.argv[2]\nhigh = 4 if kind == 'small' else 100\na, b = random.randint(1, high), random.randint(1, high)\n"
        "q = random.choice(([a, a, a], [a, a, b], [a, b, min(100, a + b)], [a, b, random.randint(1, high)], [a, b, max(1, min(100, a + b - 1))]))\nrandom.shuffle(q)\nprint(*q)\n"),
    CodingProblem("factor-pair", "n:4..100000", "Print two integers above 1 whose product is n, or -1 if there are none. If there are several pairs, print any of them.",
        ("d = next((d for d in range(2, math.isqrt(n) + 1) if n % d == 0), 0)\nanswer = [d, n // d] if d else -1",
         "d = next((d for d in range(math.isqrt(n), 1, -1) if n % d == 0), 0)\nanswer = [n // d, d] if d else -1",
         "answer, d = -1, 2\nwhile d * d <= n:\n    if n % d == 0:\n        answer = [d, n // d]\n    d += 1"),
        ("[1, n]", "d = next((d for d in range(2, math.isqrt(n)) if n % d == 0), 0)\nanswer = [d, n // d] if d else -1",
         "d = next((d for d in (2, 3, 5, 7, 11) if n % d == 0 and n > d), 0)\nanswer = [d, n // d] if d else -1"),
        checker="import sys\ninput_text, output, expected = (open(path).read() for path in sys.argv[1:4])\nn = int(input_text)\nwords = output.split()\n"
        "if expected.split() == ['-1']:\n    sys.exit(words != ['-1'])\nif len(words) != 2 or not all(word.isdigit() for word in words):\n    sys.exit(1)\na, b = map(int, words)\nsys.exit(a < 2 or b < 2 or a * b != n)\n",
        generator="import random, sys\nkind, index = sys.argv[2], int(sys.argv[3])\nprimes = [p for p in range(2, 316) if all(p % d for d in range(2, int(p ** 0.5) + 1))]\n"
        "if kind == 'small':\n    print(4 + index)\nelif kind == 'extreme':\n    print(random.choice((random.choice(primes) ** 2, 100000 - index)) if index % 2 else 99991)\n"
        "elif kind == 'adversarial':\n    p = random.choice(primes[5:])\n    print(random.choice((p * p, p * random.choice([q for q in primes if q * p <= 100000]))) if p > 1 else 4)\nelse:\n    print(random.randint(4, 100000))\n"),
    CodingProblem("subset-sum", "n:1..10 t:1..60 / a[n]:1..30", "Print values of a, each place used at most once, that sum to t, or -1 if there are none. Any valid answer is accepted.",
        ("answer = next(([a[i] for i in range(n) if m >> i & 1] for m in range(1, 1 << n) if sum(a[i] for i in range(n) if m >> i & 1) == t), -1)",
         "best = {0: []}\nfor x in a:\n    for s, q in list(best.items()):\n        best.setdefault(s + x, q + [x])\nbest2 = {0: []}\nfor x in a:\n    for s, q in list(best2.items()):\n        best2.setdefault(s + x, [*q, x])\nanswer = best2.get(t, -1)",
         "def f(i, left):\n    if left == 0:\n        return []\n    if i == n or left < 0:\n        return None\n    found = f(i + 1, left - a[i])\n    return found + [a[i]] if found is not None else f(i + 1, left)\nfound = f(0, t)\nanswer = -1 if found is None else found"),
        ("left, answer = t, []\nfor x in sorted(a, reverse=True):\n    if x <= left:\n        left -= x\n        answer.append(x)\nanswer = answer if not left else -1",
         "answer = next(([x] * (t // x) for x in a if t % x == 0), -1)", "answer = -1 if sum(a) < t else a"),
        checker="import sys\nfrom collections import Counter\ninput_text, output, expected = (open(path).read() for path in sys.argv[1:4])\nnumbers = list(map(int, input_text.split()))\n"
        "words = output.split()\nif expected.split() == ['-1']:\n    sys.exit(words != ['-1'])\nif not words or not all(word.isdigit() for word in words):\n    sys.exit(1)\n"
        "chosen = list(map(int, words))\nsys.exit(sum(chosen) != numbers[1] or bool(Counter(chosen) - Counter(numbers[2:])))\n"),
    # --- Functions ---
    CodingProblem("f-dedupe", LIST, "Return a without repetitions, in the order of the first occurrences.",
        ("list(dict.fromkeys(a))", "[x for i, x in enumerate(a) if x not in a[:i]]", "seen, answer = set(), []\nfor x in a:\n    if x not in seen:\n        seen.add(x)\n        answer.append(x)"),
        ("sorted(set(a))", "[x for i, x in enumerate(a) if i == 0 or x != a[i - 1]]", "[x for i, x in enumerate(a) if x not in a[i + 1:]]"), ("a",)),
    CodingProblem("f-running-max", LIST, "Return the running maximum of a.",
        ("list(itertools.accumulate(a, max))", "[max(a[:i + 1]) for i in range(len(a))]", "answer = []\nfor x in a:\n    answer.append(max(x, answer[-1]) if answer else x)"),
        ("[max(a)] * len(a)", "best, answer = 0, []\nfor x in a:\n    best = max(best, x)\n    answer.append(best)", "[max(a[max(0, i - 1):i + 1]) for i in range(len(a))]"), ("a",)),
    CodingProblem("f-clamp-mean", LIST, "Return the mean of a, rounded down to an integer.",
        ("sum(a) // len(a)", "math.floor(sum(a) / len(a))", "q, r = divmod(sum(a), len(a))\nanswer = q"),
        ("int(sum(a) / len(a))", "round(sum(a) / len(a))", "(min(a) + max(a)) // 2"), ("a",)),
    CodingProblem("f-count-vowels", "s:aeixyz{1..40}", "Return the number of vowels in s.",
        ("sum(c in 'aeiou' for c in s)", "len([c for c in s if c in set('aeiou')])", "sum(s.count(c) for c in 'aeiou')"),
        ("sum(c in 'aei' for c in set(s))", "sum(c in 'aeo' for c in s)", "len(s) - s.count('x') - s.count('z')"), ("s",)),
    CodingProblem("f-rotate-word", "s:abc{1..20} k:0..50", "Return s rotated by k letters to the right.",
        ("s[-k % len(s):] + s[:-k % len(s)]", "''.join(s[(i - k) % len(s)] for i in range(len(s)))", "d = deque(s)\nd.rotate(k)\nanswer = ''.join(d)"),
        ("s[-k:] + s[:-k]", "s[k % len(s):] + s[:k % len(s)]", "(s[-(k % len(s)):] + s[:-(k % len(s))]) if k < len(s) else s"), ("s", "k")),
    CodingProblem("f-is-sorted", LIST, "Return whether a is sorted, in rising or falling order; equal neighbours are allowed.",
        ("a in (sorted(a), sorted(a, reverse=True))", "all(x <= y for x, y in zip(a, a[1:])) or all(x >= y for x, y in zip(a, a[1:]))",
         "signs = {(y > x) - (y < x) for x, y in zip(a, a[1:])}\nanswer = not {1, -1} <= signs"),
        ("a == sorted(a)", "all(x < y for x, y in zip(a, a[1:])) or all(x > y for x, y in zip(a, a[1:]))", "a[0] <= a[-1] == max(a) or a[0] >= a[-1] == min(a)"), ("a",)),
    CodingProblem("f-third-moment", "n:1..30 / a[n]:-50..50", "Return the sum of a_i times its place, from 1.",
        ("sum(i * x for i, x in enumerate(a, 1))", "sum(sum(a[i:]) for i in range(len(a)))", "answer = run = 0\nfor x in reversed(a):\n    run += x\n    answer += run"),
        ("sum(i * x for i, x in enumerate(a))", "sum(i * x for i, x in enumerate(sorted(a), 1))", "sum(i * abs(x) for i, x in enumerate(a, 1))"), ("a",)),
    CodingProblem("f-caesar", "s:abcxyz{1..30} k:0..60", "Return s with every letter moved on by k places in the alphabet, from z on to a.",
        ("''.join(chr((ord(c) - 97 + k) % 26 + 97) for c in s)", "z = 'abcdefghijklmnopqrstuvwxyz'\nanswer = ''.join(z[(z.index(c) + k) % 26] for c in s)",
         "z = 'abcdefghijklmnopqrstuvwxyz'\nanswer = s.translate(str.maketrans(z, z[k % 26:] + z[:k % 26]))"),
        ("''.join(chr(ord(c) + k) for c in s)", "''.join(chr((ord(c) - 97 - k) % 26 + 97) for c in s)", "''.join(chr(97 + (ord(c) - 97 + k) % 26) if k < 26 else c for c in s)"), ("s", "k")),
    CodingProblem("f-roman", "n:1..3999", "Return n as a Roman numeral.",
        ("answer = ''\nfor x, r in zip((1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1), 'M CM D CD C XC L XL X IX V IV I'.split()):\n    answer += r * (n // x)\n    n %= x",
         "answer = ['', 'M', 'MM', 'MMM'][n // 1000] + ' C CC CCC CD D DC DCC DCCC CM'.split(' ')[n // 100 % 10] + ' X XX XXX XL L LX LXX LXXX XC'.split(' ')[n // 10 % 10] + ' I II III IV V VI VII VIII IX'.split(' ')[n % 10]",
         "def f(d, one, five, ten):\n    return one + ten if d == 9 else one + five if d == 4 else five * (d // 5) + one * (d % 5)\nanswer = 'M' * (n // 1000) + f(n // 100 % 10, 'C', 'D', 'M') + f(n // 10 % 10, 'X', 'L', 'C') + f(n % 10, 'I', 'V', 'X')"),
        ("answer = ''\nfor x, r in zip((1000, 500, 100, 50, 10, 5, 1), 'M D C L X V I'.split()):\n    answer += r * (n // x)\n    n %= x",
         "answer = ''\nfor x, r in zip((1000, 900, 500, 100, 90, 50, 40, 10, 9, 5, 4, 1), 'M CM D C XC L XL X IX V IV I'.split()):\n    answer += r * (n // x)\n    n %= x",
         "answer = ''\nfor x, r in zip((1000, 900, 500, 400, 100, 90, 50, 40, 10, 5, 4, 1), 'M CM D CD C XC L XL X V IV I'.split()):\n    answer += r * (n // x)\n    n %= x"), ("n",)),
    CodingProblem("f-merge-sorted", "n:1..20 m:1..20 / a[n]:-40..40 / b[m]:-40..40", "Return the values that are in both lists, as often as in the one that has fewer of them, in rising order.",
        ("sorted((Counter(a) & Counter(b)).elements())", "answer, rest = [], list(b)\nfor x in sorted(a):\n    if x in rest:\n        rest.remove(x)\n        answer.append(x)",
         "answer = []\nfor x in sorted(set(a)):\n    answer += [x] * min(a.count(x), b.count(x))"),
        ("sorted(set(a) & set(b))", "sorted(x for x in a if x in b)", "answer = []\nfor x in sorted(set(a)):\n    answer += [x] * max(a.count(x), b.count(x)) if x in b else []"), ("a", "b"),
        generator="import json, random, sys\nkind = sys.argv[2]\nhigh = 2 if kind in ('small', 'adversarial') else 8\nlength = 3 if kind == 'small' else 20\n"
        "print(json.dumps([[random.randint(-high, high) for _ in range(random.randint(1, length))] for _ in 'ab']))\n"),
    CodingProblem("f-window", "n:1..30 k:1..n / a[n]:-99..99", "Return the largest sum of k neighbours of a.",
        ("max(sum(a[i:i + k]) for i in range(len(a) - k + 1))", "p = [0, *itertools.accumulate(a)]\nanswer = max(p[i + k] - p[i] for i in range(len(a) - k + 1))",
         "run = sum(a[:k])\nanswer = run\nfor i in range(k, len(a)):\n    run += a[i] - a[i - k]\n    answer = max(answer, run)"),
        ("sum(sorted(a)[-k:])", "max(sum(a[i:i + k]) for i in range(len(a)))", "max(sum(a[i:i + k]) for i in range(max(1, len(a) - k)))"), ("a", "k")),
)  # fmt: skip


def main() -> None:
    """Writes the problems as a file for `perilune testgen`."""
    import sys

    with open(sys.argv[1], "w") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows())


if __name__ == "__main__":
    main()
