"""Whether two outputs are the same, by each kind of comparison."""

from __future__ import annotations

import pytest

from perilune.api.sandbox.v1.sandbox_pb2 import Comparison, Program
from perilune.errors import InvalidInputError
from perilune.grading.comparison import check, difference, value_difference

KINDS = {
    "exact": Comparison(kind=Comparison.KIND_EXACT),
    "lines": Comparison(kind=Comparison.KIND_LINES),
    "tokens": Comparison(kind=Comparison.KIND_TOKENS),
    "floats": Comparison(kind=Comparison.KIND_FLOATS, relative_tolerance=1e-3),
    "tight": Comparison(kind=Comparison.KIND_FLOATS, absolute_tolerance=1e-9),
    "unordered": Comparison(kind=Comparison.KIND_UNORDERED_LINES),
    "caseless": Comparison(kind=Comparison.KIND_TOKENS, ignore_case=True),
    "unset": Comparison(),
}


@pytest.mark.parametrize(
    ("kind", "expected", "actual", "same"),
    [
        ("exact", b"a\n", b"a\n", True),
        ("exact", b"a\n", b"a", False),
        ("exact", b"\xff\x00", b"\xff\x00", True),
        ("lines", b"a b\nc\n", b"a b  \nc\n\n\n", True),
        ("lines", b"a b", b"a  b", False),
        ("lines", b"a\n\nb", b"a\nb", False),
        ("lines", b"a", b"a\r\n", True),
        ("unset", b"a\n", b"a", True),
        ("tokens", b"1 2\n3", b"1\n2   3\n", True),
        ("tokens", b"1 2", b"12", False),
        ("tokens", b"yes", b"YES", False),
        ("caseless", b"yes", b"YES", True),
        ("floats", b"x 1.0", b"x 1.0009", True),
        ("floats", b"x 1.0", b"x 1.002", False),
        ("floats", b"1e3", b"1000", True),
        ("floats", b"0", b"-0.0", True),
        ("floats", b"inf", b"nan", False),
        ("floats", b"nan", b"nan", True),
        ("floats", b"1", b"1e9999", False),
        ("tight", b"123456789012345678901", b"123456789012345678902", False),
        ("tight", b"0.1", b"0.10000000001", True),
        # Integers have no tolerance, of whatever size.
        ("floats", b"1000000006", b"1000000005", False),
        ("floats", b"200000", b"200001", False),
        ("floats", b"5 100000000 7", b"5 100000001 7", False),
        ("floats", b"9" * 5000, b"9" * 4999 + b"8", False),
        ("floats", b"9" * 5000, b"+" + b"9" * 5000, True),
        ("floats", b"0011", b"11", False),
        ("floats", b"11", b"011", False),
        ("floats", b"0011", b"0011", True),
        ("floats", b"5", b"+5", True),
        ("floats", b"-5", b"5", False),
        ("floats", b"0", b"-0", True),
        ("floats", b"00", b"0", False),
        ("floats", b"1000000000", b"1e9", True),
        ("floats", b"3", b"3.0", True),
        ("floats", b"3.0", b"3", True),
        ("floats", b"1000", b"1_000", False),
        ("floats", b"12", "١٢".encode(), False),
        ("floats", b"0x10", b"16", False),
        ("unordered", b"b\na\n", b"a \nb", True),
        ("unordered", b"a\na\nb", b"a\nb\nb", False),
        ("lines", b"", b"", True),
        ("tokens", b"", b"extra", False),
    ],
)
def test_text(kind: str, expected: bytes, actual: bytes, same: bool) -> None:
    assert (difference(KINDS[kind], expected, actual) is None) == same


def test_a_difference_says_where() -> None:
    assert difference(KINDS["lines"], b"a\nb\nc", b"a\nx\nc") == "line 2: expected 'b', got 'x'"
    assert difference(KINDS["tokens"], b"1 2 3", b"1 2") == "word 3: missing, '3' (3 expected, 2 given)"
    assert difference(KINDS["exact"], b"same", b"sane") == "byte 2: expected 'same', got 'sane'"
    assert len(difference(KINDS["lines"], b"a" * 10**6, b"b" * 10**6) or "") < 1000


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0.1 + 0.2, 0.3, True),
        (10**20, 10**20 + 1, False),
        (1000000006, 1000000005.0, False),
        (1000000006, 1000000006.0, True),
        (10**20, 1e20, True),
        (3, 3.0000000000001, True),
        ([1, [2]], [1, [2]], True),
        ([1, 2], [2, 1], False),
        ([], None, False),
        ({"a": 1.0}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ("1", 1, False),
        (None, None, True),
        (1.0, float("nan"), False),
        (1, 10**400, False),
        (1.5, 10**400, False),
    ],
)
def test_values(expected: object, actual: object, same: bool) -> None:
    assert (value_difference(Comparison(), expected, actual) is None) == same


def test_a_value_deeper_than_any_stack_is_different() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert value_difference(Comparison(), deep, [[deep]]) is not None


def test_comparisons_that_make_no_sense() -> None:
    with pytest.raises(InvalidInputError, match="tolerance"):
        check(Comparison(kind=Comparison.KIND_FLOATS, relative_tolerance=-1))
    with pytest.raises(InvalidInputError, match="checker"):
        check(Comparison(kind=Comparison.KIND_CHECKER))
    with pytest.raises(InvalidInputError, match="checker"):
        check(Comparison(kind=Comparison.KIND_LINES, checker=Program(language="python")))
    with pytest.raises(InvalidInputError, match="KIND_JSON"):
        difference(Comparison(kind=Comparison.KIND_JSON), b"1", b"1")
    with pytest.raises(InvalidInputError, match="KIND_LINES"):
        value_difference(Comparison(kind=Comparison.KIND_LINES), 1, 1)
