"""Which of gVisor's messages tells of a refused process."""

from __future__ import annotations

import pytest

from services.sandbox.jail.refusals import is_refusal

HEADER = bytes([8, 0, 20, 0, 0, 0, 0, 0])  # its own length, the message's type, and how many were dropped
CONTEXT = b"\x0a\x03\x08\x96\x01"
REFUSED, DONE = b"\x12\x0d\x08" + b"\xff" * 9 + b"\x01\x10\x0b", b"\x12\x03\x08\xac\x02"  # -1 and EAGAIN; 300


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (CONTEXT + REFUSED, True),
        (b"\x18\x38" + REFUSED, True),
        (CONTEXT + DONE, False),
        (REFUSED.replace(b"\x10\x0b", b"\x10\x0c"), False),  # ENOMEM
        (b"", False),
        (CONTEXT, False),
    ],
)
def test_only_a_call_that_was_refused_is_a_refusal(body: bytes, refused: bool) -> None:
    assert is_refusal(HEADER + body) is refused
    assert is_refusal(bytes([10, 0]) + HEADER[2:] + b"\0\0" + body) is refused  # a longer header of a later version
