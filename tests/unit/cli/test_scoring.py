"""`perilune score FILE`: a line that is no request is named before anything is scored."""

from __future__ import annotations

import sys

import pytest

from perilune.cli.scoring import score_lines
from perilune.errors import InvalidInputError


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", '{"reference": "1"}', '{"response": null}', '{"response": 1}', '{"response": "\\ud800"}', "[" * 99999],
)
def test_a_line_that_is_no_request_is_named(line: str) -> None:
    lines = ['\ufeff{"response": "a"}', "", line]
    with pytest.raises(InvalidInputError, match="line 3 is no request such as"):
        score_lines("127.0.0.1:1", lines, [], 1.0, sys.stdout)
