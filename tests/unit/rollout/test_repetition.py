"""What counts as repetition, where it begins, and what never does: real code, tables and lists."""

from __future__ import annotations

import re
import sysconfig
import time
from pathlib import Path
from random import Random

import pytest

from services.rollout.repetition import NGRAM, Cycle, RepetitionDetector, Rule


def first_cycle(tokens: list[int], rule: Rule) -> tuple[Cycle | None, int]:
    """The first cycle that is found, and how many tokens it took."""
    detector = RepetitionDetector(rule)
    for number, token in enumerate(tokens, 1):
        if cycle := detector.add(token):
            return cycle, number
    return None, len(tokens)


def tokens_of(text: str) -> list[int]:
    """Pieces of words, single digits and marks, as the tokenizers of language models cut them."""
    ids: dict[str, int] = {}
    pieces = re.findall(r"[A-Za-z]{1,6}|\d|\s+|[^\w\s]{1,2}|\w", text)
    return [ids.setdefault(piece, len(ids)) for piece in pieces]


def prose(length: int, seed: int = 0) -> list[int]:
    rng = Random(seed)
    return [rng.randrange(1000, 50_000) for _ in range(length)]


@pytest.mark.parametrize("period", [1, 2, 7, 50, 200])
def test_an_exact_cycle_is_found_where_it_begins(period: int) -> None:
    loop = prose(period, seed=1)
    cycle, taken = first_cycle(prose(300) + loop * 2000, Rule(min_tokens=100, min_repeats=4))
    assert cycle is not None
    assert cycle.period == period
    assert cycle.start == 300 + period  # the first copy
    # As soon as both conditions hold.
    assert taken == cycle.start + max(100, 4 * period)


def test_a_loop_whose_counter_changes_is_a_near_cycle() -> None:
    """Eleven tokens, one of them different each time."""
    body = prose(10)
    tokens = [token for number in range(400) for token in [*body, number]]
    cycle, taken = first_cycle(tokens, Rule(min_tokens=100, similarity=0.9))
    assert cycle is not None
    assert cycle.period == 11
    # 10 matches and a mismatch, which costs 9 of them: one a round is gained.
    assert 11 * 80 < taken < 11 * 110
    assert first_cycle(tokens, Rule(min_tokens=100, similarity=1.0)) == (None, len(tokens))


def test_a_table_is_none_however_long() -> None:
    """Rows of nine tokens with two cells that differ: 7 of 9 match, less than the rule asks for."""
    rng = Random(0)
    row = prose(7)
    tokens = [token for _ in range(2000) for token in [*row[:3], rng.randrange(900), *row[3:], rng.randrange(900)]]
    assert first_cycle(tokens, Rule(min_tokens=100))[0] is None


def test_a_refrain_is_none() -> None:
    """Said five times with other things in between."""
    chorus = prose(60, seed=2)
    tokens = [token for verse in range(5) for token in [*prose(100, seed=10 + verse), *chorus]]
    assert first_cycle(tokens, Rule(min_tokens=50, min_repeats=4))[0] is None


def test_a_continued_response_is_judged_as_a_whole() -> None:
    tokens = prose(50) + prose(10, seed=1) * 100
    rule = Rule(min_tokens=100)
    whole = first_cycle(tokens, rule)
    detector = RepetitionDetector(rule, tokens[:90])
    for number, token in enumerate(tokens[90:], 91):
        if cycle := detector.add(token):
            assert (cycle, number) == whole
            return
    raise AssertionError("nothing was found")


def library_files() -> list[Path]:
    """Python's own library: code, character tables in which almost every line looks alike, long lists of names."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    named = [folder / name for name in ("html/entities.py", "token.py", "opcode.py", "keyword.py", "stat.py", "errno")]
    files = [*sorted((folder / "encodings").glob("cp*.py")), *sorted(folder.glob("[a-f]*.py")), *named]
    return [file for file in files if file.is_file()]


@pytest.mark.slow
def test_real_text_is_never_stopped() -> None:
    files, num_tokens = library_files(), 0
    for file in files:
        tokens = tokens_of(file.read_text(encoding="utf-8"))
        num_tokens += len(tokens)
        cycle, _ = first_cycle(tokens, Rule())
        assert cycle is None, f"{file}: {cycle}"
    assert num_tokens > 500_000  # else it says nothing


def test_a_token_costs_the_same_however_long_the_response_is() -> None:
    """Amortised: the last of four parts takes about as long as the first. Best of several, on a busy machine."""
    tokens, part = prose(80_000), 20_000

    def seconds() -> list[float]:
        detector, taken = RepetitionDetector(Rule()), []
        for start in range(0, len(tokens), part):
            began = time.process_time()
            for token in tokens[start : start + part]:
                detector.add(token)
            taken.append(time.process_time() - began)
        return taken

    first, *_, last = map(min, zip(*(seconds() for _ in range(3)), strict=True))
    assert last < 4 * first


def test_too_short_to_say_anything() -> None:
    assert first_cycle([5] * (NGRAM - 1), Rule(min_tokens=1, min_repeats=1))[0] is None
