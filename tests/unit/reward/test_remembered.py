"""What the reward service keeps of its callers' texts: little, however large and many these are."""

from __future__ import annotations

import tracemalloc

import pytest

from perilune.errors import InvalidInputError
from services.reward.equality import structure
from services.reward.graders import GRADERS
from services.reward.graders.grader import GradingSample

MIB = 1 << 20


def test_large_options_are_forgotten() -> None:
    read = GRADERS["regex"].read_options
    read({"marker": "first"})
    tracemalloc.start()
    try:
        for number in range(100):
            read({"marker": f"{number:09}" * (MIB // 9)})
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 3 * MIB


def test_small_options_are_read_once() -> None:
    grader = GRADERS["regex"]
    assert grader.read_options({"pattern": "a+"}) is grader.read_options({"pattern": "a+"})
    assert all(grader.read_options({"pattern": f"x{number}"}).pattern == f"x{number}" for number in range(3000))


def test_long_answers_are_forgotten() -> None:
    tracemalloc.start()
    try:
        for number in range(50):
            structure.is_text_answer(f"{number} " * (MIB // 5))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2 * MIB


def test_a_pattern_has_a_length() -> None:
    with pytest.raises(InvalidInputError, match=r"10,001 characters, and 10,000 are allowed"):
        GRADERS["regex"].read_options({"pattern": "a" * 10_001})
    work = GRADERS["regex"].work
    assert work
    with pytest.raises(InvalidInputError, match="the reference is no regular expression"):
        work(GradingSample("", "a" * 10_001, "a"), GRADERS["regex"].read_options({}))
